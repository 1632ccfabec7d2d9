"""Workers, readers and whole nodes are killed at random instants while unique keys are written.

Afterwards every offset is looked at: none lost, none twice, the views are exact prefixes. Meanwhile no read is ever
wrong: a row written at offset o is there if and only if the answer says it has applied more than o.
"""

import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from support_log import until
from support_store import Running, cli, running

from logstore import Store
from logstore.client.write.pending import Pending
from logstore.model.errors import LogStoreError
from logstore.model.folding.entry import Entry
from logstore.view.reader import ViewReader

PARTITIONS = 4


class Writer(threading.Thread):
    """Writes unique keys until told to stop, and remembers where each acknowledged one is."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self._brokers = bootstrap
        self.running = True
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.failed: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with Store(self._brokers) as store:
                number = 0
                while self.running:
                    with store.pipeline("t") as pipe:
                        batch = [
                            (f"k{n:08d}", pipe.put(f"k{n:08d}", f"value of {n}")) for n in range(number, number + 200)
                        ]
                    number += 200
                    for key, pending in batch:
                        self._note(key, pending)
        except BaseException as error:
            self.error = error

    def _note(self, key: str, pending: Pending) -> None:
        try:
            position = pending.result(60)
            self.acknowledged[key] = position.partition, position.offset
        except LogStoreError as error:
            self.failed.append(f"{key}: {error}")


class Prober(threading.Thread):
    """Reads acknowledged keys and some that were never written, and compares each answer with its own position."""

    def __init__(self, url: str, writer: Writer, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._url, self._writer, self._rng = url, writer, rng
        self.running = True
        self.answers = self.refused = 0
        self.wrong: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while self.running:
                self._probe()
        except BaseException as error:
            self.error = error

    def _probe(self) -> None:
        known = list(self._writer.acknowledged.copy().items())  # a copy in one step: the writer adds to it meanwhile
        with httpx.Client(trust_env=False, timeout=60) as client:
            for _ in range(50):
                key, place = self._rng.choice(known) if known and self._rng.random() < 0.9 else ("never", None)
                try:
                    answer = client.get(f"{self._url}/v1/tables/t/rows/{key}")
                except httpx.TransportError:  # a reader was killed under this connection
                    self.refused += 1
                    return
                self._judge(key, place, answer)

    def _judge(self, key: str, place: tuple[int, int] | None, answer: httpx.Response) -> None:
        if answer.status_code in (421, 503, 504):
            self.refused += 1
            return
        self.answers += 1
        applied, there = int(answer.headers["ls-applied"]), answer.status_code == 200
        said = (int(answer.headers["ls-partition"]), int(answer.headers["ls-version"])) if there else None
        right = answer.text == f"value of {int(key[1:])}" and said == place if there else answer.status_code == 404
        if not right or there != (place is not None and place[1] < applied):
            self.wrong.append(f"{key} {place}: {answer.status_code} applied {applied} {answer.text[:50]}")


def test_nothing_is_lost_or_wrong_while_processes_are_killed(tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with running("dev", tmp_path / "store", "--http", "127.0.0.1:0", "--workers", "2", "--readers", "2") as store:
        cli("table", "create", "t", "--partitions", str(PARTITIONS), LOGSTORE_BOOTSTRAP=store.bootstrap)
        writer = Writer(store.bootstrap)
        writer.start()
        probers = [Prober(store.url, writer, random.Random(rng.random())) for _ in range(2)]
        for prober in probers:
            prober.start()
        for _ in range(6):
            _pause(rng)
            store.kill_one(*rng.choice([("workers", 0), ("workers", 1), ("readers", 0), ("readers", 1)]))
        until(
            "enough was read",
            lambda: sum(prober.answers for prober in probers) > 500 or any(prober.error for prober in probers),
        )
        _stop(writer, probers)
        _assert_all_there(store, writer)
    assert [thread.error for thread in (writer, *probers)] == [None] * 3
    assert writer.failed == []
    assert [wrong for prober in probers for wrong in prober.wrong] == []


def test_a_whole_node_is_killed_again_and_again(tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with running("dev", tmp_path / "kafka-and-node", "--http", "127.0.0.1:0") as kafka:
        cli("table", "create", "t", "--partitions", str(PARTITIONS), LOGSTORE_BOOTSTRAP=kafka.bootstrap)
        writer = Writer(kafka.bootstrap)
        writer.start()
        options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--group", "other")
        for _ in range(3):
            node = Running("node", tmp_path / "node", *options).ready()
            _pause(rng)
            node.kill()
            _assert_prefixes(node.data_dir)
        with running("node", tmp_path / "node", *options) as node:
            _stop(writer, [])
            _assert_all_there(node, writer)
    assert writer.error is None
    assert writer.failed == []


def _pause(rng: random.Random) -> None:
    """The random instant: this is the fault schedule, nothing waits for it."""
    time.sleep(rng.uniform(0.5, 2.5))


def _stop(writer: Writer, probers: list[Prober]) -> None:
    for thread in (writer, *probers):
        thread.running = False
    for thread in (writer, *probers):
        thread.join(90)
        assert not thread.is_alive()


def _assert_all_there(store: Running, writer: Writer) -> None:
    """Through the front door: every acknowledged key, each at its own offset; each offset once."""
    ends = [
        1 + max(offset for p, offset in writer.acknowledged.values() if p == partition)
        for partition in range(PARTITIONS)
    ]
    with httpx.Client(trust_env=False, timeout=60) as client:
        until("all is applied", lambda: _applied(client, store.url) >= dict(enumerate(ends)).items())
        found, cursor = {}, ""
        while cursor is not None:
            page = until("a page is answered", partial(_page, client, store.url, cursor))
            found.update({row["key"]: (row["partition"], row["version"]) for row in page["rows"]})
            cursor = page["cursor"]
    assert found == writer.acknowledged
    for partition, end in enumerate(ends):
        assert sorted(offset for p, offset in writer.acknowledged.values() if p == partition) == list(range(end))


def _page(client: httpx.Client, url: str, cursor: str) -> dict[str, Any] | None:
    """A page of all rows; None while a reader that was killed is not back."""
    try:
        answer = client.get(f"{url}/v1/tables/t/rows", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
    except httpx.TransportError:
        return None
    assert answer.status_code in (200, 503), answer.text
    return answer.json() if answer.status_code == 200 else None


def _applied(client: httpx.Client, url: str) -> set[tuple[int, int]]:
    try:
        page = client.get(f"{url}/v1/partitions").json()
    except httpx.TransportError:
        return set()
    return {(p["partition"], p["applied"]) for p in page["partitions"] if p["table"] == "t" and p["state"] == "live"}


def _assert_prefixes(data_dir: Path) -> None:
    """Unique keys: a view that stands at n holds exactly the versions 0 to n-1."""
    for path in sorted((data_dir / "views" / "t").rglob("data.mdb")):
        reader = ViewReader.open(path.parent)
        with reader.reading() as reading:
            versions = sorted(Entry.decode(raw).version for _, raw in reading.scan())
            assert versions == list(range(reading.state.next_offset))
        reader.close()
