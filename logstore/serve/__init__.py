"""Readers: the HTTP endpoint over the views."""
