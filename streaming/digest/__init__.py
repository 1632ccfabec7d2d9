"""Digest process: the digester computes what a view holds at a cut, beside the lane."""
