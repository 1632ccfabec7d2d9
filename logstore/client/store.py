"""Store: the synchronous client. Writes go to the log, reads to the readers; a `Position` ties the two together."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from logstore.client.addresses import Address, find
from logstore.client.checks import (
    Pair,
    Text,
    check_kind,
    check_number,
    check_seen,
    check_table,
    check_timeout,
    check_value,
)  # fmt: skip
from logstore.client.conditional.outcome import Outcome, outcome_of_answer
from logstore.client.conditional.outcome_pages import page_of
from logstore.client.conditional.record import ConditionalRecord, named_after, read_name
from logstore.client.conditional.writes import ConditionalWrites
from logstore.client.lazily import CLOSED, Lazily
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.http import HttpReader
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.client.read.row import Row
from logstore.client.read.scan_pages import ScanPages
from logstore.client.tables import CachedDefinitions, Tables, renewing
from logstore.client.transport.origin import Origin
from logstore.client.wide.reads import ScanBounds, WideReads
from logstore.client.write.level import WriteLevel, apply_ms, check_write_level, waiting_for
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
from logstore.model.errors import EpochChanged, LogStoreError, NotYet, UsageError, WriteFailed
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from ssl import SSLContext

    from logstore.client.changes.changes import RowChanges
    from logstore.client.conditional.outcome_desk import OutcomeDesk
    from logstore.client.history.key_history import KeyHistory
    from logstore.client.session.session import Session
    from logstore.client.typed.table import TypedTable
    from logstore.client.wide.row import WideRow
    from logstore.client.write.batch import WriteBatch
    from logstore.client.write.pending import Pending
    from logstore.client.write.pipeline import Pipeline
    from logstore.codecs import Codec
    from logstore.log.write.producer import Producer
    from logstore.model.table import Table
    from logstore.model.wide.selection import CellSelection

T = TypeVar("T")


class Store(ConditionalWrites, WideReads):
    """A connection to one store. Thread-safe; close it, or use it in a `with` block: closing waits for every write.

    In a forked child it connects anew when it is used (gunicorn --preload, Celery, multiprocessing); writes that the
    parent has queued stay the parent's, and so do its pipelines.

    bootstrap           Kafka's host:port[,host:port], for writing; default: LOGSTORE_BOOTSTRAP
    url                 a node's http://host:port, for reading; default: LOGSTORE_URL. Without any of the four: what
                        `logstore.toml` says, else the node that runs here (`logstore dev`), as for every command
    on_full             "wait": a write waits for room in the queue; "error": it raises Overloaded at once
    queue_records       writes without acknowledgement, at most
    queue_bytes         of them, at most: the memory this client may take
    delivery_timeout_s  after which a write without acknowledgement is Unknown
    linger_ms           which a record waits for company: with 0, a single `put` waits for nothing; with 2, a pipeline
                        of many takes about a fifth less processor time
    compression         of records on their way and in the log: a codec that librdkafka knows, or "none"
    definitions         where table definitions come from; default: the log itself
    kafka               librdkafka properties of every connection to Kafka: security.protocol, sasl.*, ssl.*, and the
                        like; default: LOGSTORE_KAFKA_<NAME>, `[kafka]` in `logstore.toml`
    tls                 for https URLs: whose certificates count; default: those that the system trusts
    """

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
        self._pipelines: dict[str, Pipeline] = {}
        self._singles_of_leaders: dict[str, Pipeline] = {}

    def after_fork(self) -> None:
        """Connect anew in the child; see `log.after_fork`."""
        for inherited in (
            self._producer, self._of_leaders, self._tables, self._reader, self._desk, self._pipelines,
            self._singles_of_leaders,
        ):  # fmt: skip
            keep(inherited)
        self._connect()

    def put(
        self, table: str, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None, seen: int | None = None, level: WriteLevel = "all",
    ) -> Position:  # fmt: skip
        """Write one row and wait for the acknowledgement; returns its position.

        `headers`: the writer's own. `ttl_s`: seconds after which the row is gone again, in a table whose rows expire.
        `seen`: the version of the row that this value was made of, -1 where there was none, in a table that keeps
        siblings: newer values than that stay beside this one; without it the value replaces all (docs/siblings.md).
        `level`: "all" in-sync replicas have it; "one": the leader alone, it may be lost; "applied": all have it, and a
        reader has applied it, else NotApplied (docs/consistency.md).

        Raises BadKey, ValueTooLarge, NoSuchTable, NotExpiring, NoSiblings, Overloaded, WriteFailed, LogUnreachable:
        then it is not written; Unknown: perhaps it is.
        """
        position = self._write_at(
            level, table, lambda pipeline: pipeline.put(key, value, headers=headers, ttl_s=ttl_s, seen=seen)
        )  # fmt: skip
        check_seen(seen, position)
        return position

    def delete(
        self, table: str, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None,
        level: WriteLevel = "all",
    ) -> Position:  # fmt: skip
        """Delete one row and wait for the acknowledgement; raises like `put`.

        `seen`: values newer than that stay, as of `put`. `level` as of `put`.
        """
        position = self._write_at(
            level, table, lambda pipeline: pipeline.delete(key, headers=headers, seen=seen)
        )  # fmt: skip
        check_seen(seen, position)
        return position

    def put_many(
        self, table: str, pairs: Mapping[Text, Text | None] | Iterable[Pair], *, level: WriteLevel = "all"
    ) -> Position:  # fmt: skip
        """Write pairs (key, value), or the items of a mapping; a value None deletes.

        Returns when all are acknowledged, with the position that covers them. Order per key is the order given. `level`
        as of `put`.

        Raises BatchFailed, BatchUnknown (both say which), and what `put` raises. A pair that cannot be written is found
        before anything is written when `pairs` is a list, a tuple or a mapping, or an iterator of up to 20,000 pairs;
        of a longer iterator the pairs before it may be written by then: a note of the error says how many.
        """
        self.check_level(level)
        return self._reached(level, table, self._put_many(table, pairs, self.producer_at(level)))

    def _put_many(
        self, table: str, pairs: "Mapping[Text, Text | None] | Iterable[Pair]", producer: "Lazily[Producer]"
    ) -> Position:  # fmt: skip
        with renewing(partial(self.forget, table)):
            self.check_open()
            check_table(table)
            batch = self._batch(self.tables.get(table), producer)
            before = self.acknowledged(batch.epoch)
            try:
                return self.proved(batch.table, batch.run(pairs), before)
            except WriteFailed as error:
                if not batch.unwritten():
                    raise
                moved = self.moved(table, batch.epoch, error)
            return self._batch(moved, producer).run(batch.over_again(pairs))

    def pipeline(self, table: str) -> "Pipeline":
        """Write without waiting for each, conditionally too; see `Pipeline`."""
        self.check_open()
        check_table(table)
        from logstore.client.write.pipeline import Pipeline  # noqa: PLC0415 - loads librdkafka, which readers do without

        return Pipeline(
            self.producer, self.tables.get(table),
            on_failure=partial(self.forget, table), ask_again=partial(self.ask_again, table), proof=self.tables.proof,
            desk=lambda: self.desk,
        )  # fmt: skip

    def get(
        self,
        table: str,
        key: Text,
        *,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> Row | None:
        """Read a row, or None.

        With `after` (a position or token) at least that has been seen; with `as_of` (those, or a time) exactly that.
        `consistency`: "latest" and "linearizable" hold all that was acknowledged before, "bounded" all that was
        `max_lag_ms` before (docs/consistency.md).

        Raises ConsistencyTimeout, ServerUnreachable, NoSuchTable, Stopped, ServerError; NotRetained when that past is
        not kept.
        """
        try:
            return self.reader.get(
                table, key, after=when(after, as_of, consistency, max_lag_ms), deadline_ms=deadline_ms
            )
        except EpochChanged:
            self.forget(table)
            raise

    def get_many(
        self, table: str, keys: Sequence[Text], *, after: Position | str | None = None, as_of: PointInTime = None,
        consistency: Level | None = None, max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> list[Row | None]:  # fmt: skip
        """Rows in the order of `keys`, None where there is none.

        Raises like `get`. The deadline is for each 1,000 keys.
        """
        try:
            return self.reader.get_many(
                table, keys, after=when(after, as_of, consistency, max_lag_ms), deadline_ms=deadline_ms
            )
        except EpochChanged:
            self.forget(table)
            raise

    def scan(
        self,
        table: str,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        after: Position | str | None = None,
        as_of: PointInTime = None,
        consistency: Level | None = None,
        max_lag_ms: int | None = None,
        deadline_ms: int = DEADLINE_MS,
    ) -> Iterator[Row]:
        """Rows in key order, page by page as they are taken.

        `prefix`, or `start` and `end` (exclusive), bound the keys; `limit`: rows at most; `reverse`: keys fall;
        `keys_only`: values are empty; the deadline is for each page. While a page is taken the next one is asked for,
        at once with a `limit`, else from the second one on; what is not begun within its deadline, and a second, is
        asked for again. A level counts from when a page is asked for. Raises like `get`.
        """
        check_table(table)
        pages = ScanPages(prefix=prefix, start=start, end=end, limit=limit, reverse=reverse, keys_only=keys_only)
        return self.reader.scan(
            table, pages, after=when(after, as_of, consistency, max_lag_ms), deadline_ms=deadline_ms
        )

    def history(
        self, table: str, key: Text, *, since: PointInTime = None, until: PointInTime = None, limit: int | None = None,
        oldest_first: bool = False, values: bool = True, archive: bool = True, storage: str | None = None,
    ) -> "KeyHistory":  # fmt: skip
        """Every mutation of a key that log and archive still hold, the newest first, read as they are taken.

        `since`, `until`: the token of a position or a time, as `as_of`; with `until` up to what that read would see.
        `values=False` leaves them out; `archive=False` asks the log alone; `storage`: where the archive is, if not
        where the store is defined to have it. Takes Kafka's address, and reads the partition of the key; outcomes of
        conditional mutations are asked of a node, where one is known (docs/history.md).

        Raises NoSuchTable, EpochChanged, LogUnreachable, AccessDenied, StorageUnreachable, LogTruncated, LogGap.
        """
        from logstore.client.history.decided import asking  # noqa: PLC0415 - only who uses it
        from logstore.client.history.key_history import Selection, check_archive  # noqa: PLC0415 - only who uses it
        from logstore.client.history.opening import ArchiveChoice, open_history  # noqa: PLC0415 - loads librdkafka

        self.check_open()
        check_archive(archive, storage)
        name, selection = check_key(to_bytes(key)), Selection(since, until, limit, oldest_first, values).check()
        definition = self.ask_again(check_table(table))
        return open_history(
            self._need_bootstrap(), definition, name, selection, ArchiveChoice(archive, storage),
            outcomes=asking(lambda: self.reader),
        )  # fmt: skip

    def changes(
        self, table: str, *, since: Position | str = "now", prefix: Text | None = None, follow: bool = True,
        patience_s: float = 60.0,
    ) -> "RowChanges":  # fmt: skip
        """Changes of a table's rows, for ever: an iterator of `ChangeEvent` that reconnects and goes on.

        `since`: "beginning" (the rows there are, and then what changes), "now", the `id` of an earlier iterator, a
        position or token (a partition it does not name begins at offset 0), or a time (RFC 3339). `prefix`: of these
        rows only. `follow`: False ends it where nothing more has come. Events come at least once; of a row the highest
        `version` counts. What is temporary is tried again for `patience_s`. Raises NotRetained when the log holds those
        changes no more, NoSuchTable, Stopped, UsageError, ServerUnreachable.
        """
        from logstore.client.changes.changes import PollPoint, RowChanges  # noqa: PLC0415 - only who uses it

        point = PollPoint(table, since, prefix, patience_s, follow=follow)
        return RowChanges(self.reader, point)

    def outcome_of(
        self, table: str, key: Text, id: bytes | str | Position, *, after: Position | str | None = None,  # noqa: A002 - as the header is called
        consistency: Level | None = "latest", max_lag_ms: int | None = None, deadline_ms: int = DEADLINE_MS,
    ) -> Outcome | None:  # fmt: skip
        """Find the outcome of a conditional write by its id (16 bytes, or in hex: `Unknown.id`, `Outcome.id`).

        Of a write with `seen` its position stands for the id. None: no record with it has been applied there, or its
        dedup window has passed. Of a write that is `Unknown` and was acknowledged by nobody, one may still come until
        the client that sent it is closed. Raises like `get`, and NotConditional.
        """
        name, key_bytes = read_name(id), check_key(to_bytes(key))
        bound = when(named_after(after, name), None, consistency, max_lag_ms)
        answer = self.reader.about_row(
            table, key_bytes, page_of(key_bytes, name), after=bound, deadline_ms=deadline_ms
        )  # fmt: skip
        return outcome_of_answer(answer, name)

    def decide(self, table: str, record: ConditionalRecord) -> Outcome:
        """Have the record in the log, and its outcome; see `conditional.delivery`."""
        from logstore.client.conditional.delivery import deliver, delivery  # noqa: PLC0415 - only who writes so

        self.need_url()  # who cannot hear of outcomes writes nothing
        steps = delivery(record, self.delivery_timeout_s)
        return deliver(steps, partial(self._append, table, record), partial(self._learn, table, record))

    def session(self, token: Position | str | None = None) -> "Session":
        """A session, whose reads see what it wrote and read before, from the `token` of an earlier one on."""
        from logstore.client.session.session import Session  # noqa: PLC0415 - only who uses it

        self.check_open()
        return Session(self, token)

    def table(self, name: str, codec: "Codec[T]") -> "TypedTable[T]":
        """One table with values of the program's own types, e.g. `codec=logstore.codecs.json`; see `TypedTable`."""
        from logstore.client.typed.table import TypedTable  # noqa: PLC0415 - only who uses it

        self.check_open()
        return TypedTable(self, name, codec)

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
        desk = self._desk.close()
        try:
            try:
                if of_leaders is not None:
                    of_leaders.close(timeout_s)
            finally:
                if producer is not None:
                    producer.close(timeout_s)
        finally:
            if desk is not None:
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
        return self._reader.get()

    @property
    def desk(self) -> "OutcomeDesk":
        """Desk at which outcomes of conditional writes are asked for, made on first use. Raises UsageError."""
        return self._desk.get()

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

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        bootstrap, url = self._bootstrap or self._pointed.get("bootstrap"), self._url or self._pointed.get("url")
        return f"Store(bootstrap={bootstrap!r}, url={url!r}{closed})"

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wide_row(
        self, table: str, key: Text, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "WideRow | None":
        with self._renewed(table):
            return self.reader.get_wide(table, key, cells, after=bound, deadline_ms=deadline_ms)

    def _wide_rows(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        with self._renewed(table):
            return self.reader.get_many_wide(table, keys, cells, after=bound, deadline_ms=deadline_ms)

    def _wide_scan(
        self, table: str, rows: ScanBounds, cells: "CellSelection", bound: After, deadline_ms: int
    ) -> "Iterator[WideRow]":
        pages = ScanPages(**rows._asdict(), cells=cells)
        return self.reader.scan(table, pages, after=bound, deadline_ms=deadline_ms)

    @contextmanager
    def _renewed(self, table: str) -> Iterator[None]:
        """Have a definition asked for again whose log is another one by now."""
        try:
            yield
        except EpochChanged:
            self.forget(table)
            raise

    def _singles(self, table: str, level: WriteLevel = "all") -> "Pipeline":
        """The pipeline of single writes to a table: their failures are raised by each `result`, never collected."""
        self.check_open()
        known = self._singles_of_leaders if level == "one" else self._pipelines
        pipeline = known.get(check_table(table))
        if pipeline is None:
            from logstore.client.write.pipeline import Pipeline  # noqa: PLC0415 - loads librdkafka

            pipeline = known[table] = Pipeline(self.producer_at(level).get(), self.tables.get(table))
        return pipeline

    def check_level(self, level: WriteLevel) -> None:
        """Raise UsageError for what is no level, or one that could not be waited for."""
        check_write_level(level)
        if level == "applied":
            self.need_url()

    def _write_at(self, level: WriteLevel, table: str, queue: "Callable[[Pipeline], Pending]") -> Position:
        """One write, acknowledged, and applied where that is wanted."""
        self.check_level(level)
        return self._reached(level, table, self._write(table, queue, level=level))

    def _reached(self, level: WriteLevel, table: str, position: Position) -> Position:
        """The position, once it has been applied where `level` says so. Raises NotApplied."""
        if level == "applied" and position:
            with waiting_for(position):
                self.reader.reach(table, position, apply_ms(self.delivery_timeout_s))
        return position

    def producer_at(self, level: WriteLevel) -> "Lazily[Producer]":
        """Producer for writes of a level."""
        return self._of_leaders if level == "one" else self._producer

    def _append(self, table: str, record: ConditionalRecord, timeout_s: float) -> Position:
        """One conditional write, acknowledged. Raises what `put` raises, NotConditional, StillPending."""
        self.check_takes(table, record, self._singles(table).table)

        def queue(pipeline: "Pipeline") -> "Pending":
            record.check_takes(pipeline.table)  # as it is by now: in a plain one the record would stop the partition
            check_value(record.value, pipeline.limit)
            return pipeline.queue(record.key, record.value, record.headers, own=record.own)

        return self._write(table, queue, timeout_s)

    def check_takes(self, table: str, record: ConditionalRecord, known: "Table") -> None:
        """Raise NotConditional, NotExpiring unless the table takes the record, as it is known or as it is by now."""
        try:
            record.check_takes(known)
        except UsageError:
            record.check_takes(self.ask_again(table))

    def _learn(self, table: str, record: ConditionalRecord, position: Position, deadline_ms: int) -> Outcome | None:
        from logstore.client.conditional.asking import learn  # noqa: PLC0415 - only who writes so

        return learn(self.desk, self.reader, table, record, position, deadline_ms)

    def _write(
        self, table: str, queue: "Callable[[Pipeline], Pending]", timeout_s: float | None = None,
        level: WriteLevel = "all",
    ) -> Position:  # fmt: skip
        """One write, acknowledged; to the log that the table has by now, if the one that was known refuses it."""
        with renewing(partial(self.forget, table)):
            pipeline = self._singles(table, level)
            before = self.acknowledged(pipeline.epoch)
            try:
                return self.proved(pipeline.table, queue(pipeline).result(timeout_s), before)
            except WriteFailed as error:
                self.moved(table, pipeline.epoch, error)
            return queue(self._singles(table, level)).result(timeout_s)

    def moved(self, table: str, epoch: str, error: LogStoreError) -> "Table":
        """The table as it is now. Raises `error` when it still has the log of that epoch, NoSuchTable."""
        try:
            found = self.ask_again(table)
        except (NotYet, EpochChanged):
            raise error from None
        if found.epoch == epoch:
            raise error
        return found

    def acknowledged(self, epoch: str) -> Mapping[int, int] | None:
        """Ends of what this client knows to be acknowledged, by partition, for `proved` of a write that begins."""
        proof = self.tables.proof
        return None if proof is None else proof.ends(epoch)

    def proved(self, table: "Table", position: Position, before: Mapping[int, int] | None) -> Position:
        """The position of a write that was acknowledged by the table's own log. Raises Unknown."""
        proof = self.tables.proof
        if proof is not None and proof.is_due(table.epoch, position, before):
            proof.prove(table)
        return position

    def _batch(self, table: "Table", producer: "Lazily[Producer]") -> "WriteBatch":
        from logstore.client.write.batch import WriteBatch  # noqa: PLC0415 - loads librdkafka

        return WriteBatch(producer.get(), table)

    def _make_producer(self, acks: Literal["all", "1"] = "all") -> "Producer":
        from logstore.log.write.producer import Producer  # noqa: PLC0415 - loads librdkafka

        return Producer(self._need_bootstrap(), acks=acks, **self._settings)

    def _make_desk(self) -> "OutcomeDesk":
        from logstore.client.conditional.asking import asking  # noqa: PLC0415 - only who writes so
        from logstore.client.conditional.outcome_desk import OutcomeDesk  # noqa: PLC0415 - only who writes so

        return OutcomeDesk(asking(self.reader))

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
