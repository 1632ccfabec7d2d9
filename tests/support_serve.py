"""A node without Kafka.

Views written here, a feed published here, and real reader processes that serve them over real HTTP.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from support_forked import start
from support_wait import until

from logstore.model.folding.digest import digest
from logstore.model.folding.entry import TOMBSTONE
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.hard_rows.rules import rules_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.partitioner import partition_of
from logstore.model.slots import slot_of
from logstore.model.table import PartitionKey, Table
from logstore.snapshot.sst import SstReader, SstWriter, prepare
from logstore.snapshot.verdicts import PROVED, UNPROVED
from logstore.view import paths
from logstore.view.conditional.state_before import ViewState
from logstore.view.feed.acknowledgement import Acknowledgement
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord, LocalProof
from logstore.view.feed.key import FeedKey, R
from logstore.view.feed.log_records import EndsKey, EndsRecord, PartitionEnd
from logstore.view.feed.node_records import NodeRecord, NodesKey, NodesRecord, ProcessIds
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey, TablesRecord
from logstore.view.feed.view_records import LocalSnapshotRecord, ViewKey, ViewRecord
from logstore.view.layout import Base, Stop
from logstore.view.served import Served
from logstore.view.view import View, ViewIdentity

SLOTS = 16
ROWS = {b"k%03d" % i: b"v%d" % i for i in range(200)}
MAP_BYTES = 1 << 30
TABLES_TOPIC_ID = "f" * 32


def key_in(partition: int) -> str:
    """The first of ROWS that lies in a partition of four."""
    return next(key for key in ROWS if partition_of(key, 4) == partition).decode()


def epoch_of(name: str, incarnation: int = 0) -> str:
    """An epoch for a table of the tests."""
    return f"{incarnation:04x}" + name.encode().hex().ljust(28, "0")[:28]


class Node:
    """The worker's side of one node: `put`, `delete`, `stop`, and everything a worker would publish."""

    def __init__(
        self,
        data_dir: Path,
        *,
        name: str = "node-a",
        slots: Sequence[int] = range(SLOTS),
        url: str = "http://127.0.0.1:1",
    ) -> None:
        self.data_dir, self.name, self.slots = data_dir, name, list(slots)
        self.tables: dict[str, Table] = {}
        self.revision = 0
        self.views: dict[tuple[str, int], View] = {}
        # what the view stands on, then what is kept beside it
        self.bases: dict[PartitionKey, list[LocalSnapshotRecord | None]] = {}
        self.others: list[NodeRecord] = []
        self.url = url
        self.feed: FeedServer | None = None
        self.published: dict[FeedKey[Any], Any] = {}
        self.open_feed()

    def open_feed(self) -> None:
        self.feed = FeedServer(paths.feed_path(self.data_dir, 0))
        for key, value in self.published.items():
            self.feed.publish(key, value)

    def close_feed(self) -> None:
        """As if the worker were killed: its views stay."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None

    def publish(self, key: FeedKey[R], record: R | None) -> None:
        self.published[key] = record
        if self.feed is not None:
            self.feed.publish(key, record)

    def acks(self) -> list[Acknowledgement | None]:
        return self.feed.acks() if self.feed else []

    def create(
        self, name: str, partitions: int = 4, *, former: tuple[str, ...] = (), incarnation: int = 0, **fields: Any
    ) -> Table:
        table = Table(name, name, epoch_of(name, incarnation), partitions, former_epochs=former, **fields)
        self.tables[name] = table
        for partition in range(partitions):
            if slot_of(partition, SLOTS) in self.slots and not table.dropped:
                self.open_view(table, partition)
        self.publish_tables()
        self.publish_nodes()
        return table

    def open_view(self, table: Table, partition: int) -> View:
        path = paths.partition_dir(self.data_dir, table.name, table.epoch, partition) / "1"
        view = View(path, ViewIdentity.of(table, partition), map_bytes=MAP_BYTES)
        self.views[table.epoch, partition] = view
        self.say_view(table, partition)
        self.say_applied(table, partition)
        return view

    def say_ends(self, asked_ms: int) -> None:
        """As a worker that asked Kafka at a time where the logs end: there where the views stand."""
        ends = [PartitionEnd(*where, view.next_offset) for where, view in self.views.items()]
        self.publish(EndsKey(), EndsRecord(asked_ms, tuple(ends)))

    def say_view(
        self, table: Table, partition: int, state: str = "live", reason: str = "", *, reached: bool = True
    ) -> None:
        path = str(self.views[table.epoch, partition].path)
        base, *others = self.bases.get((table.epoch, partition), [None])
        older = tuple(one for one in others if one is not None)
        record = ViewRecord(path, slot_of(partition, SLOTS), state, reason, base, older, reached)
        self.publish(ViewKey(table.name, table.epoch, partition), record)

    def say_proofs(self, table: Table, partition: int, *proofs: str | None) -> None:
        """As a worker that knows how its local snapshots stand, newest first; None: it has not looked yet."""
        known = [one for one in self.bases[table.epoch, partition] if one is not None]
        words = [*proofs, *[PROVED] * len(known)]
        local = tuple(LocalProof(one.snapshot, word) for one, word in zip(known, words, strict=False) if word)
        base = known[0]
        self.publish(
            AdoptionKey(table.name, table.epoch, partition),
            AdoptionRecord(base.snapshot, base.cut, state="adopted", proof=proofs[0] or UNPROVED, local=local),
        )

    def adopt(self, name: str, partition: int, keep: int = 1, proof: str | None = PROVED) -> LocalSnapshotRecord:
        """Make a snapshot of what the partition holds now and a next view that stands on it, and publish both.

        Returns the base as it is published; `keep`: how many older ones stay beside it.
        """
        table = self.tables[name]
        where = table.epoch, partition
        old = self.views[where]
        number, cut = int(old.path.name) + 1, old.next_offset
        snapshot = f"{cut:014d}-{number:08x}"
        entries = {key: entry for key, entry in self.entries(name, partition).items() if entry[0] != TOMBSTONE}
        path = write_snapshot(paths.snapshot_dir(self.data_dir, name, table.epoch, partition) / snapshot, entries)
        amount = digest(entries.items())
        base = Base(snapshot, cut, old.state.log_time_ms, amount.hex, amount.entries, "")
        identity = ViewIdentity.of(table, partition)
        self.views[where] = View(old.path.with_name(str(number)), identity, base, map_bytes=MAP_BYTES)
        shown = LocalSnapshotRecord(str(path), snapshot, cut, base.log_time_ms)
        self.bases[where] = [shown, *self.bases.get(where, [])][: keep + 1]
        self.say_proofs(table, partition, proof)
        self.say_view(table, partition)
        old.close()
        return shown

    def entries(self, name: str, partition: int) -> dict[bytes, bytes]:
        """Every newest entry of a partition, of its view over its base."""
        where = self.tables[name].epoch, partition
        found: dict[bytes, bytes] = {}
        base = self.bases[where][0] if where in self.bases else None
        if base is not None and base.path is not None:
            below = SstReader.open(Path(base.path))
            found.update(below.scan())
            below.close()
        with self.views[where].reader().reading() as reading:
            found.update(reading.scan())
        return found

    def say_applied(self, table: Table, partition: int, behind: int = 0) -> None:
        following = self.views[table.epoch, partition].next_offset
        self.publish(AppliedKey(table.epoch, partition), AppliedRecord(following, following + behind))

    def publish_tables(self) -> None:
        self.revision += 1
        tables = tuple(t.to_json() for t in self.tables.values())
        self.publish(TablesKey(), TablesRecord(self.revision, TABLES_TOPIC_ID, SLOTS, None, tables))

    def record(self) -> NodeRecord:
        pids, slots = ProcessIds(node=os.getpid(), workers=(os.getpid(),)), tuple(self.slots)
        return NodeRecord(self.name, 0, self.url, "main", "", slots, slots, pids, self.revision)

    def publish_nodes(self) -> None:
        self.publish(NodesKey(), NodesRecord((self.record(), *self.others)))

    def put_many(
        self, name: str, rows: dict[bytes, bytes | None], *, at_ms: int = 1
    ) -> dict[bytes, tuple[int, int]]:  # fmt: skip
        """Write rows (None deletes) at a time of the broker; key -> (partition, offset)."""
        table = self.tables[name]
        written: dict[bytes, tuple[int, int]] = {}
        by_partition: dict[int, list[bytes]] = {}
        for key in rows:
            by_partition.setdefault(table.partitioning.of(key), []).append(key)
        for partition, keys in by_partition.items():
            first = self.views[table.epoch, partition].next_offset
            self.append(name, partition, [(key, rows[key]) for key in keys], at_ms=at_ms)
            written.update((key, (partition, first + i)) for i, key in enumerate(keys))
        return written

    def append(
        self, name: str, partition: int, records: Sequence[tuple[bytes | None, bytes | None]], *, at_ms: int = 1
    ) -> None:
        """Fold records into a view and publish the new position, as the lane does."""
        table = self.tables[name]
        view = self.views[table.epoch, partition]
        first, count = view.next_offset, len(records)
        columns = Records(
            range(first, first + count),
            [k for k, _ in records],
            [v for _, v in records],
            [at_ms] * count,
            [None] * count,
        )
        place = FoldRules.of(table, partition)
        view.apply(fold_batch(columns, place, first, view.state.log_time_ms))
        self.say_applied(table, partition)

    def decide(
        self, name: str, records: Sequence[tuple[bytes, bytes | None, dict[str, bytes]]], *, at_ms: int = 1
    ) -> tuple[int, int]:  # fmt: skip
        """Fold records of one row of a conditional table, with their reserved headers; (partition, first offset)."""
        table, keys = self.tables[name], [key for key, *_ in records]
        partition = table.partitioning.of(keys[0])
        view = self.views[table.epoch, partition]
        first, count = view.next_offset, len(records)
        columns = Records(
            range(first, first + count), keys, [value for _, value, _ in records], [at_ms] * count,
            [list(headers.items()) for *_, headers in records],
        )  # fmt: skip
        start = StretchStart(first, view.state.log_time_ms, view.counter)
        view.apply(fold_stretch(columns, rules_of(table, partition), start, ViewState(view.reader(), lambda: None)))
        self.say_applied(table, partition)
        return partition, first

    def home(self, name: str, key: bytes) -> int:
        """The partition of a key."""
        return self.tables[name].partitioning.of(key)

    def put(self, name: str, key: bytes, value: bytes, *, at_ms: int = 1) -> tuple[int, int]:
        return self.put_many(name, {key: value}, at_ms=at_ms)[key]

    def delete(self, name: str, key: bytes) -> tuple[int, int]:
        return self.put_many(name, {key: None})[key]

    def stop(
        self, name: str, partition: int, detail: str = "offsets 5..6 are missing; run `logstore table repair`"
    ) -> None:
        self.views[self.tables[name].epoch, partition].stop(Stop("gap", detail, 5))

    def leave_served_file(self) -> None:
        """What a worker writes for readers that start without it."""
        views = {key: record for key, record in self.published.items() if isinstance(key, ViewKey) and record}
        path = paths.served_path(self.data_dir, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        served = Served(self.published[TablesKey()], self.published[NodesKey()], tuple(self.slots), views)
        path.write_bytes(served.encode())

    def close(self) -> None:
        self.close_feed()
        for view in self.views.values():
            view.close()


class Reader:
    """A reader process and a client of it."""

    def __init__(self, data_dir: Path, *options: str, node: str = "node-a", said: Path | None = None) -> None:
        """`said`: where it logs to, instead of this process's stderr."""
        self._said = said
        # Held but not listening: nobody else is given the port, and the reader may share it (SO_REUSEPORT).
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = ["--data-dir", str(data_dir), "--port", str(self.port), "--node", node, *options]
        self.http = httpx.Client(base_url=self.url, timeout=40, trust_env=False)
        self.start()

    def start(self) -> None:
        if self._said is None:
            self.process = start("logstore.serve", self.arguments)
            return
        with self._said.open("ab") as said:
            self.process = start("logstore.serve", self.arguments, errors=said.fileno())

    def wait_ready(self) -> "Reader":
        until("the reader is ready", lambda: self._page("/readyz") == 200)
        return self

    def wait_listening(self) -> "Reader":
        until("the reader listens", lambda: self._page("/healthz") == 200)
        return self

    def restart(self) -> None:
        self.http.close()
        self.http = httpx.Client(base_url=self.url, timeout=40, trust_env=False)
        self.kill()
        self.start()

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.http.get(path, **kwargs)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, data: bytes) -> bytes:
        """Send bytes; everything that comes back until the reader hangs up or falls silent for a moment."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_answer(sock)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(90)

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(90)
        finally:
            self.kill()
            self._held.close()

    def _page(self, path: str) -> int:
        assert self.process.poll() is None, "the reader has ended"
        try:
            return self.http.get(path).status_code
        except httpx.TransportError:
            return 0


def read_answer(sock: socket.socket) -> bytes:
    """One whole answer: its head, and the body that its content-length promises; less when the connection ends."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            return data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        chunk = sock.recv(65536)
        if not chunk:
            break
        body += chunk
    return head + b"\r\n\r\n" + body


def write_snapshot(directory: Path, entries: dict[bytes, bytes]) -> Path:
    """A local snapshot of these entries, as a node has it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    file = directory.with_suffix(".sst")
    writer = SstWriter(file, block_bytes=1_024)
    for key, entry in sorted(entries.items()):
        writer.put(key, entry)
    prepare(directory, [[file]] if writer.close() is not None else [])
    return directory


@contextlib.contextmanager
def serving(data_dir: Path, *options: str, **kwargs: Any) -> Iterator[tuple[Node, Reader]]:
    """A node and one reader of it that listens, ready as soon as something is created."""
    node = Node(data_dir, **kwargs)
    reader = Reader(data_dir, *options, node=node.name)
    try:
        reader.wait_listening()
        yield node, reader
    finally:
        reader.close()
        node.close()


def problem(response: httpx.Response, status: int, word: str) -> dict[str, Any]:
    """The problem document of an answer that must be one."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    document: dict[str, Any] = response.json()
    assert (document["type"], document["status"]) == (f"urn:logstore:{word}", status)
    assert document["title"]
    assert document["detail"]
    assert response.headers["x-request-id"]
    return document
