"""One hot counter while workers, readers and the broker are killed: every increment counts once."""

import os
import random
import signal
import threading
from pathlib import Path

import orjson
import pytest
from support_log import until
from support_store import Running, cli, running

from logstore import Outcome, Store
from logstore.model.errors import Unknown

THREADS = 8


class Counting(threading.Thread):
    """Increments one row so many times; of what is unknown it learns by the id whether it counted."""

    def __init__(self, store: Store, increments: int) -> None:
        super().__init__(daemon=True)
        self._store, self._left = store, increments
        self.counted = self.unknown = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while self._left:
                self._left -= 1
                self.counted += self._increment()
        except BaseException as error:
            self.error = error

    def _increment(self) -> bool:
        try:
            return self._store.incr("counters", "hot").applied
        except Unknown as error:
            self.unknown += 1
            unknown = error
        return until("the write is in the log", lambda: self._resolved(unknown), 120).applied

    def _resolved(self, unknown: Unknown) -> Outcome | None:
        assert unknown.id is not None
        return self._store.outcome_of("counters", "hot", unknown.id, consistency="linearizable", deadline_ms=20_000)


@pytest.mark.parametrize(
    "increments", [pytest.param(160, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.long)]
)
def test_a_hot_counter_is_exact_whatever_is_killed(tmp_path, increments):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with running("dev", tmp_path / "store", "--http", "127.0.0.1:0", "--workers", "2", "--readers", "2") as dev:
        cli("table", "create", "counters", "--partitions", "2", "--conditional", LOGSTORE_BOOTSTRAP=dev.bootstrap)
        with Store(dev.bootstrap, dev.url, delivery_timeout_s=90) as store:
            threads = [Counting(store, increments // THREADS) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            kinds = ["workers", "readers", "kafka", "workers"]
            rng.shuffle(kinds)
            for kind in kinds:
                _kill(dev, kind, rng)
            for thread in threads:
                thread.join(300)
                assert not thread.is_alive()
            assert [thread.error for thread in threads] == [None] * THREADS
            row = store.get("counters", "hot", consistency="linearizable", deadline_ms=20_000)
        assert int.from_bytes(row.value, signed=True) == sum(thread.counted for thread in threads) == increments


def _kill(dev: Running, kind: str, rng: random.Random) -> None:
    if kind != "kafka":
        dev.kill_one(kind, rng.randrange(2))
        return
    before = _kafka(dev.data_dir)
    os.kill(before, signal.SIGKILL)
    until("kafka is back", lambda: _kafka(dev.data_dir) not in (None, before))


def _kafka(data_dir: Path) -> int | None:
    return orjson.loads((data_dir / "run" / "node.json").read_bytes())["kafka"]
