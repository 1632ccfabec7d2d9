"""Metrics: what a reader counts, what it sees of partitions, and the page `/metrics` of the whole node."""
