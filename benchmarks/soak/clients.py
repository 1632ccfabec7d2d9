"""Clients of the soak: writers that own their keys, and readers that hold every answer against the history."""

import random
import threading
from abc import ABC, abstractmethod
from collections import Counter

import httpx

from benchmarks.soak.history import History, Value, missing
from logstore import Store
from logstore.client.conditional.pending_put import PendingPut
from logstore.client.write.pending import Pending
from logstore.client.write.pending_applied import PendingApplied
from logstore.model.errors import LogStoreError, Unknown

TABLE = "soak"
KEYS = 200  # of a writer
_REFUSALS = {421, 429, 503, 504}


def key_of(writer: int, number: int) -> str:
    """A key of a writer."""
    return f"w{writer}/{number:04d}"


class Client(threading.Thread, ABC):
    """A thread that repeats its round until it is told to stop; what it counted is in `counts`."""

    def __init__(self, name: str, history: History, rng: random.Random) -> None:
        """Make it; `start` starts it."""
        super().__init__(name=name, daemon=True)
        self.history, self.rng = history, rng
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.error: BaseException | None = None
        self.ending = threading.Event()

    @abstractmethod
    def round(self) -> None:
        """Some work."""

    def run(self) -> None:
        """Rounds until the end; an error that nobody expected ends them and is kept."""
        try:
            while not self.ending.is_set():
                self.round()
                self.ending.wait(0.01)
        except BaseException as error:
            self.error = error


class Writer(Client):
    """Writes to its own keys: single puts, deletes, and pipelines."""

    def __init__(self, number: int, store: Store, history: History, rng: random.Random) -> None:
        """`store` is shared by all writers, as in a service."""
        super().__init__(f"writer-{number}", history, rng)
        self._number, self._store, self._count = number, store, 0

    def round(self) -> None:
        """Write once, or a pipeline of writes to keys that differ."""
        if self.rng.random() < 0.5:
            self._one(self.rng.randrange(KEYS))
        else:
            self._some(self.rng.sample(range(KEYS), 40))

    def _value(self, key: str) -> Value:
        self._count += 1
        return None if self.rng.random() < 0.15 else f"{key}={self._count}"

    def _one(self, number: int) -> None:
        key = key_of(self._number, number)
        value = self._value(key)
        self.history.begin(key, value)
        try:
            position = self._store.put(TABLE, key, value) if value is not None else self._store.delete(TABLE, key)
        except LogStoreError as error:
            self._failed(key, value, error)
        else:
            self.history.acknowledge(key, value, position.partition, position.offset)
            self.counts["acknowledged"] += 1

    def _some(self, numbers: list[int]) -> None:
        sent: list[tuple[str, Value, Pending | PendingPut | PendingApplied]] = []
        pipe = self._store.pipeline(TABLE)
        for number in numbers:
            key = key_of(self._number, number)
            value = self._value(key)
            self.history.begin(key, value)
            try:
                sent.append((key, value, pipe.put(key, value) if value is not None else pipe.delete(key)))
            except LogStoreError as error:
                self._failed(key, value, error)
        for key, value, pending in sent:
            try:
                position = pending.result(150)
            except LogStoreError as error:
                self._failed(key, value, error)
            else:
                self.history.acknowledge(key, value, position.partition, position.offset)
                self.counts["acknowledged"] += 1

    def _failed(self, key: str, value: Value, error: LogStoreError) -> None:
        self.counts[f"write {type(error).__name__}"] += 1
        if not isinstance(error, Unknown):
            self.history.refuse(key, value)


