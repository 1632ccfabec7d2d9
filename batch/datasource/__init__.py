"""Data source: tables as Spark data frames."""
