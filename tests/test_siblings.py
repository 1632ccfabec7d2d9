"""Siblings: the store in memory, the fold of stretches and a plain reading of the definition agree on every history."""

from contextlib import nullcontext
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_stretch import StretchState

from logstore import MemoryStore, UsageError
from logstore.cli.table.lost_end import LostRow, lost_rows
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.model.folding.fold import Records
from logstore.model.hard_rows.packed import pack_row, side_by_side, unpack_row
from logstore.model.hard_rows.row import PLAIN_COLUMN, CellState, RowState
from logstore.model.hard_rows.rules import rules_of
from logstore.model.table import Table

TABLE = Table("carts", "carts", "ab" * 16, 1, 100, conditional=True, siblings=True)
WRITES = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b"]),
        st.none() | st.binary(max_size=40),
        st.none() | st.integers(-1, 30),
        st.booleans(),  # True: by the offset of what it says to have seen, if that is there
    ),
    max_size=30,
)


def simply_folded(writes):
    """The rows by the definition, one sentence after the other: key -> (row version, [(version, value)...])."""
    rows = {}
    for offset, (key, value, seen) in enumerate(writes):
        if seen is not None and seen >= offset:
            continue
        members = [] if seen is None else [one for one in rows.get(key, (0, []))[1] if one[0] > seen]
        members += [] if value is None else [(offset, value)]
        if len(members) <= 32 and sum(len(one) for _, one in members) <= TABLE.max_value_bytes:
            rows[key] = offset, members
    return {key: row for key, row in rows.items() if row[1]}


def folded(writes, cuts):
    """The same rows by the fold of the lane, in stretches that end at these offsets."""
    state = StretchState(rules_of(TABLE, 0))
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(writes)}), len(writes)]
    for first, after in pairwise(bounds):
        some = writes[first:after]
        headers = [None if seen is None else [("ls.seen", b"%d" % seen)] for *_, seen in some]
        state.take(
            Records(
                list(range(first, after)), [key for key, *_ in some], [value for _, value, _ in some],
                [1_000] * len(some), headers,
            )
        )  # fmt: skip
    return state


def read(state):
    entries = {key: Entry.decode(raw) for key, raw in state.rows.items()}
    return {key: (one.version, side_by_side(one, 0)[0]) for key, one in entries.items() if one.kind != TOMBSTONE}


@given(WRITES, st.lists(st.integers(1, 29), max_size=3))
def test_memory_fold_and_definition_agree(drawn, cuts):
    writes = [
        (key, value, min(seen, offset - 1) if seen is not None and is_known else seen)
        for offset, (key, value, seen, is_known) in enumerate(drawn)
    ]
    expected = simply_folded(writes)
    shown = {
        key: (version, members[0][1] if len(members) == 1 else tuple(members))
        for key, (version, members) in expected.items()
    }
    state = folded(writes, cuts)
    assert read(state) == shown
    assert folded(writes, []).rows == state.rows, "wherever stretches end, the bytes are the same"
    store = MemoryStore(clock_ms=lambda: 1_000)
    store.create("carts", partitions=1, max_value_bytes=100, siblings=True)
    for offset, (key, value, seen) in enumerate(writes):
        with pytest.raises(UsageError) if seen is not None and seen >= offset else nullcontext():
            store.delete("carts", key, seen=seen) if value is None else store.put("carts", key, value, seen=seen)
    rows = {row.key: (row.version, row.siblings) for row in store.scan("carts")}
    assert rows == {
        key: (version, tuple(members) if len(members) > 1 else ((version, members[0][1]),))
        for key, (version, members) in expected.items()
    }


def test_what_a_lost_end_took_is_told_value_by_value():
    old, new = Entry(VALUE, 3, 9, b"old"), Entry(VALUE, 7, 9, b"new")
    both = pack_row(RowState({PLAIN_COLUMN: CellState(7, (old, new))}, {"": 7}), 7, 9, wide=False)
    assert lost_rows(b"k", both, 5) == [LostRow(b"k", 7, b"new")]
    assert lost_rows(b"k", both, 3) == [LostRow(b"k", 3, b"old"), LostRow(b"k", 7, b"new")]
    assert lost_rows(b"k", both, 8) == []
    left = pack_row(RowState({PLAIN_COLUMN: CellState(7, (old,))}, {"": 7}), 7, 9, wide=False)
    assert unpack_row(left).version == 7
    assert lost_rows(b"k", left, 5) == [LostRow(b"k", 7, None)], "a delete that left others"
    cells = RowState({("f", b"q"): CellState(7, (new,), (old,)), ("g", b"q"): CellState(3, (old,))}, {"": 7})
    assert lost_rows(b"k", pack_row(cells, 7, 9, wide=True), 5) == [LostRow(b"k", 7, b"new", "f:q")]
    assert [one.document() for one in lost_rows(b"k", new, 7)] == [{"key": "k", "version": 7, "value": "new"}]
    assert lost_rows(b"k", Entry(TOMBSTONE, 7, 9), 5) == [LostRow(b"k", 7, None)]
