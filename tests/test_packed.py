"""Packed rows: siblings and cells in one entry, the same bytes whatever made the row; golden bytes."""

import random

import pytest
from support_hard import Log, Partition, wide
from support_stretch import StretchState, columns
from test_fold_rows import KEYS, Histories

from logstore.cli.table.families import families as families_said
from logstore.model.errors import BadDefinition, Corrupted, UsageError
from logstore.model.folding.entry import CELLS, SIBLINGS, TOMBSTONE, VALUE, Entry
from logstore.model.hard_rows.outcomes import InvalidOutcome
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.row import ABSENT, PLAIN_COLUMN, CellState, RowState
from logstore.model.table import Table, check_model, families_of

ONE, TWO = Entry(VALUE, 3, 1_000, b"one"), Entry(VALUE, 5, 1_001, b"two", 2_000)
SIDE_BY_SIDE = RowState({PLAIN_COLUMN: CellState(5, (ONE, TWO))}, {"": 5})
CELLS_OF_A_ROW = RowState(
    {("b", b"q"): CellState(5, (TWO,), (ONE,)), ("a", b"\xff"): CellState(3, (ONE,))}, {"bulk": 5, "": 3}
)
HEAD = "0000000000000005" + "0000000000000009"
PACKED_ONE, PACKED_TWO = "9403cd03e8c4036f6e65c0", "9405cd03e9c40374776fcd07d0"
GROUPS = "92" + "92a003" + "92a462756c6b05"


@pytest.mark.parametrize(
    ("row", "is_wide", "golden"),
    [
        (SIDE_BY_SIDE, False, f"02{HEAD}92{PACKED_ONE}{PACKED_TWO}"),
        (
            CELLS_OF_A_ROW, True,
            f"03{HEAD}93cd07d0{GROUPS}92" f"93a161c401ff91{PACKED_ONE}" f"93a162c4017192{PACKED_TWO}{PACKED_ONE}",
        ),
    ],
    ids=["siblings", "cells"],
)  # fmt: skip
def test_golden_bytes(row, is_wide, golden):
    assert pack_row(row, 5, 9, wide=is_wide).encode().hex() == golden
    assert unpack_row(Entry.decode(bytes.fromhex(golden))) == row


def test_a_row_of_one_value_keeps_the_entry_of_a_plain_table():
    row = RowState({PLAIN_COLUMN: CellState(3, (ONE,))}, {"": 3})
    assert pack_row(row, 3, 1_000, wide=False) == ONE
    assert unpack_row(ONE) == row
    assert pack_row(ABSENT, 7, 9, wide=False) == Entry(TOMBSTONE, 7, 9)
    assert unpack_row(Entry(TOMBSTONE, 7, 9)) is ABSENT


def test_one_sibling_that_a_delete_left_has_the_version_of_the_delete():
    row = RowState({PLAIN_COLUMN: CellState(9, (ONE,))}, {"": 9})
    entry = pack_row(row, 9, 9, wide=False)
    assert (entry.kind, entry.version) == (SIBLINGS, 9)
    assert unpack_row(entry) == row


@pytest.mark.parametrize("kind", [SIBLINGS, CELLS])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x91\xc0", b"\x01", b"\x91\x91\x01"])
def test_a_damaged_row_is_never_an_answer(kind, payload):
    with pytest.raises(Corrupted):
        unpack_row(Entry(kind, 5, 9, payload))


class PackedHistories(Histories):
    """Histories of tables whose rows are packed."""

    def __init__(self, seed, table):
        super().__init__(seed)
        self.rng, self.table = random.Random(seed), table
        self.rules = self._rules({"max_value_bytes": 20, "dedup_window_ms": 40, "dedup_records": 6})


@pytest.mark.parametrize("table", ["siblings", "wide", "multi-row"])
def test_a_log_cut_anywhere_folds_to_the_same_rows(table):
    for seed in range(120):
        histories = PackedHistories(seed, table)
        log, state, wanted = histories.log(40), StretchState(histories.rules), Partition(histories.rules)
        while state.next_offset < len(log.records):
            upto = min(state.next_offset + histories.rng.choice([1, 2, 5, 20, 40]), len(log.records))
            state.take(columns(log, state.next_offset, upto))
            wanted.take(log, upto)
            assert (state.log_time_ms, state.counter) == (wanted.log_time_ms, wanted.counter)
            found = {key: unpack_row(Entry.decode(raw)).at(state.log_time_ms) for key, raw in state.rows.items()}
            assert {key: row for key, row in found.items() if row.cells} == {
                key: row for key in wanted.rows if (row := wanted.row(key)).cells
            }, (seed, upto)


def test_a_row_that_grows_beyond_its_bytes_is_refused():
    partition, log = Partition(wide(max_row_bytes=300)), Log()
    for n in range(5):
        log.edit(KEYS[0], ["set", "b", b"q%d" % n, b"x" * 50])
    partition.take(log, 5)
    reasons = [one.outcome for one in partition.outcomes.values() if isinstance(one.outcome, InvalidOutcome)]
    assert reasons == [InvalidOutcome("row-too-wide")] * 2
    assert len(partition.row(KEYS[0]).cells) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"wide": True},
        {"siblings": True},
        {"conditional": True, "families": {"a": {}}},
        {"conditional": True, "multi_row": True},
        {"conditional": True, "wide": True, "siblings": True},
        {"conditional": True, "wide": True, "max_value_bytes": (4 << 20) + 1},
        {"conditional": True, "wide": True, "families": {"a:b": {}}},
        {"conditional": True, "wide": True, "families": {"a": {"versions": 0}}},
        {"conditional": True, "wide": True, "families": {"a": {"colour": 1}}},
        {"conditional": True, "wide": True, "families": {"a": {"ttl_ms": 1}}},
        {"conditional": True, "wide": True, "expiring": True, "families": {"a": {"ttl_ms": 0}}},
        {"conditional": True, "wide": True, "expiring": True, "families": {"a": {"ttl_ms": "7d"}}},
    ],
    ids=str,
)
def test_a_definition_whose_rows_cannot_be_is_refused(fields):
    with pytest.raises(BadDefinition):
        check_model(Table("t", "t", "e" * 32, 2, **fields))


def test_families_are_written_without_what_goes_without_saying():
    families = families_of({"content": {"versions": 3, "ttl_ms": 9}, "anchor": {"versions": 1, "ttl_ms": None}})
    assert families == {"content": {"versions": 3, "ttl_ms": 9}, "anchor": {}}
    assert families_of(["anchor"]) == {"anchor": {}}
    table = Table("t", "t", "e" * 32, 2, conditional=True, expiring=True, wide=True, families=families)
    check_model(table)
    assert Table.from_json(table.to_json()) == table
    for wrong in ("content", {"content": 3}):
        with pytest.raises(BadDefinition):
            families_of(wrong)


def test_the_command_reads_families_and_their_rules():
    found = families_said(("content:versions=3,ttl=7d", "anchor", "raw:ttl=90s", "title:ttl=none"), "--family")
    assert found == {
        "content": {"versions": 3, "ttl_ms": 7 * 86_400_000}, "anchor": {}, "raw": {"ttl_ms": 90_000},
        "title": {"ttl_ms": None},
    }  # fmt: skip
    for wrong in (("a", "a:versions=2"), ("a:colour=1",), ("a:versions=x",), ("a:ttl=soon",)):
        with pytest.raises(UsageError):
            families_said(wrong, "--family")
