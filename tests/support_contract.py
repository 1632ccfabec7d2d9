"""What every store does, whatever is behind it: each function is a test of one, which gets a way to make tables."""

from typing import NamedTuple

import pytest

from logstore import ConsistencyTimeout, NoSuchTable, Position, Row, UsageError
from logstore.model.errors import BadKey, BadToken, ValueTooLarge

DEADLINE_MS = 30_000
SPARE = [b"", b"\0", b"a", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"]


class Under(NamedTuple):
    """A store under test."""

    store: object
    make: object  # (**limits) -> the name of a new table
    alter: object = None  # (table, **families), where tables of the store can be altered

    def get(self, table, key, **more):
        return self.store.get(table, key, deadline_ms=DEADLINE_MS, **more)

    def scan(self, table, **more):
        return [row.key for row in self.store.scan(table, deadline_ms=DEADLINE_MS, **more)]


def a_write_is_read_after_its_position(under):
    table = under.make()
    position = under.store.put(table, "ada", "1815")
    row = under.get(table, b"ada", after=position)
    assert row == Row(b"ada", b"1815", position.offset, position.partition, row.token, "view")
    assert row.position.covers(position)
    assert under.get(table, "ada", after=position.token) == row


def a_deleted_row_and_one_never_written_are_alike(under):
    table = under.make()
    under.store.put(table, "ada", "1815")
    position = under.store.delete(table, "ada")
    assert under.get(table, "ada", after=position) is None
    assert under.get(table, "nobody", after=position) is None


def an_empty_value_is_a_value(under):
    table = under.make()
    assert under.get(table, "ada", after=under.store.put(table, "ada", "")).value == b""


def versions_of_a_row_rise(under):
    table = under.make()
    versions = [under.store.put(table, "ada", str(n)).offset for n in range(3)]
    assert versions == sorted(set(versions))
    assert under.store.put(table, "ada", "last").partition == under.store.delete(table, "ada").partition


def many_are_written_in_their_order(under):
    table = under.make()
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), (b"c", "4"), ("c", None)]
    position = under.store.put_many(table, pairs)
    rows = under.store.get_many(table, ["b", "a", "c", "a"], after=position, deadline_ms=DEADLINE_MS)
    assert [row and row.value for row in rows] == [b"2", b"3", None, b"3"]
    position |= under.store.put_many(table, {"ab": "items of a mapping"})
    assert under.get(table, "ab", after=position).value == b"items of a mapping"
    assert under.scan(table, after=position) == [b"a", b"ab", b"b"]


def nothing_is_written_of_many_with_one_that_cannot_be(under):
    table = under.make(max_value_bytes=5)
    for bad in ([("a", "1"), ("", "2")], [("a", "1"), ("b", "too long")], [("a", "1"), "bc"], ["ab"], "ab", [("a",)]):
        with pytest.raises(UsageError):
            under.store.put_many(table, bad)
    assert under.scan(table, after=under.store.put(table, "z", "")) == [b"z"]
    assert under.store.put_many(table, []) == Position()


def rows_come_in_the_order_of_their_bytes(under):
    table = under.make(partitions=5)
    keys = [key for key in SPARE if key]
    position = under.store.put_many(table, [(key, key) for key in reversed(keys)])
    keys.sort()
    assert under.scan(table, after=position) == keys
    assert under.scan(table, after=position, reverse=True) == keys[::-1]
    assert under.scan(table, after=position, limit=2, reverse=True) == keys[:-3:-1]
    for bound in SPARE:
        assert under.scan(table, after=position, prefix=bound) == [key for key in keys if key.startswith(bound)], bound
        assert under.scan(table, after=position, start=bound) == [key for key in keys if key >= bound], bound
        if bound:
            assert under.scan(table, after=position, end=bound) == [key for key in keys if key < bound], bound
    rows = list(under.store.scan(table, after=position, keys_only=True, deadline_ms=DEADLINE_MS))
    assert {row.value for row in rows} == {b""}
    assert all(row.position.covers(position) for row in rows)


def what_is_not_there_yet_is_never_answered_with_something_older(under):
    table = under.make()
    position = under.store.put(table, "ada", "1815")
    ((where, following),) = position.pieces.items()
    with pytest.raises(ConsistencyTimeout):
        under.store.get(table, "ada", after=Position({where: following + 5}), deadline_ms=300)
    with pytest.raises(ConsistencyTimeout):
        under.store.get(table, "ada", after="0" * 32 + "-0-1", deadline_ms=300)
    with pytest.raises(ConsistencyTimeout):  # of a table that may have been made just now
        under.store.get("none", "k", after="0" * 32 + "-0-1", deadline_ms=300)
    elsewhere = where[0], (where[1] + 1) % 4
    assert under.get(table, "ada", after=Position({elsewhere: 5})).value == b"1815", "that one is not read"


