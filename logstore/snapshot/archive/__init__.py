"""Archive: the log of a table in Parquet files, and the index that says which there are."""
