"""Ends of values inside packed rows: what is seen at a log time, in digests, views and forks; golden bytes."""

import random

import pytest
from support_hard import Log, wide
from support_stretch import StretchState, columns
from test_expiry import EXPIRING, A, B, Below
from test_packed import HEAD, PackedHistories

from logstore.model.errors import Corrupted
from logstore.model.folding.difference import StateBelow, digest_upon, ended
from logstore.model.folding.digest import TOMBSTONES, digest
from logstore.model.folding.entry import CELLS, SIBLINGS, TOMBSTONE, VALUE, Entry, has_ended
from logstore.model.folding.packed_values import seen_at
from logstore.model.hard_rows.changes.fork import forked
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.row import PLAIN_COLUMN, CellState, RowState
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.wide.selection import CellSelection
from logstore.view.conditional.state_before import ViewState
from logstore.view.view import View

STAYS, ENDS, ENDS_LATER = (
    Entry(VALUE, 3, 1_000, b"one"), Entry(VALUE, 4, 1_001, b"two", 2_000), Entry(VALUE, 5, 1_001, b"six", 70_000)
)  # fmt: skip


def cells(**named):
    return RowState({("a", name.encode()): CellState(one[0].version, one[:1], one[1:]) for name, one in named.items()},
                    {"": 5})  # fmt: skip


def siblings(*members):
    return RowState({PLAIN_COLUMN: CellState(5, members)}, {"": 5})


def test_golden_bytes_of_cells_that_end():
    raw = pack_row(cells(q=(ENDS_LATER, ENDS)), 5, 9, wide=True).encode()
    values = "9405cd03e9c403736978ce00011170" + "9404cd03e9c40374776fcd07d0"
    assert raw.hex() == f"83{HEAD}" + "0000000000011170" + "93cd07d0" + "9192a005" + f"9193a161c4017192{values}"
    left = "9405cd03e9c403736978ce00011170"
    assert seen_at(raw, 2_000).hex() == f"83{HEAD}0000000000011170" + "93ce00011170" + f"9192a0059193a161c4017191{left}"


@pytest.mark.parametrize(
    ("row", "end"),
    [
        (cells(q=(STAYS,), r=(ENDS,)), None), (cells(q=(ENDS, STAYS), r=(ENDS_LATER,)), 70_000),
        (siblings(STAYS, ENDS), None), (siblings(ENDS, ENDS_LATER), 70_000),
    ],
    ids=["a cell stays", "all cells end", "a sibling stays", "all siblings end"],
)  # fmt: skip
def test_an_entry_of_several_values_ends_with_the_last_of_them(row, end):
    entry = pack_row(row, 5, 9, wide=PLAIN_COLUMN not in row.cells)
    assert entry.expires_ms == end
    raw = entry.encode()
    assert seen_at(raw, 1_999) is raw
    assert (seen_at(raw, 70_000) is None) == (end is not None)


def test_one_sibling_that_is_left_alone_is_the_entry_of_its_own_put():
    raw = pack_row(siblings(ENDS, ENDS_LATER), 5, 9, wide=False).encode()
    assert Entry.decode(seen_at(raw, 2_000)) == ENDS_LATER
    older = pack_row(siblings(ENDS, STAYS._replace(version=4)), 5, 9, wide=False).encode()
    assert Entry.decode(seen_at(older, 2_000)).kind == SIBLINGS, "a delete, or one that ended, has changed the row last"


@pytest.mark.parametrize("kind", [SIBLINGS, CELLS])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x93\x01", b"\x91\xc0", b"\x91\x91\x01"])
def test_a_damaged_row_is_seen_by_nobody(kind, payload):
    raw = Entry(kind, 5, 9, payload).encode()
    if kind == CELLS and payload[:1] != b"\x93" and payload:
        assert seen_at(raw, 10_000) is raw, "nothing in it says that it ends"
        return
    with pytest.raises(Corrupted):
        seen_at(raw, 10_000)


@pytest.mark.parametrize("table", ["siblings", "wide", "multi-row"])
def test_what_is_seen_at_a_time_is_the_row_without_what_has_ended_whenever_its_bytes_go(table):
    met = {"part": 0, "whole": 0}
    for seed in range(120):
        histories, rng = PackedHistories(seed, table), random.Random(seed)
        state = StretchState(histories.rules)
        state.take(columns(histories.log(40), 0, 40))
        for raw in state.rows.values():
            now_ms, later_ms = sorted(rng.randrange(1_000, 1_150) for _ in "ab")
            entry = Entry.decode(raw)
            row = unpack_row(entry).at(now_ms)
            seen = seen_at(raw, now_ms)
            if entry.kind == TOMBSTONE:
                continue
            if not row.cells:
                assert seen is None
                met["whole"] += 1
                continue
            assert seen == pack_row(row, entry.version, entry.timestamp_ms, wide=histories.rules.wide).encode()
            assert seen_at(seen, now_ms) is seen
            assert seen_at(seen, later_ms) == seen_at(raw, later_ms)
            met["part"] += seen is not raw
    assert min(met.values()) > 5, met


def seen(rows, now_ms):
    found = {key: seen_at(raw, now_ms) for key, raw in rows.items() if raw[0] not in TOMBSTONES}
    return {key: raw for key, raw in found.items() if raw is not None}


