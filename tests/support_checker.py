"""History checker: what many clients saw at once, against the log folded by the independent model.

    Truth       the log of a table, record by record through `support_reference.Reference`: each row at each offset
    Observer    a client that reads all the time, at any level, by raw HTTP, and keeps what it was told
    Author      a client that writes all the time, keeps what it was told, and takes back nothing
    violations  everything that was told and cannot be: a wrong row, an old answer, a step back, an outcome made up

A check needs nothing but the answers themselves: each says at which offset, and where rows end at which instant, it
was read, so there is one right answer to it.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
from support_hard import reference_of
from support_reference import Reference

from logstore import Outcome, Sibling, Store
from logstore.client.conditional.record import ConditionalRecord, incr_record
from logstore.log.kafka.records import read_records
from logstore.model.errors import LogStoreError, Unknown
from logstore.model.hard_rows.rules import rules_of
from logstore.model.position import Position
from logstore.model.table import Table

FRESH = ("latest", "linearizable")
LEVELS = ("eventual", "session", "bounded", *FRESH)
KEYS = [f"row-{n}" for n in range(6)]
COUNTERS = [f"counter-{n}" for n in range(2)]


class Seen(NamedTuple):
    """A row as an answer shows it."""

    version: int | None  # None: no such row
    value: bytes | tuple[Sibling, ...] | None


class Read(NamedTuple):
    """A partition's part of an answer."""

    level: str
    began_s: float
    began_ms: int  # the same by the wall clock, which all of this machine have
    partition: int
    applied: int
    time_ms: int
    rows: dict[bytes, Seen]
    asked: int  # the offset that the request's token named; 0: none
    what: str


class Told(NamedTuple):
    """What a writer was told: where its record stands, and of a decided one what became of it."""

    ended_s: float
    partition: int
    offset: int
    outcome: "Became | None" = None  # None: a plain write


class Became(NamedTuple):
    """What became of a decided record: the outcome's word and version, and of a repeated one which was the first."""

    word: str
    version: int | None = None
    first: int | None = None
    first_word: str | None = None


class Truth:
    """A table's log, folded record by record by the reference model."""

    def __init__(self, bootstrap: str, table: Table, ends: dict[int, int]) -> None:
        self.rows: dict[tuple[int, bytes], list[tuple[int, int | None, list[Any]]]] = {}  # -> see `_state`, they rise
        self.log_times_ms: dict[int, list[int]] = {}  # at each offset, the record's own included
        self.outcomes: dict[tuple[int, int], tuple[Any, ...]] = {}
        for partition, end in ends.items():
            self._fold(partition, list(read_records(bootstrap, table.topic, partition, 0, end)), table)

    def _fold(self, partition: int, records: list[Any], table: Table) -> None:
        model, times = reference_of(rules_of(table, partition)), self.log_times_ms.setdefault(partition, [])
        for offset, record in enumerate(records):
            key, value, headers = record.key(), record.value(), dict(record.headers() or [])
            stamp = record.timestamp()[1]
            operation = headers.pop("ls.op", b"delete" if value is None else b"put").decode()
            if key is None:
                model.log_time = max(model.log_time, stamp)
            else:
                model.take(offset, operation, key, value, headers, stamp)
                self.rows.setdefault((partition, key), []).append((offset, *_state(model, key)))
                if offset in model.outcomes:
                    self.outcomes[partition, offset] = model.outcomes[offset][0]
            times.append(model.log_time)

    def row(self, partition: int, key: bytes, applied: int, time_ms: int) -> Seen:
        """The row below `applied`, as seen at the later of its log time and `time_ms`."""
        states = reversed(self.rows.get((partition, key), []))
        version, values = next(((version, values) for at, version, values in states if at < applied), (None, []))
        now_ms = max(time_ms, self.log_times_ms[partition][applied - 1] if applied else 0)
        left = [Sibling(one.version, one.payload) for one in values if one.expires is None or one.expires > now_ms]
        if not left:
            return Seen(None, None)
        return Seen(version, left[0].value if len(left) == 1 else tuple(left))


def _state(model: Reference, key: bytes) -> tuple[int | None, list[Any]]:
    """The version of a row, and its value, or its siblings."""
    values = model.cells.get((key, "", b""), [])
    return model.changed.get((key, "", b"")), values if model.keeps_siblings else values[:1]


class Client(threading.Thread):
    """A client that acts until it is told to end; `error` is what ended it before."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self.rng, self.stopped = random.Random(seed), threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                self.act()
        except BaseException as error:
            self.error = error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what it has opened."""

    def act(self) -> None:
        raise NotImplementedError


