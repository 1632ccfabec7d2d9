"""The store against a dict: thousands of seeded steps through the real front doors, with restarts in between.

The model is a plain dict per table and the position of every write. After each write that is acknowledged the store
must agree with the model wherever it is asked with that write's token; a failure prints the seed and the last steps.
"""

import os
import random
from collections import deque

from support_store import Running, cli, running

from logstore import Store
from logstore.model.position import Position

STEPS = int(os.environ.get("LOGSTORE_MODEL_STEPS", "3000"))
EDGES = [b"\x00", b"\xff", b"\xff\xff", b"a/b%2F c+d?#", b"\xc3\x28", "schlüssel".encode(), b".", b".."]


class Model:
    """What the store must hold."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.store, self.rng = store, rng
        self.rows: dict[bytes, bytes] = {}
        self.position = Position()
        self.steps: deque[str] = deque(maxlen=20)

    def step(self) -> None:
        """One random step, and what must hold after it."""
        weights = {
            self.put: 30,
            self.delete: 10,
            self.put_many: 3,
            self.get: 40,
            self.get_missing: 5,
            self.get_many: 5,
            self.scan: 7,
        }
        (action,) = self.rng.choices(list(weights), list(weights.values()))
        self.steps.append(action.__name__)
        action()

    def key(self) -> bytes:
        """Short ones often, so that they meet; long ones and ugly ones now and then."""
        roll = self.rng.random()
        if roll < 0.05:
            return self.rng.choice(EDGES)
        if roll < 0.1:
            return b"x" * self.rng.choice([494, 495, 496, 511, 512, 2_000]) + bytes([self.rng.randrange(4)])
        return b"key-%03d" % self.rng.randrange(200)

    def value(self) -> bytes:
        """Empty, small, and now and then large."""
        return self.rng.randbytes(self.rng.choice([0, 1, 10, 100, 100, 5_000]))

    def put(self) -> None:
        key, value = self.key(), self.value()
        self.position |= self.store.put("t", key, value)
        self.rows[key] = value

    def delete(self) -> None:
        key = self.key()
        self.position |= self.store.delete("t", key)
        self.rows.pop(key, None)

    def put_many(self) -> None:
        batch = [
            (self.key(), self.value() if self.rng.random() < 0.8 else None) for _ in range(self.rng.randrange(1, 200))
        ]
        self.position |= self.store.put_many("t", batch)
        for key, value in batch:
            self.rows.pop(key, None) if value is None else self.rows.update({key: value})

    def get(self) -> None:
        key = self.rng.choice(list(self.rows) or [b"none"])
        row = self.store.get("t", key, after=self.position, deadline_ms=30_000)
        assert (row and row.value) == self.rows.get(key), key

    def get_missing(self) -> None:
        key = self.key()
        row = self.store.get("t", key, after=self.position, deadline_ms=30_000)
        assert (row and row.value) == self.rows.get(key), key

    def get_many(self) -> None:
        keys = [self.key() for _ in range(self.rng.randrange(1, 30))]
        found = self.store.get_many("t", keys, after=self.position, deadline_ms=30_000)
        assert [row and row.value for row in found] == [self.rows.get(key) for key in keys]

    def scan(self) -> None:
        reverse = self.rng.random() < 0.5
        if self.rng.random() < 0.5:
            prefix = self.key()[: self.rng.randrange(1, 7)]
            wanted = [item for item in sorted(self.rows.items(), reverse=reverse) if item[0].startswith(prefix)]
            found = self.store.scan("t", prefix=prefix, reverse=reverse, after=self.position, deadline_ms=30_000)
        else:
            start, end = sorted((self.key(), self.key()))
            wanted = [item for item in sorted(self.rows.items(), reverse=reverse) if start <= item[0] < end]
            found = self.store.scan("t", start=start, end=end, reverse=reverse, after=self.position, deadline_ms=30_000)
        assert [(row.key, row.value) for row in found] == wanted

    def all(self) -> None:
        """Everything, nothing more, in order."""
        found = [(row.key, row.value) for row in self.store.scan("t", after=self.position, deadline_ms=30_000)]
        assert found == sorted(self.rows.items())


def test_the_store_agrees_with_a_dict_through_restarts(tmp_path):
    seed = int(os.environ.get("LOGSTORE_MODEL_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed}: LOGSTORE_MODEL_SEED={seed} repeats it")
    rng = random.Random(seed)
    with running("dev", tmp_path / "store", "--http", "127.0.0.1:0") as dev:
        cli("table", "create", "t", "--partitions", "3", LOGSTORE_BOOTSTRAP=dev.bootstrap)
        with Store(dev.bootstrap, dev.url) as store:
            model = Model(store, rng)
            hurt_at = {
                STEPS * part // 6: what
                for part, what in enumerate(("worker", "reader", "worker", "reader", "worker"), 1)
            }
            for number in range(STEPS):
                if number in hurt_at:
                    dev.kill_one(f"{hurt_at[number]}s")
                try:
                    model.step()
                except BaseException as error:
                    error.add_note(f"seed {seed}, step {number}, last steps {list(model.steps)}")
                    raise
            model.all()
            rows = model.rows
    _after_a_clean_restart(Running("dev", tmp_path / "store", "--http", "127.0.0.1:0").ready(), rows)


def _after_a_clean_restart(dev: Running, rows: dict[bytes, bytes]) -> None:
    try:
        with Store(dev.bootstrap, dev.url) as store:
            assert [(row.key, row.value) for row in store.scan("t", deadline_ms=30_000)] == sorted(rows.items())
    finally:
        dev.stop()
