"""Admin: the client of who makes, changes and drops tables."""

import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from logstore.client.addresses import find
from logstore.client.checks import Text, check_kind, check_number, check_table
from logstore.client.wide.altered import check_altered
from logstore.log.connect.cluster import Cluster
from logstore.model.errors import NoSuchTable, UsageError
from logstore.model.table import (
    DEFAULT_DEDUP_RECORDS,
    DEFAULT_DEDUP_WINDOW_MS,
    DEFAULT_MAX_VALUE_BYTES,
    Table,
)

if TYPE_CHECKING:
    from logstore.log.tables.change import Change
    from logstore.log.tables.registry import Registry

TIMEOUT_S = 30.0


class Admin:
    """Table definitions of one store. A call returns when every node serves its change, as the commands do.

    bootstrap   Kafka's host:port[,host:port]; default: LOGSTORE_BOOTSTRAP, `logstore.toml`, the node that runs here
    kafka       librdkafka properties of the connection: security.protocol, sasl.*, ssl.*, and the like
    timeout_s   to wait for nodes that do not serve a change yet; then NotYet: the definition is written, and holds

    Thread-safe; close it, or use it in a `with` block.
    """

    def __init__(
        self, bootstrap: str | None = None, *, kafka: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Settle the address; nothing is connected before the first call."""
        check_kind("bootstrap", bootstrap, str, "host:port[,host:port]")
        check_kind("kafka", kafka, Mapping, "a mapping of librdkafka's settings")
        check_number("timeout_s", timeout_s, 0)
        self._bootstrap = bootstrap or os.environ.get("LOGSTORE_BOOTSTRAP")
        self._kafka = None if kafka is None else Cluster("", kafka).properties
        self._timeout_s, self._closed = timeout_s, False
        self._cluster: Cluster | None = None

    def create(
        self,
        table: str,
        *,
        partitions: int | None = None,
        splits: Iterable[Text] = (),
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        description: str = "",
        topic_config: Mapping[str, str] | None = None,
        snapshots: Mapping[str, Any] | None = None,
        conditional: bool = False,
        expiring: bool = False,
        wide: bool = False,
        families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        siblings: bool = False,
        multi_row: bool = False,
        dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS,
        dedup_records: int = DEFAULT_DEDUP_RECORDS,
    ) -> Table:
        """Make a table with a topic of its own; returns its definition.

        `partitions` (4), `splits` and `max_value_bytes` are fixed for good. `splits`: keys that rise, of an ordered
        table (docs/ordered_tables.md): each begins a partition, and one more is before the first. `topic_config`:
        settings of the topic; `snapshots`: how they are made (compression, block_bytes, keep_snapshots, merge_share).
        `conditional`, for good too: it takes conditional writes (docs/conditional_writes.md), whose outcomes a
        partition remembers for `dedup_window_ms` of the log's time, the newest `dedup_records` of them. `expiring`:
        conditional, and rows may carry a TTL. `wide`: conditional, and rows are cells in column `families`: their
        names, or {name: {"versions": 3, "ttl_ms": 60_000}} (a TTL makes the table expiring); `multi_row`: an edit may
        name several rows of one partition. `siblings`: conditional, and puts that did not see each other stay side by
        side.

        Raises TableExists, BadDefinition, LogUnreachable, AccessDenied, NotYet.
        """
        from logstore.log.tables import ddl  # noqa: PLC0415 - loads librdkafka

        _check_words(description, topic_config, snapshots)
        for name, flag in _flags(conditional, expiring, wide, siblings, multi_row):
            check_kind(name, flag, bool, "True or False")
        change = ddl.create(
            self._open(), check_table(table), partitions=partitions, splits=splits, max_value_bytes=max_value_bytes,
            description=description, topic_config=topic_config, snapshots=snapshots,
            conditional=conditional, expiring=expiring, wide=wide, families=families, siblings=siblings,
            multi_row=multi_row, dedup_window_ms=dedup_window_ms, dedup_records=dedup_records,
        )  # fmt: skip
        return self._served(change, new=True)

    def adopt(
        self,
        table: str,
        topic: str,
        *,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        description: str = "",
        allow_control_records: bool = False,
        snapshots: Mapping[str, Any] | None = None,
    ) -> Table:
        """Make a table of a topic that is there and stays its owner's; returns its definition.

        Raises BadDefinition for a topic that cannot be a table, and what `create` raises.
        """
        from logstore.log.tables import ddl  # noqa: PLC0415 - loads librdkafka

        check_kind("topic", topic, str, "the name of a topic")
        _check_words(description, None, snapshots)
        change = ddl.adopt(
            self._open(), check_table(table), topic, max_value_bytes=max_value_bytes, description=description,
            allow_control_records=allow_control_records, snapshots=snapshots,
        )  # fmt: skip
        return self._served(change, new=True)

    def alter(
        self,
        table: str,
        *,
        description: str | None = None,
        topic_config: Mapping[str, str] | None = None,
        allow_control_records: bool | None = None,
        snapshots: Mapping[str, Any] | None = None,
        add_families: Mapping[str, Mapping[str, Any]] | Iterable[str] = (),
        families: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Table:
        """Change what is not fixed; None leaves as it is. Returns the definition.

        `add_families`, as `create` has `families`, gives a wide table more of them; `families` changes rules of those
        that it has: {"content": {"versions": 5, "ttl_ms": None}}. Both act on what is written behind one record of each
        partition's log. A change that is cut short is ended by the next `alter` of the table.

        Raises NoSuchTable, NotWide, Conflict, and as `create`.
        """
        from logstore.log.tables import ddl  # noqa: PLC0415 - loads librdkafka

        _check_words(description, topic_config, snapshots)
        others = description is not None or allow_control_records is not None or topic_config or snapshots
        added = check_altered(add_families, families, nothing=not others)
        change = ddl.alter(
            self._open(), check_table(table), description=description, topic_config=topic_config,
            allow_control_records=allow_control_records, snapshots=snapshots, add_families=added, families=families,
        )  # fmt: skip
        return self._served(change)

    def drop(self, table: str, *, missing_ok: bool = False) -> None:
        """Drop a table: its topic, and every row in it, is deleted; an adopted topic stays.

        Archive and snapshots stay in the storage (`logstore snapshot gc --orphans` removes them). Raises NoSuchTable
        unless `missing_ok`, and what `create` raises.
        """
        from logstore.log.tables import ddl  # noqa: PLC0415 - loads librdkafka

        registry = self._open()
        try:
            change = ddl.drop(registry, check_table(table))
        except NoSuchTable:
            if missing_ok:
                return
            raise
        try:
            self._served(change)
        finally:  # who does not serve it yet holds up no deletion
            ddl.delete_topic(registry, change.table)

    def describe(self, table: str) -> Table:
        """A table's definition. Raises NoSuchTable, LogUnreachable, Corrupted or Unsupported for one nobody reads."""
        return self._open().table(check_table(table))

    def tables(self) -> list[Table]:
        """Definitions of all tables, by name. Raises LogUnreachable."""
        return sorted(self._open().tables().values(), key=lambda table: table.name)

    def close(self) -> None:
        """Take no more calls; the connection is one that the process shares."""
        self._closed = True

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _served(self, change: "Change", *, new: bool = False) -> Table:
        from logstore.client.admin.served import await_served, check_served  # noqa: PLC0415 - loads librdkafka

        check_served(await_served(self._open(), change, self._timeout_s, new=new), self._timeout_s)
        return change.table

    def _open(self) -> "Registry":
        from logstore.log.tables.registry import Registry  # noqa: PLC0415 - loads librdkafka

        self._check_open()
        self._cluster = self._cluster or self._find()
        return Registry(self._cluster)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this Admin is closed; open a new one")

    def _find(self) -> Cluster:
        bootstrap = self._bootstrap or find("bootstrap")
        if not bootstrap:
            raise UsageError(
                "tables are defined in Kafka: Admin(bootstrap=...), or LOGSTORE_BOOTSTRAP; `logstore dev` starts a "
                "store that is found by itself"
            )
        return Cluster.of(bootstrap) if self._kafka is None else Cluster(bootstrap, self._kafka)


def _check_words(description: str | None, *mappings: Mapping[str, Any] | None) -> None:
    check_kind("description", description, str, "text")
    for name, mapping in zip(("topic_config", "snapshots"), mappings, strict=False):
        check_kind(name, mapping, Mapping, "a mapping of settings")


def _flags(*given: bool) -> Iterable[tuple[str, bool]]:
    return zip(("conditional", "expiring", "wide", "siblings", "multi_row"), given, strict=True)
