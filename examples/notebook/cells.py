# %% [markdown]
# # A table in Spark
# Run the cells one by one in an editor that knows `# %%`, or all of them: `python -m examples.notebook --bootstrap
# HOST:PORT --table NAME`.
# Each cell is a function of the session and of `TablePlace`: where the table is.

# %%
from typing import NamedTuple

from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as f

from logstore.model.key import to_base64url


class TablePlace(NamedTuple):
    bootstrap: str
    table: str
    storage: str | None = None  # a URL; without it, where the store says


def table(spark: SparkSession, place: TablePlace) -> DataFrameReader:
    reader = spark.read.format("logstore").option("bootstrap", place.bootstrap).option("table", place.table)
    return reader if place.storage is None else reader.option("storage", place.storage)


# %% [markdown]
# ## What the table holds
# The newest snapshot and the log since, of this moment. `.option("snapshot", "current")` is quicker: it reads no log at
# all.


# %%
def holdings(spark: SparkSession, place: TablePlace) -> DataFrame:
    state = table(spark, place).option("as_of", "latest").load()
    return state.groupBy("partition").agg(
        f.count("*").alias("rows"),
        f.sum(f.octet_length("value")).alias("value_bytes"),
        f.max("timestamp").alias("last_written"),
    ).orderBy("partition")  # fmt: skip


# %% [markdown]
# ## Changes per hour
# Every put and delete there ever was, from the log or, where that is trimmed, from the archive.


# %%
def changes_per_hour(spark: SparkSession, place: TablePlace) -> DataFrame:
    changes = table(spark, place).option("changes", "earliest").load()
    return changes.groupBy(f.date_trunc("hour", "timestamp").alias("hour")).agg(
        f.count("value").alias("puts"),
        f.count_if(f.col("value").isNull()).alias("deletes"),
        f.countDistinct("key").alias("keys"),
    ).orderBy("hour")  # fmt: skip


# %% [markdown]
# ## What it held at a position
# A position is a token: that of a snapshot (`logstore snapshot list`), or one that was noted down. What became of its
# rows since?


# %%
def since(spark: SparkSession, place: TablePlace, token: str) -> DataFrame:
    then = table(spark, place).option("as_of", token).load().select("key", f.col("version").alias("old"))
    now = table(spark, place).option("as_of", "latest").load().select("key", f.col("version").alias("new"))
    fate = (
        f.when(f.col("old").isNull(), "added").when(f.col("new").isNull(), "deleted")
        .when(f.col("old") == f.col("new"), "unchanged").otherwise("changed")
    )  # fmt: skip
    return then.join(now, "key", "full").groupBy(fate.alias("fate")).agg(f.count("*").alias("rows")).orderBy("fate")


# %% [markdown]
# ## Some rows
# Options narrow a reading: of the snapshot's files only the blocks of this range are read. Keys are bytes; as
# `base64url` an option can say any of them.


# %%
def rows_between(spark: SparkSession, place: TablePlace, first: bytes, end: bytes) -> DataFrame:
    reading = table(spark, place).option("key_encoding", "base64url")
    return reading.option("start", to_base64url(first)).option("end", to_base64url(end)).load().orderBy("key")