class Author(Client):
    """A writer; `told` is what it was told."""

    def __init__(self, store: Store, table: Table, seed: int) -> None:
        super().__init__(seed)
        self._store, self._table = store, table.name
        self.told: list[Told] = []
        self.unresolved: list[str] = []  # answers that no writer may get
        self.counted: list[ConditionalRecord] = []  # the newest last
        self._values = (f"{seed}-{n}" for n in itertools.count())
        self._versions: dict[str, int] = {}
        self._own: dict[str, int] = {}  # the newest value of its own that it had seen, by key
        self._operations: list[Callable[[str], Told]] = [
            self._put, self._put, self._short_lived, self._take_out, self._swap, self._swap, self._count, self.repeat,
            *([self._put_beside] * 6 if table.siblings else []),
        ]  # fmt: skip

    def act(self) -> None:
        key, operation = self.rng.choice(KEYS), self.rng.choice(self._operations)
        try:
            self.told.append(operation(key))
        except Unknown:
            return  # it may be in the log or not: readers are checked against the log
        except LogStoreError as error:
            if not error.retriable:  # such as that a record which is in the log has no outcome
                self.unresolved.append(f"{operation.__name__} {key}: {error}")

    def _put(self, key: str) -> Told:
        return _written(self._store.put(self._table, key, next(self._values)))

    def _put_beside(self, key: str) -> Told:
        """What others have written since stays beside it. Of its own at most one stays, so that they are never many."""
        ttl_s, seen = self.rng.choice([None, None, 0.2]), self._own.get(key, -1)
        position = self._store.put(self._table, key, next(self._values), ttl_s=ttl_s, seen=seen)
        self._own[key] = position.offset
        return _written(position, Became("applied", position.offset))

    def _short_lived(self, key: str) -> Told:
        return _written(self._store.put(self._table, key, next(self._values), ttl_s=self.rng.choice([0.05, 0.2, 0.5])))

    def _take_out(self, key: str) -> Told:
        return _written(self._store.delete(self._table, key))

    def _swap(self, key: str) -> Told:
        outcome = self._store.put_if(self._table, key, next(self._values), version=self._versions.get(key, 0))
        self._versions[key] = outcome.version or 0
        return _decided(outcome)

    def _count(self, _: str) -> Told:
        self.counted.append(incr_record(self.rng.choice(COUNTERS), 1, None))
        return _decided(self._store.decide(self._table, self.counted[-1]))

    def repeat(self, key: str) -> Told:
        """Send what it has sent before, as who does not know that it arrived."""
        return _decided(self._store.decide(self._table, self.counted[-1])) if self.counted else self._count(key)


def _written(position: Position, outcome: Became | None = None) -> Told:
    return Told(time.monotonic(), position.partition, position.offset, outcome)


def _decided(told: Outcome) -> Told:
    became = Became(told.outcome, told.version, told.first, told.first_outcome)
    return Told(time.monotonic(), told.partition, told.offset, became)


class Observer(Client):
    """A reader of one session; `reads` is what it was told."""

    def __init__(self, url: str, table: Table, authors: list[Author], seed: int) -> None:
        super().__init__(seed)
        self._authors = authors
        self._http, self._table = httpx.Client(base_url=url, trust_env=False, timeout=60), table
        self._token = ""
        self.reads: list[Read] = []
        self.faults: list[str] = []  # answers that no reader may get

    def act(self) -> None:
        level, scans = self.rng.choice(LEVELS), self.rng.random() < 0.4
        headers = {"ls-consistency": level, "ls-deadline": "3000"}
        self._hear()
        if level == "session" and not self._token:
            level = headers["ls-consistency"] = "eventual"
        if level == "session":
            headers["ls-token"] = self._token
        if level == "bounded":
            headers["ls-max-lag"] = "60000"
        asked = Position.parse(self._token) if level == "session" else Position({})
        began_s, began_ms = time.monotonic(), time.time_ns() // 1_000_000
        try:
            found = list(self._scan(headers) if scans else self._get(headers))
        except httpx.TransportError:  # the reader is being replaced
            return
        what = f"{level} {'scan' if scans else 'get'} asked {headers.get('ls-token', '')}"
        for partition, applied, time_ms, rows in found:
            at = asked.pieces.get((self._table.epoch, partition), 0)
            self.reads.append(Read(level, began_s, began_ms, partition, applied, time_ms, rows, at, what))

    def close(self) -> None:
        self._http.close()

    def _hear(self) -> None:
        """Hear of somebody's newest write: what it wrote is to be seen from now on."""
        told = self.rng.choice(self._authors).told
        if told:
            self.saw(Position.of_write(self._table.epoch, told[-1].partition, told[-1].offset).token)

    def _refused(self, answer: httpx.Response) -> None:
        if answer.status_code not in (421, 503, 504):
            self.faults.append(f"a reader was told {answer.status_code}: {answer.text:.200}")

    def saw(self, token: str) -> None:
        """Have the session see a position."""
        self._token = (Position.parse(self._token) | Position.parse(token)).token if self._token else token

    def _get(self, headers: dict[str, str]) -> Iterator[tuple[int, int, int, dict[bytes, Seen]]]:
        key = self.rng.choice([*KEYS, *COUNTERS])
        answer = self._http.get(f"/v1/tables/{self._table.name}/rows/{key}", headers=headers)
        said = answer.headers
        if answer.status_code not in (200, 300, 404) or "ls-applied" not in said:
            self._refused(answer)
            return
        self.saw(said["ls-token"])
        seen = Seen(None, None)
        if answer.status_code == 200:
            seen = Seen(int(said["ls-version"]), answer.content)
        elif answer.status_code == 300:
            seen = _seen(answer.json())
        yield int(said["ls-partition"]), int(said["ls-applied"]), int(said.get("ls-time", 0)), {key.encode(): seen}

    def _scan(self, headers: dict[str, str]) -> Iterator[tuple[int, int, int, dict[bytes, Seen]]]:
        answer = self._http.get(f"/v1/tables/{self._table.name}/rows", params={"limit": "1000"}, headers=headers)
        if answer.status_code != 200:
            self._refused(answer)
            return
        page = answer.json()
        self.saw(page["token"])
        for partition, applied in page["positions"].items():
            rows = {
                row["key"].encode(): _seen(row) for row in page["rows"] if row["partition"] == int(partition)
            }  # fmt: skip
            yield int(partition), applied, int(answer.headers.get("ls-time", 0)), Whole(rows)


