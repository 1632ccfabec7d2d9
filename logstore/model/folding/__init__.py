"""Folding: what records mean, the rows they fold to, and sums over those."""
