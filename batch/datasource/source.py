"""Source: tables as Spark data frames: `spark.read.format("logstore").option("bootstrap", ...).option("table", ...)`.

    snapshot = current | NAME                    rows of a snapshot, straight from its SSTables (default: current)
    as_of    = latest | TOKEN                    rows as of a position: the newest snapshot before it, and the log since
    changes  = earliest | TOKEN [until = TOKEN]  puts and deletes (value null) in [changes, until), from log or archive
    storage  = URL                               where snapshots and archive lie; without it, where the store says

Comparisons of `key` with =, <, <=, >, >= and IN are answered by reading less: other partitions, files and blocks are
left alone. Positions are fixed when a query is planned, once for all tasks. Executors need `logstore` and no `batch`:
this code goes to them by value.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.datasource import (
    DataSource,
    DataSourceReader,
    EqualTo,
    Filter,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    InputPartition,
    LessThan,
    LessThanOrEqual,
)
from pyspark.sql.types import StructType

from batch.datasource import plan, read
from batch.datasource.key_filter import Keys
from batch.session import pickle_by_value
from logstore.model.errors import LogStoreError, UsageError
from logstore.snapshot.work import FileOrder, ReadOrder, StateOrder

FORMAT = "logstore"
PUSHDOWN = "spark.sql.python.filterPushdown.enabled"
_KINDS = ("snapshot", "as_of", "changes")
_KNOWN = ("bootstrap", "table", "storage", "until", *_KINDS)
_ROWS = "key binary, value binary, version bigint, timestamp timestamp, partition int"
_CHANGES = f"{_ROWS}, headers array<struct<key: string, value: binary>>"
_NAMED = re.compile(r"logstore\.model\.errors\.(\w+): (.+)")


def register(spark: SparkSession) -> None:
    """Make `spark.read.format("logstore")` known to a session, and let it push comparisons down."""
    pickle_by_value()
    spark.conf.set(PUSHDOWN, "true")
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
        return _CHANGES if checked(self.options)[0] == "changes" else _ROWS

    def reader(self, schema: StructType) -> "TableReader":
        """Reader of the format. Raises UsageError."""
        kind, _ = checked(self.options)
        own = [field.name for field in read.CHANGES if kind == "changes" or field.name in read.ROWS.names]
        if schema.names != own:
            raise UsageError(f"{FORMAT} has the columns {', '.join(own)}; leave .schema(...) out and select from them")
        return TableReader(dict(self.options))


class TableReader(DataSourceReader):
    """A reading. `examined`: rows and records that `read` looked at, in this process."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Plan the reading; raises as `plan.find`."""
        self.kind, self.what = checked(options)
        self.until = options.get("until", plan.LATEST)
        self.where = plan.find(options["bootstrap"], options["table"], options.get("storage"))
        self.keys = Keys()
        self.examined = 0

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:  # noqa: N802 - Spark's name
        """Take what compares `key`; the rest is Spark's to do."""
        for one in filters:
            narrowed = _narrowed(self.keys, one)
            if narrowed is None:
                yield one
            else:
                self.keys = narrowed

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
            return read.snapshot_rows(self.where, order.partition, [order.file], self.keys, self._saw)
        if isinstance(order, StateOrder):
            return read.rows_as_of(self.where, order.stretch, order.base_files, self.keys, self._saw)
        return read.changes(self.where, order, self.keys, self._saw)

    def _saw(self, count: int) -> None:
        self.examined += count


def checked(options: Mapping[str, str]) -> tuple[str, str]:
    """The kind of reading and its value. Raises UsageError that says what to write instead."""
    unknown = sorted(set(options) - set(_KNOWN))
    if unknown:
        raise UsageError(f"{FORMAT} does not know the option {unknown[0]!r}; there are {', '.join(_KNOWN)}")
    for name in ("bootstrap", "table"):
        if not options.get(name):
            raise UsageError(f'{FORMAT} needs .option("{name}", {"HOST:PORT" if name == "bootstrap" else "NAME"!r})')
    kinds = [kind for kind in _KINDS if kind in options]
    if len(kinds) > 1:
        raise UsageError(f"{' and '.join(kinds)} exclude each other: give one of {', '.join(_KINDS)}")
    kind = kinds[0] if kinds else "snapshot"
    if "until" in options and kind != "changes":
        raise UsageError(f"until goes with changes, not with {kind}: as_of names the position of a state")
    what = options.get(kind, plan.CURRENT)
    if not what or (kind == "changes" and what == plan.LATEST) or (kind == "as_of" and what == plan.EARLIEST):
        raise UsageError(
            f"{kind} cannot be {what!r}; snapshot is current or a name, as_of is latest or a token, changes earliest "
            "or a token"
        )
    return kind, what


def _narrowed(keys: Keys, one: Filter) -> Keys | None:
    """The keys that also pass the filter; None when it cannot be answered here."""
    if not isinstance(
        one, (EqualTo, In, GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual)
    ) or one.attribute != ("key",):
        return None
    values = one.value if isinstance(one, In) else (one.value,)
    if not all(isinstance(value, (bytes, bytearray)) for value in values):
        return None
    some = [bytes(value) for value in values]
    if isinstance(one, (EqualTo, In)):
        return keys.among(some)
    (bound,) = some
    after = bound + b"\0"  # the least key that is greater
    if isinstance(one, (GreaterThan, GreaterThanOrEqual)):
        return keys.at_least(after if isinstance(one, GreaterThan) else bound)
    return keys.below(after if isinstance(one, LessThanOrEqual) else bound)
