"""Spark: `spark.read.format("logstore")`, which a session finds by itself where this package is installed.

Here are names for what lies in a program that stands on this library; nothing of Spark is loaded before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from logstore.extras import needing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def register(spark: "SparkSession") -> None:
    """Make the source known to a session that has not found it by itself."""
    _source().register(spark)


def reason(error: BaseException) -> str | None:
    """Message of the source, out of an exception of Spark: "NoSuchTable: there is no table ..."; None for others."""
    said: str | None = _source().reason(error)
    return said


def _source() -> Any:
    with needing("batch"):
        return import_module("batch.datasource.source")
