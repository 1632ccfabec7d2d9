"""Source: tables as Spark data frames: `spark.read.format("logstore").option("bootstrap", ...).option("table", ...)`.

    snapshot = current | NAME                    rows of a snapshot, straight from its SSTables (default: current)
    as_of    = latest | TOKEN                    rows as of a position: the newest snapshot before it, and the log since
    changes  = earliest | TOKEN [until = TOKEN]  puts and deletes (value null) in [changes, until), from log or archive
    storage  = URL                               where snapshots and archive lie; without it, where the store says

    key, keys, prefix, start, end                only those rows (`options`); the rest is left unread
    shape    = cells | rows                      of wide rows and siblings (`row_shape`): a line a value, or a row
    versions = 1 | N | all                       with shape: how many values of a cell, the newest
    families = NAME,NAME                         with shape: cells of these column families alone

Spark's own way to narrow a reading, `pushFilters`, is not used: what is pushed down stays with the frame, and every
later query of it, and the other branches of the same one, would get those rows alone. Positions are fixed at a frame's
first query, once for all tasks. Executors need `logstore` and no `batch`: this code goes to them by value.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from batch.datasource import plan, read
from batch.datasource.options import FORMAT, checked, keys_of
from batch.datasource.row_shape import RowShape, shape_of
from batch.session import pickle_by_value
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.table import Table
from logstore.snapshot.work import FileOrder, ReadOrder, StateOrder

_CHANGES = f"{RowShape().ddl}, headers array<struct<key: string, value: binary>>"
_NAMED = re.compile(r"logstore\.model\.errors\.(\w+): (.+)")


def register(spark: SparkSession) -> None:
    """Make `spark.read.format("logstore")` known to a session that has not found it by itself."""
    pickle_by_value()
    try:
        spark.dataSource.register(LogstoreSource)
    except AnalysisException as error:
        if error.getCondition() != "DATA_SOURCE_ALREADY_EXISTS":  # sessions of one context may share what is registered
            raise


def reason(error: BaseException) -> str | None:
    """Message of this source, out of an exception of Spark.

    "NoSuchTable: there is no table ..."; None when it was not this source.
    """
    found = _NAMED.findall(str(error))
    return f"{found[-1][0]}: {found[-1][1]}" if found else None


class LogstoreSource(DataSource):
    """Found by the name of its format."""

    @classmethod
    def name(cls) -> str:
        """Name of the format."""
        return FORMAT

    def schema(self) -> str:
        """The columns, by the kind of reading. Raises UsageError for options that cannot be."""
        kind, _ = checked(self.options)
        return _CHANGES if kind == "changes" else shape_of(self.options, kind).ddl

    def reader(self, schema: StructType) -> "TableReader":
        """Reader of the format. Raises UsageError."""
        kind, _ = checked(self.options)
        own = read.CHANGES.names if kind == "changes" else shape_of(self.options, kind).schema.names
        if schema.names != own:
            raise UsageError(f"{FORMAT} has the columns {', '.join(own)}; leave .schema(...) out and select from them")
        return TableReader(dict(self.options))


class TableReader(DataSourceReader):
    """A reading. `examined`: rows and records that `read` looked at, in this process."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Plan the reading; raises as `plan.find`, and UsageError."""
        self.kind, self.what = checked(options)
        self.until = options.get("until", plan.LATEST)
        self.where = plan.find(options["bootstrap"], options["table"], options.get("storage"))
        self.keys, self.shape = keys_of(options), shape_of(options, self.kind)
        _check_shape(self.where.table, self.kind, self.shape)
        self.examined = 0

    def partitions(self) -> list[InputPartition]:
        """Partitions of the reading, one a task, none for those without a wanted key. Raises as `plan.Planner`."""
        planner = plan.Planner(self.where)
        orders: Iterable[ReadOrder]  # classes of this package are not known where these arrive
        if self.kind == "snapshot":
            orders = planner.snapshot(self.what, self.keys)
        elif self.kind == "as_of":
            orders = planner.as_of(self.what, self.keys)
        else:
            orders = planner.changes(self.what, self.until, self.keys)
        return [InputPartition(order) for order in orders]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Rows of one task. Raises LogStoreError."""
        order: ReadOrder | None = partition.value
        if order is None:  # Spark's one partition where there is none
            return
        try:
            yield from self._read(order)
        except LogStoreError as error:
            raise error from None  # a trace of one error, not of its causes

    def _read(self, order: ReadOrder) -> Iterator[pa.RecordBatch]:
        if isinstance(order, FileOrder):
            return read.snapshot_rows(self.where, order, self.keys, self._saw, self.shape)
        if isinstance(order, StateOrder):
            return read.rows_as_of(self.where, order, self.keys, self._saw, self.shape)
        return read.changes(self.where, order, self.keys, self._saw)

    def _saw(self, count: int) -> None:
        self.examined += count


def _check_shape(table: Table, kind: str, shape: RowShape) -> None:
    """Raise UsageError for a table whose rows hold several values, where the options do not say how they are given."""
    if (table.wide or table.siblings) and kind != "changes" and shape.kind is None:
        what = "is wide" if table.wide else "keeps siblings"
        raise UsageError(f'{table.name} {what}: .option("shape", "cells") gives a line a value, "rows" a line a row')