@pytest.mark.parametrize("table", ["siblings", "wide"])
def test_a_digest_by_difference_counts_each_row_as_it_is_seen(table):
    for seed in range(60):
        rng = random.Random(seed)

        def rows(first, count, rng=rng):
            return {
                b"%02d" % rng.randrange(30): pack_row(
                    several(rng, first + n, wide=table == "wide"), first + n, 9, wide=table == "wide"
                ).encode()
                for n in range(count)
            }

        now_ms = rng.choice([50, 90, 150])
        below = seen(rows(0, 20), 50)
        newer = dict(sorted(rows(100, rng.choice([0, 1, 15])).items()))
        state = StateBelow(Below(below), digest(below.items()), len(below), now_ms)
        assert digest_upon(newer.items(), len(newer), state) == digest(seen(below | newer, now_ms).items())


def several(rng, version, *, wide):
    """A row of some values, each of which may end."""
    values = [Entry(VALUE, version, 9, b"v", rng.choice([None, rng.randrange(40, 200)])) for _ in range(2)]
    if not wide:
        return RowState({PLAIN_COLUMN: CellState(version, tuple(values))}, {"": version})
    named = {("a", b"%d" % n): CellState(version, (one,)) for n, one in enumerate(values)}
    return RowState(named, {"": version})


def test_a_fork_begins_with_the_newest_values_at_offset_0_and_they_end_as_much_later():
    raw = pack_row(cells(q=(ENDS_LATER, ENDS), r=(STAYS,)), 5, 9, wide=True).encode()
    zero = [one._replace(version=0) for one in (ENDS_LATER._replace(expires_ms=70_007), STAYS)]
    wanted = RowState({("a", b"q"): CellState(0, (zero[0],)), ("a", b"r"): CellState(0, (zero[1],))}, {"": 0})
    entry = Entry.decode(forked(raw, 7))
    assert (entry.version, entry.timestamp_ms, unpack_row(entry)) == (0, 9, wanted)
    both = Entry.decode(forked(pack_row(siblings(STAYS, ENDS), 5, 9, wide=False).encode(), 0))
    assert unpack_row(both) == RowState(
        {PLAIN_COLUMN: CellState(0, (STAYS._replace(version=0), ENDS._replace(version=0)))}, {"": 0}
    )
    alone = pack_row(RowState({PLAIN_COLUMN: CellState(5, (STAYS,))}, {"": 5}), 5, 9, wide=False)
    assert alone.kind == SIBLINGS, "a delete has taken its siblings"
    assert forked(alone.encode(), 0) == STAYS._replace(version=0).encode()
    assert forked(ENDS.encode(), 2**63) == ENDS._replace(version=0, expires_ms=2**63 - 1).encode()


@pytest.mark.parametrize("table", ["siblings", "wide"])
@pytest.mark.parametrize("seed", range(12))
def test_a_view_sees_of_each_row_what_the_fold_leaves_of_it(tmp_path, table, seed):
    histories = PackedHistories(seed, table)
    log, state, view = histories.log(60), StretchState(histories.rules), View(tmp_path / "view", EXPIRING)
    while view.next_offset < 60:
        records = columns(log, view.next_offset, min(view.next_offset + histories.rng.choice([1, 3, 20]), 60))
        start = StretchStart(view.next_offset, view.state.log_time_ms, view.counter)
        view.apply(fold_stretch(records, histories.rules, start, ViewState(view.reader(), lambda: None)))
        state.take(records)
        now_ms = state.log_time_ms
        with view.reader().reading() as reading:
            stored = dict(reading.scan())
        assert seen(stored, now_ms) == seen(state.rows, now_ms)
        assert digest(ended(stored.items(), now_ms)) == digest(seen(state.rows, now_ms).items())
        kept = [raw for raw in stored.values() if raw[0] not in TOMBSTONES and has_ended(raw, now_ms)]
        assert kept == [], "the bytes of rows that have ended whole are taken back"
    view.close()


def test_the_next_write_to_a_row_drops_what_has_ended_in_it():
    state = StretchState(wide())
    log = Log().edit(A, ["set", "b", "stays", "1"], ["set", "b", "ends", "2", 10], timestamp=100)
    log.put(B, b"1", timestamp=200).edit(A, ["set", "b", "more", "3"], timestamp=150)
    state.take(columns(log, 0, 2))
    assert len(unpack_row(Entry.decode(state.rows[A])).cells) == 2
    assert len(unpack_row(Entry.decode(seen_at(state.rows[A], state.log_time_ms))).cells) == 1
    state.take(columns(log, 2, 3))
    assert sorted(unpack_row(Entry.decode(state.rows[A])).cells) == [("b", b"more"), ("b", b"stays")]


def test_a_read_selects_the_same_cells_whether_or_not_the_bytes_of_what_has_ended_are_there():
    met = 0
    for seed in range(120):
        state = StretchState(PackedHistories(seed, "wide").rules)
        state.take(columns(PackedHistories(seed, "wide").log(40), 0, 40))
        for raw in state.rows.values():
            now_ms = random.Random(seed).randrange(1_000, 1_150)
            left = seen_at(raw, now_ms)
            if raw[0] in TOMBSTONES or left is None:
                continue
            for versions in (1, 2, 3):
                select = CellSelection((), versions)
                whole, rest = (select.of(Entry.decode(one).payload, now_ms) for one in (raw, left))
                assert (whole.cells, whole.ends_ms) == (rest.cells, rest.ends_ms)
            met += left is not raw
    assert met > 5


def test_of_the_newest_versions_those_count_that_have_not_ended():
    row = cells(q=(ENDS_LATER, ENDS, STAYS))
    payload = pack_row(row, 5, 9, wide=True).payload
    assert [one.value for one in CellSelection((), 2).of(payload, 2_000).cells] == [b"six", b"one"]