def a_read_as_of_a_position_sees_what_held_there(under):
    table = under.make(partitions=1)
    first = under.store.put(table, "ada", "1815")
    row = under.get(table, "ada", as_of=first)
    assert (row.value, row.version) == (b"1815", first.offset)
    with pytest.raises(BadToken):
        under.get(table, "ada", as_of=Position({(next(iter(first.pieces))[0], 77): 1}))


def what_was_acknowledged_is_read_at_the_levels_that_promise_it(under):
    table = under.make()
    for number, level in enumerate([{"consistency": "latest"}, {"consistency": "linearizable"}, {"max_lag_ms": 0}]):
        value = str(number).encode()
        position = under.store.put(table, "ada", value)
        assert under.get(table, "ada", **level).value == value
        assert under.get(table, "ada", after=position, **level).value == value
        under.store.put(table, "bob", value)
        rows = under.store.get_many(table, ["bob", "ada"], deadline_ms=DEADLINE_MS, **level)
        assert [row.value for row in rows] == [value, value]
        under.store.put(table, f"new{number}", value)
        assert f"new{number}".encode() in under.scan(table, **level)


def what_is_wrong_is_refused_at_once(under):
    store, table = under.store, under.make(max_value_bytes=5)
    wrong = [
        (BadKey, lambda: store.put(table, "", "v")), (BadKey, lambda: store.get(table, b"k" * 65_536)),
        (ValueTooLarge, lambda: store.put(table, "k", "123456")), (UsageError, lambda: store.put(table, "k", None)),
        (UsageError, lambda: store.put(table, 5, "v")), (UsageError, lambda: store.put(table, "k", 5)),
        (UsageError, lambda: store.put(table, "k", "v", headers={"ls.id": b""})),
        (UsageError, lambda: store.put(table, "k", "v", headers=[("a", b"")])),
        (UsageError, lambda: store.get_many(table, "ab")), (UsageError, lambda: store.get_many(table, {"a"})),
        (UsageError, lambda: store.get(table, "k", deadline_ms=0)),
        (UsageError, lambda: store.get(table, "k", after="x" * 32 + "-0-1", as_of="y")),
        (BadToken, lambda: store.get(table, "k", after="no token")),
        (UsageError, lambda: store.get(table, "k", as_of="no token")),
        (UsageError, lambda: store.get(table, "k", consistency="strong")),
        (UsageError, lambda: store.get(table, "k", consistency=1)),
        (UsageError, lambda: store.get(table, "k", consistency="bounded")),
        (UsageError, lambda: store.get_many(table, ["k"], consistency="latest", max_lag_ms=5)),
        (UsageError, lambda: store.scan(table, max_lag_ms=-1)),
        (UsageError, lambda: store.scan(table, max_lag_ms=True)),
        (UsageError, lambda: store.get(table, "k", consistency="session")),
        (UsageError, lambda: store.get(table, "k", consistency="eventual", after="x" * 32 + "-0-1")),
        (UsageError, lambda: store.get(table, "k", consistency="latest", as_of="x" * 32 + "-0-1")),
        (BadToken, lambda: store.get(table, "k", consistency="latest", after="no token")),
        (UsageError, lambda: list(store.scan(table, prefix="a", start="b"))),
        (UsageError, lambda: list(store.scan(table, limit=0))),
        (UsageError, lambda: store.flush(-1)), (UsageError, lambda: store.pipeline("")),
        (NoSuchTable, lambda: store.get("none", "k")), (NoSuchTable, lambda: store.put("none", "k", "v")),
        (NoSuchTable, lambda: list(store.scan("none"))), (NoSuchTable, lambda: store.pipeline("none")),
    ]  # fmt: skip
    for error, call in wrong:
        with pytest.raises(error):
            call()


def a_pipeline_writes_without_waiting_for_each(under):
    table, done = under.make(), []
    with under.store.pipeline(table) as pipeline:
        first = pipeline.put("a", "1")
        first.add_done_callback(done.append)
        last = pipeline.delete("a")
        pipeline.put(b"b", b"2", headers={"by": "me"})
        pipeline.flush(60)
        assert (first.done(), first.exception(), done, pipeline.count) == (True, None, [first], 3)
        assert last.result().offset == first.result().offset + 1
    with pytest.raises(UsageError):
        pipeline.put("c", "3")
    assert under.scan(table, after=last.result(), prefix="a") == []
    assert under.store.flush(60) == 0


CONTRACT = [
    a_write_is_read_after_its_position, a_deleted_row_and_one_never_written_are_alike, an_empty_value_is_a_value,
    versions_of_a_row_rise, many_are_written_in_their_order, nothing_is_written_of_many_with_one_that_cannot_be,
    rows_come_in_the_order_of_their_bytes, what_is_not_there_yet_is_never_answered_with_something_older,
    a_read_as_of_a_position_sees_what_held_there, what_is_wrong_is_refused_at_once,
    what_was_acknowledged_is_read_at_the_levels_that_promise_it,
    a_pipeline_writes_without_waiting_for_each,
]  # fmt: skip