class Reader(Client):
    """Reads of both nodes over plain HTTP; each answer is held against the position that it names."""

    def __init__(self, number: int, urls: list[str], epoch: str, history: History, rng: random.Random) -> None:
        """`urls`: of the nodes, which keep their ports."""
        super().__init__(f"reader-{number}", history, rng)
        self._urls, self._epoch, self._writers = urls, epoch, 1
        self._token = ""

    def writers(self, count: int) -> "Reader":
        """Read the keys of so many writers."""
        self._writers = count
        return self

    def round(self) -> None:
        """Points, a scan or many keys at once, over one connection."""
        url = self.rng.choice(self._urls)
        with httpx.Client(trust_env=False, timeout=40, base_url=f"{url}/v1/tables/{TABLE}") as client:
            try:
                kind = self.rng.random()
                if kind < 0.15:
                    self._scan(client)
                elif kind < 0.3:
                    self._many(client)
                else:
                    for _ in range(20):
                        self._point(client)
            except httpx.TransportError as error:  # killed under this connection, or not up again
                self.counts[f"read {type(error).__name__}"] += 1
                self.ending.wait(0.1)

    def _key(self) -> str:
        return key_of(self.rng.randrange(self._writers), self.rng.randrange(KEYS))

    def _session(self, key: str) -> tuple[dict[str, str], int]:
        """Headers of a read of one's own write, and what it must see."""
        known = self.history.keys.get(key)
        last = self.history.last(key)
        if known is None or last is None or known.partition is None or self.rng.random() < 0.3:
            return {}, -1
        return {"LS-Token": f"{self._epoch}-{known.partition}-{last + 1}", "LS-Deadline": "10000"}, last

    def _point(self, client: httpx.Client) -> None:
        key = self._key()
        headers, least = self._session(key)
        answer = client.get(f"/rows/{key.replace('/', '%2F')}", headers=headers)
        if self._refused(answer):
            return
        self._expect(answer.status_code in (200, 404), f"{key}: {answer.status_code} {answer.text[:200]}")
        applied = int(answer.headers["ls-applied"])
        self._expect(applied > least, f"{key}: answered at {applied}, below its token {least + 1}")
        found = (int(answer.headers["ls-version"]), answer.text) if answer.status_code == 200 else None
        self._note("point", self.history.judge(key, applied, found))

    def _scan(self, client: httpx.Client) -> None:
        writer, hundred = self.rng.randrange(self._writers), self.rng.randrange(KEYS // 100)
        prefix = key_of(writer, hundred * 100)[:-2]
        headers = {"LS-Token": self._token, "LS-Deadline": "10000"} if self._token and self.rng.random() < 0.7 else {}
        answer = client.get("/rows", params={"prefix": prefix, "limit": 1000}, headers=headers)
        if self._refused(answer):
            return
        page = answer.json()
        self._expect(answer.status_code == 200 and page["cursor"] is None, f"scan: {answer.text[:200]}")
        seen = {row["key"]: (row["version"], row["value"]) for row in page["rows"]}
        ends = {int(partition): end for partition, end in page["positions"].items()}
        self._below(headers, ends, "scan")
        self._token = page["token"]
        keys = [key_of(writer, number) for number in range(hundred * 100, hundred * 100 + 100)]
        self._expect(seen.keys() <= set(keys), f"scan of {prefix} has other keys: {seen.keys() - set(keys)}")
        self.counts["scan"] += 1
        self.wrong += missing(self.history, keys, seen, ends)

    def _many(self, client: httpx.Client) -> None:
        keys = [self._key() for _ in range(50)]
        headers = {"LS-Token": self._token, "LS-Deadline": "10000"} if self._token and self.rng.random() < 0.7 else {}
        answer = client.post("/rows:get", json={"keys": keys}, headers=headers)
        if self._refused(answer):
            return
        self._expect(answer.status_code == 200, f"rows:get: {answer.status_code} {answer.text[:200]}")
        page = answer.json()
        ends = {int(partition): end for partition, end in page["positions"].items()}
        self._below(headers, ends, "rows:get")
        left_out = len(page["unprocessed"])
        self.counts["keys left out"] += left_out
        self._expect(len(page["results"]) + left_out == len(keys), "rows:get: results are missing")
        for row in page["results"]:
            found = (row["version"], row["value"]) if row["found"] else None
            self._note("key of many", self.history.judge(row["key"], ends[row["partition"]], found))

    def _below(self, headers: dict[str, str], ends: dict[int, int], what: str) -> None:
        for piece in filter(None, headers.get("LS-Token", "").split(",")):
            epoch, partition, following = piece.split("-")
            if epoch == self._epoch and int(partition) in ends:
                got = ends[int(partition)]
                self._expect(got >= int(following), f"{what}: partition {partition} at {got}, below its token {piece}")

    def _refused(self, answer: httpx.Response) -> bool:
        if answer.status_code not in _REFUSALS:
            return False
        self.counts[f"refused {answer.status_code} {answer.json()['type'].rpartition(':')[2]}"] += 1
        return True

    def _expect(self, right: bool, otherwise: str) -> None:
        if not right:
            self.wrong.append(otherwise)

    def _note(self, what: str, wrong: str | None) -> None:
        self.counts[what] += 1
        if wrong:
            self.wrong.append(wrong)