class Whole(dict[bytes, Seen]):
    """Rows of a scan: those that are not in it are not there."""


def _seen(row: dict[str, Any]) -> Seen:
    """The row of a document."""
    if "siblings" in row:
        return Seen(row["version"], tuple(Sibling(one["version"], _raw(one["value"])) for one in row["siblings"]))
    return Seen(row["version"], _raw(row["value"]))


def _raw(value: Any) -> bytes:
    import base64  # noqa: PLC0415 - counters alone

    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def violations(truth: Truth, observers: list["Observer"], authors: list[Author]) -> list[str]:
    """Everything that was told and cannot be."""
    found = [f"a writer was told {one}" for author in authors for one in author.unresolved]
    found += [one for observer in observers for one in observer.faults]
    told = [one for author in authors for one in author.told]
    for one in told:
        found += _outcome(truth, one)
    for read in (read for observer in observers for read in observer.reads):
        found += _rows(truth, read)
        found += _age(read, told)
    for observer in observers:
        found += _steps_back(observer.reads)
    return found


def _outcome(truth: Truth, told: Told) -> list[str]:
    if told.outcome is None:
        return []
    outcome = truth.outcomes.get((told.partition, told.offset))
    if outcome is None or told.outcome != _became(told.offset, outcome):
        return [f"the record at {told.partition}/{told.offset} was told as {told.outcome}, and it is {outcome}"]
    return []


def _became(offset: int, outcome: tuple[Any, ...]) -> Became:
    """An outcome of the reference model as its writer is to be told it."""
    word, *more = outcome
    if word == "duplicate":
        first, what = more
        was = _became(first, what)
        return Became(word, was.version, first, was.word)
    return Became(word, {"applied": offset, "rejected": more and more[0], "invalid": None}[word])


def _rows(truth: Truth, read: Read) -> list[str]:
    if read.applied > len(truth.log_times_ms[read.partition]):
        return [f"{read.what}: partition {read.partition} was read at {read.applied}, behind the end of its log"]
    keys = [key for p, key in truth.rows if p == read.partition] if isinstance(read.rows, Whole) else read.rows
    wrong = []
    for key in keys:
        seen = read.rows.get(key, Seen(None, None))
        right = truth.row(read.partition, key, read.applied, read.time_ms)
        if seen != right:
            wrong.append(f"{read.what}: {key!r} at {read.applied}, {read.time_ms} is {right}, and was told as {seen}")
    return wrong


def _age(read: Read, told: list[Told]) -> list[str]:
    """A fresh answer holds all that was acknowledged before it was asked for; one of a session what its token names."""
    if read.time_ms and read.time_ms < read.began_ms:  # 0: of a row that has no end
        return [f"{read.what}: seen at {read.time_ms}, and it was {read.began_ms} when it was asked for"]
    if read.applied < read.asked:
        return [f"{read.what}: read at {read.applied}, short of the token's {read.asked}"]
    if read.level not in FRESH:
        return []
    before = [one.offset for one in told if one.partition == read.partition and one.ended_s < read.began_s]
    newest = max(before, default=-1)
    return [f"{read.what}: read at {read.applied}, and {newest} was acknowledged"] if read.applied <= newest else []


def _steps_back(session: list[Read]) -> list[str]:
    """What a session reads at the level session, or a fresh one, is never older than what it had read before."""
    reached: dict[int, int] = {}
    found = []
    for read in session:
        if read.level in ("session", *FRESH) and read.applied < reached.get(read.partition, 0):
            found.append(f"{read.what}: read at {read.applied}, and {reached[read.partition]} was read before")
        reached[read.partition] = max(reached.get(read.partition, 0), read.applied)
    return found
