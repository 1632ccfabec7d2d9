"""Data plane: one thread follows the log of its partitions into their views."""
