"""Store: the synchronous client. Writes go to the log, reads to the readers; a `Position` ties the two together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from logstore.client.checks import Pair, Text, check_table, check_value, seen_header, ttl_header
from logstore.client.conditional.outcome import Outcome, outcome_of_answer
from logstore.client.conditional.outcome_pages import page_of
from logstore.client.conditional.record import ConditionalRecord, named_after, read_name
from logstore.client.conditional.writes import ConditionalWrites
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.level import Level
from logstore.client.read.point import After, PointInTime, when
from logstore.client.read.row import Row
from logstore.client.read.scan_pages import ScanPages
from logstore.client.wide.reads import ScanBounds, WideReads
from logstore.client.write.level import WriteLevel, awaits_outcome
from logstore.client.write.single_writes import SingleWrites
from logstore.model.errors import EpochChanged, UsageError
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.changes.archived import ArchivedChanges
    from logstore.client.changes.changes import RowChanges
    from logstore.client.history.key_history import KeyHistory
    from logstore.client.session.session import Session
    from logstore.client.typed.table import TypedTable
    from logstore.client.wide.row import WideRow
    from logstore.client.write.pending import Pending
    from logstore.client.write.pipeline import Pipeline
    from logstore.codecs import Codec
    from logstore.model.table import Table
    from logstore.model.wide.selection import CellSelection

T = TypeVar("T")


class Store(SingleWrites, ConditionalWrites, WideReads):
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

    def put(
        self, table: str, key: Text, value: Text, *, headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None, seen: int | None = None, level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Write one row and wait for the acknowledgement; returns its position.

        `headers`: the writer's own. `ttl_s`: seconds after which the row is gone again, in a table whose rows expire.
        `seen`: the version of the row that this value was made of, -1 where there was none, in a table that keeps
        siblings: newer values than that stay beside this one; without it the value replaces all (docs/siblings.md).
        `level`: "all" in-sync replicas have it; "one": the leader alone, it may be lost; "applied": all have it, and a
        reader has applied it, else NotApplied (docs/consistency.md). None: "all"; but with `seen`, and in a wide table,
        "applied", since the row as it stands may refuse the write.

        Raises BadKey, ValueTooLarge, NoSuchTable, NotExpiring, NoSiblings, Overloaded, WriteFailed, LogUnreachable:
        then it is not written; InvalidWrite: the row refused it; Unknown: perhaps it is written.
        """
        own = [*seen_header(seen), *ttl_header(ttl_s)]
        return self._write_at(level, table, key, to_bytes(value), headers, own, seen)

    def delete(
        self, table: str, key: Text, *, headers: Mapping[str, Text] | None = None, seen: int | None = None,
        level: WriteLevel | None = None,
    ) -> Position:  # fmt: skip
        """Delete one row and wait for the acknowledgement; raises like `put`.

        `seen`: values newer than that stay, as of `put`. `level` as of `put`.
        """
        return self._write_at(level, table, key, None, headers, seen_header(seen), seen)

    def put_many(
        self, table: str, pairs: Mapping[Text, Text | None] | Iterable[Pair], *, level: WriteLevel | None = None
    ) -> Position:  # fmt: skip
        """Write pairs (key, value), or the items of a mapping; a value None deletes.

        Returns when all are acknowledged, with the position that covers them. Order per key is the order given. `level`
        as of `put`: in a wide table each put is told what became of it, unless `level` is "all" or "one".

        Raises BatchFailed, BatchUnknown (both say which), and what `put` raises. A pair that cannot be written is found
        before anything is written when `pairs` is a list, a tuple or a mapping, or an iterator of up to 20,000 pairs;
        of a longer iterator the pairs before it may be written by then: a note of the error says how many.
        """
        self.check_level(level)
        self.check_open()
        if awaits_outcome(level) and self.tables.get(check_table(table)).wide:
            return self._put_many_decided(table, pairs, self.pipeline(table))
        return self._reached(level, table, self._put_many(table, pairs, self.producer_at(level)))

    def pipeline(self, table: str, *, level: WriteLevel | None = None) -> "Pipeline":
        """Write without waiting for each, conditionally too; see `Pipeline`. `level` of puts and deletes: as of `put`.

        At "applied" each is done once a reader has applied it. A pipeline of level "one" takes nothing that the log
        decides.
        """
        self.check_level(level)
        self.check_open()
        check_table(table)
        from logstore.client.write.pipeline import Pipeline  # noqa: PLC0415 - loads librdkafka, which readers do without

        return Pipeline(
            self.producer_at(level).get(), self.tables.get(table),
            on_failure=partial(self.forget, table), ask_again=partial(self.ask_again, table), proof=self.tables.proof,
            desk=lambda: self.desk, level=level, waiting=lambda: self.waiting,
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
        patience_s: float = 60.0, from_archive: bool = False, storage: str | None = None, before: bool = False,
    ) -> "RowChanges":  # fmt: skip
        """Changes of a table's rows, for ever: an iterator of `ChangeEvent` that reconnects and goes on.

        `since`: "beginning" (the rows there are, and then what changes), "now", the `id` of an earlier iterator, a
        position or token (a partition it does not name begins at offset 0), or a time (RFC 3339). `prefix`: of these
        rows only. `follow`: False ends it where nothing more has come. Events come at least once; of a row the highest
        `version` counts. What is temporary is tried again for `patience_s`. `from_archive`: changes that the log holds
        no more are read from the archive, and the log's follow; takes Kafka's address. `storage`: where the archive is,
        if not where the store is defined to have it. `before`: events of wide tables say what the cells that were
        written held before, where their versions hold it. Raises NotRetained when the log holds those
        changes no more, NoSuchTable, Stopped, UsageError, ServerUnreachable.
        """
        from logstore.client.changes.changes import PollPoint, RowChanges, check_from_archive  # noqa: PLC0415 - only who uses it

        check_from_archive(from_archive, storage)
        point = PollPoint(table, since, prefix, patience_s, follow=follow, before=before)
        return RowChanges(self.reader, point, self.archived_changes(point.table, storage) if from_archive else None)

    def archived_changes(self, table: str, storage: str | None) -> "ArchivedChanges":
        """Source of the changes that a table's log holds no more, for `changes`. Raises UsageError, SetupError."""
        from logstore.client.changes.archived import ArchivedChanges  # noqa: PLC0415 - loads librdkafka

        return ArchivedChanges(self._need_bootstrap(), partial(self.ask_again, table), storage)

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
        try:
            return self.reader.get_wide(table, key, cells, after=bound, deadline_ms=deadline_ms)
        except EpochChanged:
            self.forget(table)
            raise

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
