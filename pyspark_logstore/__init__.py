"""Data source `logstore` of every Spark session: Spark looks for packages whose names begin with `pyspark_`."""

from batch.datasource.source import LogstoreSource as DefaultSource
from batch.session import pickle_by_value

__all__ = ["DefaultSource"]

pickle_by_value()  # executors have `logstore` alone
