"""The store in memory: what every store does, and what only this one can show."""

import inspect
import threading
from datetime import UTC, datetime

import pytest
from support_change_rules import CHANGES
from support_conditional import CONDITIONAL
from support_contract import CONTRACT, Under
from support_siblings import SIBLINGS
from support_wait import until
from support_wide import WIDE

import logstore
from logstore import MemoryStore, Store, UsageError
from logstore.model.errors import BadDefinition, TableExists


@pytest.fixture
def under():
    store, names = MemoryStore(), iter(range(100))

    def make(**limits):
        name = f"t{next(names)}"
        store.create(name, **limits)
        return name

    return Under(store, make, store.alter)


@pytest.mark.parametrize("rule", [*CONTRACT, *CONDITIONAL, *SIBLINGS, *WIDE, *CHANGES], ids=lambda rule: rule.__name__)
def test_it_does_what_every_store_does(rule, under):
    rule(under)


PUBLIC = [
    "put", "delete", "put_many", "put_if", "delete_if", "cas", "incr", "append", "edit", "edit_rows", "outcome_of",
    "history", "changes", "pipeline", "get", "get_row", "get_rows", "scan_rows",
    "get_many", "scan",
    "session", "table", "flush", "close",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_its_methods_take_what_those_of_the_store_take(name):
    here, there = (inspect.signature(getattr(kind, name)) for kind in (MemoryStore, Store))
    assert list(here.parameters.values()) == list(there.parameters.values())


def test_it_has_all_methods_that_programs_call():
    inside = {
        "after_fork", "acknowledged", "ask_again", "check_takes", "check_open", "decide", "forget", "moved",
        "need_url", "proved", "check_level", "producer_at", "archived_changes",
    }  # fmt: skip
    public = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert public - inside == set(PUBLIC)


def test_everything_is_retained():
    now = iter(range(1_000_000, 9_000_000, 1_000))
    store = MemoryStore(["t"], clock_ms=lambda: next(now))
    positions = [store.put("t", "ada", str(n)) for n in range(3)]
    positions.append(store.delete("t", "ada"))
    assert [(row := store.get("t", "ada", as_of=at)) and row.value for at in positions] == [b"0", b"1", b"2", None]
    assert store.get("t", "ada", as_of=datetime.fromtimestamp(1_001.5, UTC)).value == b"1"
    assert [row.value for row in store.scan("t", as_of="1970-01-01T00:16:42Z")] == [b"2"]
    with pytest.raises(UsageError):
        store.get("t", "ada", as_of=datetime(2100, 1, 1, tzinfo=UTC))


def test_a_table_is_made_once_and_within_its_limits():
    store = MemoryStore("users")
    assert repr(store) == "MemoryStore(['users'])"
    with pytest.raises(TableExists):
        store.create("users")
    for name, limits in (("Users", {}), ("logstore.x", {}), ("t", {"partitions": 0}), ("t", {"max_value_bytes": 0})):
        with pytest.raises(BadDefinition):
            store.create(name, **limits)


def test_a_feed_waits_for_what_another_thread_writes_and_ends_with_the_store():
    store, found, ended = MemoryStore(["t"]), [], []
    events = store.changes("t")

    def consume():
        try:
            for event in events:
                found.append(event)  # noqa: PERF402 - each as it comes: another thread looks
        except UsageError as error:
            ended.append(str(error))

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    for n in range(50):
        store.put("t", f"k{n}", str(n))
    until("it has all of them", lambda: len(found) == 50)
    store.close()
    consumer.join(30)
    assert ["closed" in text for text in ended] == [True]
    assert sorted(event.key for event in found) == sorted(b"k%d" % n for n in range(50))


def test_a_time_stands_for_the_changes_after_it():
    now = iter(range(1_000_000, 9_000_000, 1_000))
    store = MemoryStore(clock_ms=lambda: next(now))
    store.create("t", partitions=1)
    store.put_many("t", {"a": "1", "b": "2", "c": "3"})
    found = store.changes("t", since="1970-01-01T00:16:41Z", follow=False)
    assert [(event.key, event.timestamp_ms) for event in found] == [(b"c", 1_002_000)]


def test_a_closed_store_takes_no_call():
    with MemoryStore(["t"]) as store:
        store.put("t", "a", "1")
    for call in (lambda: store.get("t", "a"), lambda: store.put("t", "a", "2"), lambda: list(store.scan("t"))):
        with pytest.raises(UsageError):
            call()
    assert repr(store) == "MemoryStore(['t'], closed)"


def test_many_threads_write_every_record_once():
    store = MemoryStore()
    store.create("t", partitions=1)

    def write(name):
        for n in range(200):
            store.put("t", f"{name}-{n}", str(n))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(store.scan("t"))
    assert len(rows) == 1_600
    assert sorted(row.version for row in rows) == list(range(1_600))


def test_it_is_a_name_of_the_package():
    assert logstore.MemoryStore is MemoryStore
