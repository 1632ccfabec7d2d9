"""Writing: what is on its way to the log, one by one, in a pipeline or as a batch."""
