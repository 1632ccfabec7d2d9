"""Both paths, walked against `apache/kafka:4.1.0` in a container that dies and comes back.

The node is a process, then its own image.
"""

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from docker.models.images import Image
from support_log import until
from support_store import cli
from testcontainers.core.network import Network

from logstore import Store
from logstore.model.errors import LogUnreachable, Unknown
from logstore.model.position import Position
from tests.integration.kraft_kafka import KRaftKafkaContainer
from tests.integration.nodes import InContainer, Node, Process

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

TABLE = "walked"
PARTITIONS = 2
LONG_MS = 30_000  # a node that has just started catches up first


class Writer(threading.Thread):
    """Writes new rows one after the other through broker trouble, and remembers which were acknowledged."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self._kafka = bootstrap
        self._over = threading.Event()
        self.acknowledged: dict[bytes, bytes] = {}
        self.open: set[bytes] = set()  # perhaps written
        self.last: Position | None = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Store(self._kafka) as store:
                for number in count():
                    if self._over.is_set():
                        return
                    self._write(store, b"w%06d" % number)
        except BaseException as error:
            self.failure = error

    def finish(self) -> None:
        self._over.set()
        self.join(90)
        assert not self.is_alive()
        assert self.failure is None, self.failure

    def _write(self, store: Store, key: bytes) -> None:
        try:
            position = store.put(TABLE, key, b"of " + key)
        except (LogUnreachable, Unknown):
            self.open.add(key)
            return
        self.acknowledged[key] = b"of " + key
        self.last = position if self.last is None else self.last | position


class Walk:
    """A store, and what its table has to hold."""

    def __init__(self, broker: KRaftKafkaContainer, node: Node) -> None:
        self.broker, self.node = broker, node
        self.rows: dict[bytes, bytes] = {}
        self.after: Position | None = None

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        with self.store() as store:
            self.after = store.put_many(TABLE, list(changes.items()))
        for key, value in changes.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def store(self) -> Store:
        return Store(self.broker.bootstrap_servers, self.node.url)

    def holds(self, uncertain: frozenset[bytes] = frozenset()) -> None:
        """A read after the last write sees exactly the rows; of the uncertain ones each may be there."""
        with self.store() as store:
            found = {row.key: row.value for row in store.scan(TABLE, after=self.after, deadline_ms=LONG_MS)}
        missing, surplus = self.rows.keys() - found.keys(), found.keys() - self.rows.keys() - uncertain
        assert not missing, f"{len(missing)} acknowledged rows are lost, such as {sorted(missing)[:3]}"
        assert not surplus, f"{len(surplus)} rows were never written, or deleted, such as {sorted(surplus)[:3]}"
        assert {key: found[key] for key in self.rows} == self.rows

    def source(self, key: bytes) -> str:
        with self.store() as store:
            row = store.get(TABLE, key, after=self.after, deadline_ms=LONG_MS)
        assert row is not None
        assert row.value == self.rows[key]
        return row.source

    def standing(self) -> list[dict]:
        answer = httpx.get(f"{self.node.url}/v1/snapshots", trust_env=False, timeout=60).raise_for_status()
        return [row for row in answer.json()["snapshots"] if row["table"] == TABLE]

    def serves_from(self, snapshot: str) -> None:
        def adopted() -> bool:
            rows = self.standing()
            assert not [row for row in rows if row["state"] == "refused"], rows
            return sorted(row["partition"] for row in rows if row["base"] == snapshot) == list(range(PARTITIONS))

        until(f"every partition is served from {snapshot}", adopted, 60)


@pytest.fixture
def process(broker: KRaftKafkaContainer, tmp_path: Path) -> Iterator[Process]:
    node = Process(broker, tmp_path / "node")
    try:
        yield node
    finally:
        node.stop()
        print(node.log())


@pytest.fixture
def container(broker: KRaftKafkaContainer, image: Image, network: Network | None) -> Iterator[InContainer]:
    node = InContainer(broker, image, network)
    try:
        yield node.start()
    finally:
        print(node.log())
        node.remove()


def test_both_paths_hold_with_a_node_of_this_checkout(broker: KRaftKafkaContainer, process: Process) -> None:
    walk(broker, process)


def test_both_paths_hold_with_a_node_in_its_own_container(broker: KRaftKafkaContainer, container: InContainer) -> None:
    assert container.user() == "logstore"
    walk(broker, container)


def walk(broker: KRaftKafkaContainer, node: Node) -> None:
    store = Walk(broker, node)
    cli(
        "table",
        "create",
        TABLE,
        "--partitions",
        str(PARTITIONS),
        LOGSTORE_BOOTSTRAP=broker.bootstrap_servers,
        LOGSTORE_URL=node.url,
    )
    _fast_path(store)
    first = _accurate_path(store)
    _broker_dies(store)
    _goes_on_from(store, first)
    _node_dies(store)
    assert node.stop() == 0


def _fast_path(walk: Walk) -> None:
    """Write, read, delete; each read sees the writes before it."""
    walk.write({b"k%04d" % n: b"one %d" % n for n in range(400)})
    walk.holds()
    walk.write({b"k%04d" % n: None for n in range(0, 400, 10)})
    walk.holds()
    with walk.store() as store:
        for turn in range(20):
            position = store.put(TABLE, b"mine", b"%d" % turn)
            row = store.get(TABLE, b"mine", after=position, deadline_ms=LONG_MS)
            assert row is not None
            assert row.value == b"%d" % turn
        gone = store.delete(TABLE, b"mine")
        assert store.get(TABLE, b"mine", after=gone, deadline_ms=LONG_MS) is None
    assert walk.source(b"k0001") == "view"


def _accurate_path(walk: Walk) -> str:
    """Archive and compact.

    The node adopts; reads come from the snapshot, and from the view where something newer was written.
    """
    archived = walk.node.batch("archive", TABLE)
    assert archived["records"] == 461  # 400 puts, 40 deletes, 20 puts and a delete of one row
    made = walk.node.batch("compact", TABLE, "--wait", "60")
    assert (made["entries"], made["parent"]) == (360, None)
    walk.serves_from(made["snapshot"])
    assert walk.source(b"k0001") == "snapshot"
    walk.holds()
    walk.write({b"k0001": b"two", b"k0002": None, b"k0010": b"back", b"new": b"row"})
    assert [walk.source(key) for key in (b"k0001", b"k0010", b"new", b"k0003")] == ["view", "view", "view", "snapshot"]
    walk.holds()
    return str(made["snapshot"])


def _broker_dies(walk: Walk) -> None:
    """Killed while rows are written: reads go on, and when it is back so do writes; what was acknowledged is there."""
    writer = Writer(walk.broker.bootstrap_servers)
    writer.start()
    try:
        until("rows are written", lambda: len(writer.acknowledged) > 100)
        walk.broker.kill()
        with walk.store() as store:
            for key in sorted(key for key in walk.rows if key.startswith(b"k"))[:100]:
                row = store.get(TABLE, key, deadline_ms=LONG_MS)
                assert row is not None
                assert row.value == walk.rows[key]
        walk.broker.revive()
        before = len(writer.acknowledged)
        until("writes go on", lambda: len(writer.acknowledged) > before + 100, 90)
    finally:
        writer.finish()
    walk.rows |= writer.acknowledged
    assert writer.last is not None
    assert walk.after is not None
    walk.after = walk.after | writer.last
    walk.holds(frozenset(writer.open))
    walk.write(dict.fromkeys(sorted(writer.open), b"now for certain"))
    walk.holds()


def _goes_on_from(walk: Walk, first: str) -> None:
    """The next snapshot is made of the first and the log since.

    One made of the whole log agrees with it, digest by digest.
    """
    next_one = walk.node.batch("compact", TABLE, "--wait", "60")
    assert (next_one["parent"], next_one["entries"]) == (first, len(walk.rows))
    walk.serves_from(next_one["snapshot"])
    again = walk.node.batch("rebuild", TABLE, "--wait", "60")
    assert again["digests"] == next_one["digests"]
    assert again["records"] > next_one["records"]
    walk.serves_from(again["snapshot"])
    views = {str(row["partition"]): row["digests"][-1]["digest"] for row in walk.standing()}
    assert views == again["digests"]  # counted by the views themselves, record by record
    walk.holds()


def _node_dies(walk: Walk) -> None:
    walk.write({b"k0003": b"three", b"k0004": None})
    walk.node.kill()
    walk.node.revive()
    walk.holds()
    assert [walk.source(key) for key in (b"k0003", b"k0005")] == ["view", "snapshot"]
    walk.write({b"k0005": b"after all that"})
    walk.holds()
