"""Ends of rows: in the fold, in views, and in digests of what lies over something."""

import random
from dataclasses import replace

import pytest
from support_hard import Log, kv
from support_stretch import StretchState, columns
from support_view import IDENTITY
from test_stretch import KEYS, KvHistories

from logstore.model.errors import BadDefinition
from logstore.model.folding.difference import StateBelow, digest_upon, ended
from logstore.model.folding.digest import TOMBSTONES, digest
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry, has_ended, tombstone_of
from logstore.model.hard_rows.rules import rules_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.partitioner import partition_of
from logstore.model.table import Table, check_dedup
from logstore.view.conditional.state_before import ViewState
from logstore.view.view import View

A, B = KEYS[:2]
EXPIRING = replace(IDENTITY, partitions=2, dedup_records=100, dedup_window_ms=1_000, expiring=True)


def living(rows, now_ms):
    return {key: raw for key, raw in rows.items() if raw[0] not in TOMBSTONES and not has_ended(raw, now_ms)}


class Expiring(KvHistories):
    """Histories of a table whose rows expire."""

    def _plainer(self, record):
        ttl = {"ls.ttl": record.headers["ls.ttl"]} if "ls.ttl" in record.headers else {}
        plain = super()._plainer(record)
        return plain._replace(headers=plain.headers | ttl)


def test_an_end_has_come_from_its_millisecond_on():
    raw = Entry(VALUE, 5, 9, b"v", 100).encode()
    assert [has_ended(raw, at) for at in (99, 100, 101)] == [False, True, True]
    assert not has_ended(Entry(VALUE, 5, 9, b"v").encode(), 2**63 - 1)
    assert Entry.decode(tombstone_of(raw)) == Entry(TOMBSTONE, 5, 9, b"", 100)


@pytest.mark.parametrize("seed", range(25))
def test_a_view_sees_what_the_fold_leaves_and_takes_back_what_has_ended(tmp_path, seed):
    histories = Expiring(seed)
    log, state, view = histories.log(60), StretchState(histories.rules), View(tmp_path / "view", EXPIRING)
    while view.next_offset < 60:
        records = columns(log, view.next_offset, min(view.next_offset + histories.rng.choice([1, 3, 20]), 60))
        start = StretchStart(view.next_offset, view.state.log_time_ms, view.counter)
        view.apply(fold_stretch(records, histories.rules, start, ViewState(view.reader(), lambda: None)))
        state.take(records)
        with view.reader().reading() as reading:
            stored = dict(reading.scan())
        now_ms = state.log_time_ms
        assert living(stored, now_ms) == living(state.rows, now_ms)
        assert digest(ended(stored.items(), now_ms)) == digest(living(state.rows, now_ms).items())
        kept = [raw for raw in stored.values() if raw[0] not in TOMBSTONES and has_ended(raw, now_ms)]
        assert kept == [], "their bytes are taken back"
        assert {key: raw[1:9] for key, raw in stored.items()} == {key: raw[1:9] for key, raw in state.rows.items()}
    view.close()


def test_histories_meet_ends():
    ends = 0
    for seed in range(25):
        state = StretchState(Expiring(seed).rules)
        state.take(columns(Expiring(seed).log(60), 0, 60))
        ends += sum(has_ended(raw, state.log_time_ms) for raw in state.rows.values())
    assert ends > 5


def test_a_row_that_was_written_anew_keeps_its_new_value(tmp_path):
    view, rules = View(tmp_path / "view", EXPIRING), kv()
    long_key = next(key for key in (b"k" * 600 + b"%d" % n for n in range(9)) if partition_of(key, 2) == 0)
    log = Log().put(A, b"old", ttl=10, timestamp=100).put(long_key, b"gone", ttl=10, timestamp=100)
    log.put(A, b"new", timestamp=105).put(B, b"other", timestamp=500)
    for n in range(4):
        start = StretchStart(view.next_offset, view.state.log_time_ms, view.counter)
        view.apply(fold_stretch(columns(log, n, n + 1), rules, start, ViewState(view.reader(), lambda: None)))
    with view.reader().reading() as reading:
        assert Entry.decode(reading.get(A)) == Entry(VALUE, 2, 105, b"new")
        assert Entry.decode(reading.get(long_key)) == Entry(TOMBSTONE, 1, 100, b"", 110)
        assert view.reader().free_pages() is not None
    view.close()


class Below:
    """Rows of a level below, by key."""

    def __init__(self, rows):
        self.rows = dict(sorted(rows.items()))

    def get(self, key):
        return self.rows.get(key)

    def scan(self, start=b"", end=None):
        return ((key, raw) for key, raw in self.rows.items() if key >= start and (end is None or key < end))


@pytest.mark.parametrize("seed", range(40))
def test_a_digest_by_difference_is_that_of_all_that_lives(seed):
    rng = random.Random(seed)

    def rows(first, count):
        return {
            b"%02d" % rng.randrange(30): Entry(
                *(VALUE, first + n, 9, b"v%d" % n, rng.choice([None, rng.randrange(40, 200)]))
                if rng.random() < 0.8
                else (TOMBSTONE, first + n, 9)
            ).encode()
            for n in range(count)
        }

    then_ms, now_ms = 50, rng.choice([50, 90, 150])
    below = living(rows(0, 20), then_ms)
    newer = dict(sorted(rows(100, rng.choice([0, 1, 15])).items()))
    whole = living(below | newer, now_ms)
    state = StateBelow(Below(below), digest(below.items()), len(below), now_ms)
    assert digest_upon(newer.items(), len(newer), state) == digest(whole.items())


def test_a_table_that_takes_no_ttls_skips_them_loudly():
    rules = rules_of(Table("t", "t", "e" * 32, 2, conditional=True), 0)
    state = StretchState(rules)
    folded = state.take(columns(Log().put(A, b"1", ttl=5), 0, 1))
    assert folded.quarantined == [(0, "bad-ttl")]
    assert folded.entries == {}


def test_only_a_conditional_table_expires():
    with pytest.raises(BadDefinition, match="conditional"):
        check_dedup(Table("t", "t", "e" * 32, 2, expiring=True))
    check_dedup(Table("t", "t", "e" * 32, 2, conditional=True, expiring=True))
