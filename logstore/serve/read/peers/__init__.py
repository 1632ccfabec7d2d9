"""Peers: parts of a list that other nodes serve."""
