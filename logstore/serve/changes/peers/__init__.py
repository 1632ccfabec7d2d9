"""Changes of partitions that other nodes serve."""
