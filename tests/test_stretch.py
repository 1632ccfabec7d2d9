"""Stretches of a conditional table: wherever the log is cut, the state is that of the fold record by record."""

import random

import pytest
from support_hard import Log, Partition, kv, wide
from support_stretch import StretchState, columns
from test_fold_rows import Histories

from logstore.model.folding.entry import Entry
from logstore.model.folding.fold import Records, fold_batch
from logstore.model.folding.mutation import REASONS, Refused
from logstore.model.hard_rows.encoding import decode_id, decode_outcome, first_of
from logstore.model.hard_rows.outcomes import (
    AppliedOutcome,
    DuplicateOutcome,
    InvalidOutcome,
    RejectedOutcome,
    is_remembered,
)  # fmt: skip
from logstore.model.partitioner import partition_of

KEYS = [key for key in (b"row-%d" % n for n in range(40)) if partition_of(key, 2) == 0][:6]
A, B = KEYS[:2]
ID = b"i" * 16


class KvHistories(Histories):
    """Histories of a conditional table: plain puts and deletes, and hard ones of a few rows among them."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.table = "kv"
        self.rules = kv(max_value_bytes=12, dedup_window_ms=40, dedup_records=6)

    def log(self, length):
        log = super().log(length)
        return Log([self._plainer(one) for one in log.records])

    def _plainer(self, record):
        kept = {name: raw for name, raw in record.headers.items() if name in ("ls.id", "ls.if")}
        if self.rng.random() < 0.5:
            return record._replace(key=self.rng.choice(KEYS), operation="put", value=b"plain", headers={}, said=False)
        return record._replace(headers=kept)


@pytest.mark.parametrize("seeds", [range(first, first + 100) for first in range(0, 300, 100)], ids=lambda one: one[0])
def test_a_log_cut_anywhere_folds_to_the_same_state(seeds):
    for seed in seeds:
        histories = KvHistories(seed)
        log, state, wanted = histories.log(40), StretchState(histories.rules), Partition(histories.rules)
        while state.next_offset < len(log.records):
            upto = min(state.next_offset + histories.rng.choice([1, 2, 5, 20, 40]), len(log.records))
            state.take(columns(log, state.next_offset, upto))
            wanted.take(log, upto)
            assert (state.next_offset, state.log_time_ms, state.counter) == (
                wanted.next_offset, wanted.log_time_ms, wanted.counter,
            )  # fmt: skip
            assert rows_of(state) == {
                key: (cell.version, cell.members[0].payload) for key in KEYS if (cell := wanted.cell(key)) is not None
            }, (seed, upto)
            assert outcomes_of(state) == wanted.outcomes
            assert {
                name: decode_id(raw, decode_outcome(state.outcomes[first_of(raw)])) for name, raw in state.named.items()
            } == wanted.ids
        listed = [one for one in state.quarantined if one[1] not in REASONS]
        assert listed == invalid_without_id(log, wanted.outcomes), seed


def invalid_without_id(log, outcomes):
    found = [(offset, one.outcome) for offset, one in sorted(outcomes.items())]
    return [
        (offset, outcome.reason)
        for offset, outcome in found
        if isinstance(outcome, InvalidOutcome) and "ls.id" not in log.records[offset].headers
    ]


def rows_of(state):
    found = {key: Entry.decode(raw) for key, raw in state.rows.items()}
    return {key: (one.version, one.payload) for key, one in found.items() if one.kind == 0}


def outcomes_of(state):
    return {offset: decode_outcome(raw) for offset, raw in state.outcomes.items()}


def test_histories_meet_every_outcome_of_such_a_table():
    met = set()
    for seed in range(150):
        histories = KvHistories(seed)
        state = StretchState(histories.rules)
        state.take(columns(histories.log(40), 0, 40))
        for one in outcomes_of(state).values():
            met.add((type(one.outcome), *([one.outcome.reason] if isinstance(one.outcome, InvalidOutcome) else [])))
    reasons = {"id-reused", "not-wide", "wrong-length", "overflow", "too-large"}
    assert met == {
        (AppliedOutcome,),
        (RejectedOutcome,),
        (DuplicateOutcome,),
        *((InvalidOutcome, one) for one in reasons),
    }


def test_a_stretch_of_plain_records_looks_nothing_up_and_is_that_of_a_plain_table():
    log = Log()
    for n in range(20):
        log.put(KEYS[n % 6], None if n % 5 == 0 else b"%d" % n)
    state = StretchState(kv())
    folded = state.take(columns(log, 0, 20))
    assert state.asked == []
    assert folded._replace(decided=None) == fold_batch(columns(log, 0, 20), kv().place, 0, 0)


def test_one_hard_record_looks_up_its_own_row_alone():
    log = Log()
    for n in range(30):
        log.put(KEYS[n % 6], b"%d" % n)
    log.incr(KEYS[0], 5)
    state = StretchState(kv())
    state.take(columns(log, 0, 31))
    assert state.asked == [[KEYS[0]]]
    assert outcomes_of(state)[30].outcome == InvalidOutcome("wrong-length")


def test_a_plain_put_after_a_condition_counts_and_is_seen_by_the_next():
    log = Log().put(A, b"1", condition=b"absent").put(A, b"2").put(A, b"3", condition=b"version:1").put(B, b"4")
    state = StretchState(kv())
    state.take(columns(log, 0, 4))
    assert rows_of(state) == {A: (2, b"3"), B: (3, b"4")}
    assert [one.outcome for one in outcomes_of(state).values()] == [AppliedOutcome(), AppliedOutcome()]


def test_a_deleted_row_leaves_a_tombstone_of_the_record_that_deleted_it():
    log = Log().put(A, b"1").delete(A, condition=b"present").put(A, b"no", condition=b"present")
    state = StretchState(kv())
    state.take(columns(log, 0, 3))
    assert Entry.decode(state.rows[A]) == Entry(1, 1, 1_000)
    assert outcomes_of(state)[2].outcome == RejectedOutcome(None)


def rules_record(offset):
    """A control record that this build does not fold."""
    return Records([offset], [None], [b"\x80"], [9_000], [[("ls.op", b"rules")]])


def test_what_only_a_later_build_folds_stops_the_partition_before_it():
    before = columns(Log().put(A, b"1", condition=b"absent").put(B, b"2"), 0, 2)
    records = Records(*([*one, *two] for one, two in zip(before, rules_record(2), strict=True)))
    folded = StretchState(kv()).take(records)
    assert isinstance(folded.refused, Refused)
    assert (folded.next_offset, folded.log_time_ms) == (2, 1_000)
    assert set(folded.decided.outcomes) == {0}
    assert set(folded.entries) == {A, B}


def test_a_refused_record_behind_a_hole_is_where_the_partition_stops():
    folded = StretchState(kv()).take(rules_record(7))
    assert folded.refused is not None
    assert folded.next_offset == 7


def test_ids_end_with_the_window_and_are_taken_anew():
    rules = kv(dedup_window_ms=100)
    log = Log().incr(A, 1, id=ID, timestamp=1_000).incr(A, 1, id=ID, timestamp=1_099).incr(A, 1, id=ID, timestamp=1_100)
    for sizes in ([3], [1, 1, 1], [2, 1]):
        state = StretchState(rules)
        for size in sizes:
            state.take(columns(log, state.next_offset, state.next_offset + size))
        told = [type(one.outcome) for one in outcomes_of(state).values()]
        assert told == [AppliedOutcome, DuplicateOutcome, AppliedOutcome]
        assert int.from_bytes(rows_of(state)[A][1], signed=True) == 2
        (last,) = [decode_id(raw, decode_outcome(state.outcomes[first_of(raw)])) for raw in state.named.values()]
        assert last.first == 2
        assert is_remembered(last, state.log_time_ms, state.counter, rules.window)


def test_a_put_that_nobody_asks_the_outcome_of_is_listed_when_its_row_is_too_wide():
    state, log = StretchState(wide(max_row_cells=2)), Log()
    log.edit(A, ["set", "b", "a", b"1"], ["set", "b", "b", b"2"])
    log.put(A, b"one cell too many")
    log.put(B, b"alone")
    log.edit(A, ["set", "b", "c", b"3"])
    log.edit(A, ["set", "b", "c", b"3"], id=b"i" * 16)  # whose writer can ask
    state.take(columns(log, 0, 5))
    assert state.quarantined == [(1, "row-too-wide"), (3, "row-too-wide")]
    assert set(outcomes_of(state)) == {0, 3, 4}
    assert Entry.decode(state.rows[A]).version == 0


def test_a_sibling_too_many_is_listed_among_what_is_not_right_in_the_order_of_the_log():
    state, log = StretchState(kv(keeps_siblings=True)), Log()
    for offset in range(33):
        log.put(A, b"%d" % offset, seen=-1)
    log.put(A, b"of nowhere", seen=99)
    state.take(columns(log, 0, 20))
    records = columns(log, 20, 34)
    records.keys.append(None)
    for column, more in zip(records, (34, None, b"no key", 1_000, None), strict=True):
        if len(column) < 15:
            column.append(more)
    state.take(records)
    assert state.quarantined == [(32, "too-many-siblings"), (33, "bad-seen"), (34, "null-key")]
