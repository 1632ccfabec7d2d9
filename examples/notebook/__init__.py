"""A table in Spark: what it holds, what changed, what it held once."""
