"""Connections of a store's client: to the log and to the readers, each made on first use, and let go together."""

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from logstore.client.addresses import Address, find
from logstore.client.checks import check_kind, check_number, check_timeout
from logstore.client.lazily import CLOSED, Lazily
from logstore.client.read.http import HttpReader
from logstore.client.tables import CachedDefinitions, Tables
from logstore.client.transport.origin import Origin
from logstore.client.write.level import WriteLevel
from logstore.log.after_fork import keep, renew_in_child
from logstore.log.connect.cluster import Cluster
from logstore.log.write.limits import (
    COMPRESSION,
    DELIVERY_TIMEOUT_S,
    LINGER_MS,
    QUEUE_BYTES,
    QUEUE_RECORDS,
    OnFull,
)
from logstore.log.write.topic_proof import TopicProof
from logstore.model.errors import UsageError

if TYPE_CHECKING:
    from ssl import SSLContext

    from logstore.client.conditional.outcome_desk import OutcomeDesk
    from logstore.client.write.pipeline import Pipeline
    from logstore.log.write.producer import Producer
    from logstore.model.table import Table


class ClientConnections:
    """Connections to one store, and what was learnt over them. Thread-safe; a forked child connects anew."""

    def __init__(
        self,
        bootstrap: str | None = None,
        url: str | None = None,
        *,
        on_full: OnFull = "wait",
        queue_records: int = QUEUE_RECORDS,
        queue_bytes: int = QUEUE_BYTES,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = LINGER_MS,
        compression: str = COMPRESSION,
        definitions: CachedDefinitions | None = None,
        kafka: Mapping[str, Any] | None = None,
        tls: "SSLContext | None" = None,
    ) -> None:
        """Settle the addresses; nothing is connected before the first call that needs it."""
        check_kind("bootstrap", bootstrap, str, "host:port[,host:port]")
        check_kind("url", url, str, "http://host:port")
        check_kind("kafka", kafka, Mapping, "a mapping of librdkafka's settings")
        check_kind("compression", compression or 0, str, "the name of a codec")
        for name in kafka or ():
            check_kind("the name of a setting of librdkafka", name, str, "text")
        check_number("queue_records", queue_records, 1, whole=True)
        check_number("queue_bytes", queue_bytes, 1_024, whole=True)
        check_number("delivery_timeout_s", delivery_timeout_s, 0.001)
        check_number("linger_ms", linger_ms, 0)
        if definitions is not None and not (callable(getattr(definitions, "table", None))):
            raise UsageError(f"definitions have a method `table`, and {type(definitions).__name__} has not")
        if tls is not None and not hasattr(tls, "wrap_socket"):
            raise UsageError(f"tls is an ssl.SSLContext, not {type(tls).__name__}")
        if on_full not in ("wait", "error"):
            raise UsageError(f'on_full is "wait" or "error", not {on_full!r}')
        self._bootstrap = bootstrap or os.environ.get("LOGSTORE_BOOTSTRAP")
        self._kafka = None if kafka is None else Cluster("", kafka).properties
        self._url = url or os.environ.get("LOGSTORE_URL")
        if self._url:
            Origin.of(self._url)
        self._settings: dict[str, Any] = {
            "on_full": on_full,
            "queue_records": queue_records,
            "queue_bytes": queue_bytes,
            "delivery_timeout_s": delivery_timeout_s,
            "linger_ms": linger_ms,
            "compression": compression,
        }
        self._definitions, self._tls, self._closed = definitions, tls, False
        self._pointed: dict[str, str] = {}  # addresses that were found, when nobody gave any
        self._connect()
        renew_in_child(self)

    def _connect(self) -> None:
        """Have everything connected on first use, each on its own: who reads never waits for Kafka."""
        self._producer: Lazily[Producer] = Lazily(self._make_producer, lambda producer: producer.close(0.0))
        self._of_leaders: Lazily[Producer] = Lazily(
            partial(self._make_producer, acks="1"), lambda producer: producer.close(0.0)
        )
        self._tables: Lazily[Tables] = Lazily(self._make_tables, lambda tables: tables.close())
        self._reader: Lazily[HttpReader] = Lazily(
            lambda: HttpReader(self.need_url(), self._tls), lambda reader: reader.close()
        )
        self._desk: Lazily[OutcomeDesk] = Lazily(self._make_desk, lambda desk: desk.close())
        self._waiting: Lazily[OutcomeDesk] = Lazily(self._make_waiting, lambda desk: desk.close())
        self._pipelines: dict[str, Pipeline] = {}
        self._singles_of_leaders: dict[str, Pipeline] = {}

    def after_fork(self) -> None:
        """Connect anew in the child; see `log.after_fork`."""
        for inherited in (
            self._producer, self._of_leaders, self._tables, self._reader, self._desk, self._waiting, self._pipelines,
            self._singles_of_leaders,
        ):  # fmt: skip
            keep(inherited)
        self._connect()

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait for all writes, of pipelines too; returns how many are still without acknowledgement."""
        check_timeout(timeout_s)
        producers = [one.value for one in (self._producer, self._of_leaders)]
        return sum(producer.flush(timeout_s) for producer in producers if producer is not None)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush and let go; pipelines that are still open take nothing more.

        Raises Unknown when writes remain without acknowledgement after `timeout_s` (default: the delivery timeout).
        """
        check_timeout(timeout_s)
        self._closed = True
        producer, reader, tables = self._producer.close(), self._reader.close(), self._tables.close()
        of_leaders = self._of_leaders.close()
        desks = [desk for desk in (self._desk.close(), self._waiting.close()) if desk is not None]
        try:
            try:
                if of_leaders is not None:
                    of_leaders.close(timeout_s)
            finally:
                if producer is not None:
                    producer.close(timeout_s)
        finally:
            for desk in desks:
                desk.close()
            if reader is not None:
                reader.close()
            if tables is not None:
                tables.close()

    @property
    def producer(self) -> "Producer":
        """Producer that writes to the log, connected on first use. Raises LogUnreachable, SetupError."""
        return self._producer.get()

    @property
    def tables(self) -> Tables:
        """The definitions this client knows."""
        return self._tables.get()

    @property
    def reader(self) -> HttpReader:
        """Client that reads over HTTP, made on first use."""
        return self._reader.value or self._reader.get()

    @property
    def desk(self) -> "OutcomeDesk":
        """Desk at which outcomes of conditional writes are asked for, made on first use. Raises UsageError."""
        return self._desk.get()

    @property
    def waiting(self) -> "OutcomeDesk":
        """Desk at which writes of pipelines wait until they are applied, made on first use. Raises UsageError."""
        return self._waiting.get()

    def need_url(self) -> str:
        """The URL to read from; raises UsageError when there is none."""
        url = self._url or self._find("url")
        if not url:
            raise UsageError(
                "reading needs the URL of a node: Store(url=...), or LOGSTORE_URL; `logstore dev` starts a store "
                "that is found by itself"
            )
        return url

    @property
    def delivery_timeout_s(self) -> float:
        """Seconds after which a write without acknowledgement, or a conditional one without outcome, is Unknown."""
        return float(self._settings["delivery_timeout_s"])

    @property
    def tls(self) -> "SSLContext | None":
        """Certificates that count for https URLs; None: those that the system trusts."""
        return self._tls

    def producer_at(self, level: WriteLevel | None) -> "Lazily[Producer]":
        """Producer for writes of a level."""
        return self._of_leaders if level == "one" else self._producer

    def forget(self, table: str) -> None:
        """Ask for a definition again when it is needed next."""
        self._pipelines.pop(table, None)
        self._singles_of_leaders.pop(table, None)
        tables = self._tables.value
        if tables is not None:
            tables.forget(table)

    def ask_again(self, table: str) -> "Table":
        """The definition as it is now. Raises NoSuchTable, LogUnreachable."""
        self.forget(table)
        return self.tables.get(table)

    def check_open(self) -> None:
        """Raise UsageError when this client is closed."""
        if self._closed:
            raise UsageError(CLOSED)

    def _make_producer(self, acks: Literal["all", "1"] = "all") -> "Producer":
        from logstore.log.write.producer import Producer  # noqa: PLC0415 - loads librdkafka

        return Producer(self._need_bootstrap(), acks=acks, **self._settings)

    def _make_desk(self) -> "OutcomeDesk":
        from logstore.client.conditional.asking import asking  # noqa: PLC0415 - only who writes so
        from logstore.client.conditional.outcome_desk import OutcomeDesk  # noqa: PLC0415 - only who writes so

        return OutcomeDesk(asking(self.reader))

    def _make_waiting(self) -> "OutcomeDesk":
        from logstore.client.write.pending_applied import waiting_desk  # noqa: PLC0415 - only who writes so

        return waiting_desk(self.reader)

    def _make_tables(self) -> Tables:
        if self._definitions is not None:
            return Tables(self._definitions)
        from logstore.log import topics  # noqa: PLC0415 - readers alone do not need it
        from logstore.log.tables.registry import Registry  # noqa: PLC0415 - a program that only reads has no use for it

        registry = Registry(self._need_bootstrap())
        return Tables(registry, TopicProof(partial(topics.epoch_to_write, registry.admin)))

    def _need_bootstrap(self) -> Cluster:
        bootstrap = self._bootstrap or self._find("bootstrap")
        if not bootstrap:
            raise UsageError(
                "writing needs Kafka's address: Store(bootstrap=...), or LOGSTORE_BOOTSTRAP; `logstore dev` starts "
                "a store that is found by itself"
            )
        return Cluster.of(bootstrap) if self._kafka is None else Cluster(bootstrap, self._kafka)

    def _find(self, name: Address) -> str | None:
        """An address that is found. Only for a Store that was told nothing: halves of two stores never mix."""
        found = None if self._bootstrap or self._url else find(name)
        if found:
            self._pointed[name] = found
        return found
