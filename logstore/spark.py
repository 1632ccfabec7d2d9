"""Spark: `spark.read.format("logstore")`, which a session finds by itself where this package is installed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def register(spark: "SparkSession") -> None:
    """Have a session push comparisons of `key` down to the source, and know it where Spark has not found it itself."""
    import_module("batch.datasource.source").register(spark)  # a program that stands on this library
