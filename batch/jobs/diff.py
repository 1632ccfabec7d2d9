"""Diff: rows in which two tables, or two points of one table's history, differ (versions and timestamps aside)."""

from dataclasses import dataclass, field
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as sql

from batch.context import Clock, Context
from batch.datasource import source
from batch.datasource.options import FORMAT
from batch.defaults import LISTED
from batch.jobs.history import History
from logstore.model.errors import LogStoreError
from logstore.model.position import Position


@dataclass(frozen=True)
class Side:
    """A table at a position."""

    table: str
    position: Position

    @property
    def text(self) -> str:
        """Text of the side, as a person writes it."""
        return f"{self.table}@{self.position.token}"


@dataclass
class Diff:
    """Differences found. `keys`: (kind, key), the least LISTED of them."""

    left: Side
    right: Side
    counts: dict[str, int]  # only_left, only_right, different, same
    keys: list[tuple[str, bytes]]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """True when every row is."""
        return not any(count for kind, count in self.counts.items() if kind != "same")

    def document(self) -> dict[str, Any]:
        """JSON document; keys as text, bytes that are none escaped."""
        sides = {
            name: {"table": side.table, "position": side.position.token}
            for name, side in (("left", self.left), ("right", self.right))
        }
        keys = [{"kind": kind, "key": key.decode(errors="backslashreplace")} for kind, key in self.keys]
        return {
            **sides,
            "same": self.same,
            **self.counts,
            "keys": keys,
            "seconds": {n: round(s, 3) for n, s in self.seconds.items()},
        }


def diff(ctx: Context, left: str, right: str, *, listed: int = LISTED) -> Diff:
    """Compare two sides: `NAME`, as it is now, or `NAME@TOKEN` or `NAME@TIME`.

    Raises NoSuchTable, UsageError, BadToken, NotRetained, EpochChanged, LogTruncated, Corrupted, StorageUnreachable,
    LogUnreachable.
    """
    clock = Clock()
    one, other = _side(ctx, left), _side(ctx, right)
    with clock.step("start"):
        source.register(ctx.spark)
    try:
        with clock.step("compare"):
            counts, keys = _compared(_frame(ctx, one), _frame(ctx, other), listed)
    except PySparkException as error:
        raise LogStoreError(source.reason(error) or f"compare: Spark gave up: {error}") from error
    return Diff(one, other, counts, keys, clock.seconds)


def _side(ctx: Context, text: str) -> Side:
    name, at, moment = text.partition("@")
    table = ctx.table(name)
    history = History(ctx, table)
    offsets = history.locate(moment) if at else history.ends
    return Side(name, Position({(table.epoch, partition): offset for partition, offset in offsets.items()}))


def _frame(ctx: Context, side: Side) -> DataFrame:
    reader = ctx.spark.read.format(FORMAT).option("bootstrap", ctx.bootstrap).option("storage", ctx.storage.url)
    return reader.option("table", side.table).option("as_of", side.position.token).load().select("key", "value")


def _compared(left: DataFrame, right: DataFrame, listed: int) -> tuple[dict[str, int], list[tuple[str, bytes]]]:
    """Counts by kind, and the first keys of those that differ. A row's value is never null."""
    tasks = max(
        left.rdd.getNumPartitions(), right.rdd.getNumPartitions(), left.sparkSession.sparkContext.defaultParallelism
    )
    a, b = (
        side.withColumnRenamed("value", name).repartition(tasks, "key") for side, name in ((left, "a"), (right, "b"))
    )
    kind = (
        sql.when(sql.col("b").isNull(), "only_left").when(sql.col("a").isNull(), "only_right")
        .when(sql.col("a") == sql.col("b"), "same").otherwise("different")
    )  # fmt: skip
    rows = a.join(b, "key", "full_outer").select("key", kind.alias("kind"))
    found = {row["kind"]: row["count"] for row in rows.groupBy("kind").count().collect()}
    first = (
        rows.where(sql.col("kind") != "same").orderBy("key").limit(listed).collect() if found.keys() - {"same"} else []
    )
    counts = {name: found.get(name, 0) for name in ("only_left", "only_right", "different", "same")}
    return counts, [(row["kind"], bytes(row["key"])) for row in first]
