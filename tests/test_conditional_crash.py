"""One hot counter while workers, readers and the broker are killed: every increment counts once; and a shopping cart
with siblings, into which several put at a time: no item is lost.
"""

import os
import random
import signal
import threading
from pathlib import Path

import orjson
import pytest
from support_log import until
from support_store import Running, cli, running

from logstore import LogStoreError, Outcome, Row, Store
from logstore.model.errors import LogUnreachable, Unknown

THREADS, SHOPPERS = 8, 3


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
        found = until("the write is taken", self._tried, 120)
        if isinstance(found, Outcome):
            return found.applied
        self.unknown += 1
        return until("the write is in the log", lambda: self._resolved(found), 120).applied

    def _tried(self) -> Outcome | Unknown | None:
        """What became of an increment; None: Kafka was away before it was written."""
        try:
            return self._store.incr("counters", "hot")
        except Unknown as error:
            return error
        except LogUnreachable:
            return None

    def _resolved(self, unknown: Unknown) -> Outcome | None:
        assert unknown.id is not None
        return self._store.outcome_of("counters", "hot", unknown.id, consistency="linearizable", deadline_ms=20_000)


class Shopping(threading.Thread):
    """Puts items into one cart, each time into what it has read, whoever else does so; nobody is refused."""

    def __init__(self, store: Store, items: list[str]) -> None:
        super().__init__(daemon=True)
        self._session, self._items = store.session(), items  # which reads what it wrote: else values would pile up
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for item in self._items:
                seen, items = until("the cart is read", self._read, 120)
                content = orjson.dumps(sorted({*items, item}))
                until("the item is in the cart", lambda content=content, seen=seen: self._put(content, seen), 120)
        except BaseException as error:
            self.error = error

    def _read(self) -> tuple[int, set[str]] | None:
        try:
            return cart_of(self._session.get("carts", "cart", deadline_ms=5_000))
        except LogStoreError as error:
            if not error.retriable:
                raise
            return None

    def _put(self, content: bytes, seen: int) -> bool:
        try:
            return bool(self._session.put("carts", "cart", content, seen=seen))
        except LogStoreError as error:
            if not (error.retriable or isinstance(error, Unknown)):
                raise
            return False  # once more: at worst the same value stands there twice, until somebody merges


def cart_of(row: Row | None) -> tuple[int, set[str]]:
    """The version of a cart, and the items of all its values."""
    if row is None:
        return -1, set()
    return row.version, {item for one in row.siblings for item in orjson.loads(one.value)}


@pytest.mark.parametrize(
    "increments", [pytest.param(160, id="short"), pytest.param(1_000, id="long", marks=pytest.mark.long)]
)
def test_a_hot_counter_is_exact_and_a_cart_loses_nothing_whatever_is_killed(tmp_path, increments):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with running("dev", tmp_path / "store", "--http", "127.0.0.1:0", "--workers", "2", "--readers", "2") as dev:
        cli("table", "create", "counters", "--partitions", "2", "--conditional", LOGSTORE_BOOTSTRAP=dev.bootstrap)
        cli("table", "create", "carts", "--partitions", "2", "--siblings", LOGSTORE_BOOTSTRAP=dev.bootstrap)
        items = [[f"{shopper}-{n}" for n in range(increments // 10)] for shopper in range(SHOPPERS)]
        with Store(dev.bootstrap, dev.url, delivery_timeout_s=90) as store:
            threads = [Counting(store, increments // THREADS) for _ in range(THREADS)]
            shoppers = [Shopping(store, some) for some in items]
            for thread in (*threads, *shoppers):
                thread.start()
            kinds = ["workers", "readers", "kafka", "workers"]
            rng.shuffle(kinds)
            for kind in kinds:
                _kill(dev, kind, rng)
            for thread in (*threads, *shoppers):
                thread.join(300)
                assert not thread.is_alive()
            assert [thread.error for thread in (*threads, *shoppers)] == [None] * (THREADS + SHOPPERS)
            row = store.get("counters", "hot", consistency="linearizable", deadline_ms=20_000)
            _, cart = cart_of(store.get("carts", "cart", consistency="linearizable", deadline_ms=20_000))
            assert cart == {item for some in items for item in some}
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
