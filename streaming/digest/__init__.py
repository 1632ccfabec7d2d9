"""Digests: a process of its own computes what a view holds at a cut, beside the lane."""
