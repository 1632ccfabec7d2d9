"""Partitioning: which partition of a table a row lives in, by hash or by split points."""
