"""The fold: the short cut is the definition, and how the log is cut into batches does not matter."""

import random

import pytest
from support_tiers import few_and_many, short_and_long

from logstore.model.folding import fold
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.model.folding.fold import FoldRules, Records, fold_batch, fold_row
from logstore.model.folding.mutation import Delete, Put
from logstore.model.partitioner import partition_of

PLACE = FoldRules(partition=0, partitions=2, max_value_bytes=50)
HERE = [key for key in (b"key-%d" % n for n in range(60)) if partition_of(key, 2) == 0]
ODD_HEADERS = [
    [("ls.v", b"\x01")],
    [("ls.op", b"delete")],
    [("ls.new", b"")],
    [("ls.op", b"cut")],
    [("mine", b"1")],
    [("mine", None)],
    [],
]


def records_of(rows, first=0):
    keys, values, timestamps, headers = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Records(range(first, first + len(rows)), keys, values, timestamps, headers)


def random_log(rng, length, odd):
    rows = []
    for _ in range(length):
        key, value, headers = rng.choice(HERE), rng.choice([None, b"", rng.randbytes(rng.randrange(1, 40))]), None
        if rng.random() < odd:
            key = rng.choice([key, None, b"", b"elsewhere-%d" % rng.randrange(9), key * 20_000])
            value = rng.choice([value, b"x" * 51])
            headers = rng.choice(ODD_HEADERS)
        rows.append((key, value, rng.randrange(-1, 1_000), headers))
    return rows


def one_by_one(rows):
    """The definition: every record through `parse` and `fold_row`, however plain."""
    return fold._fold_each(records_of(rows), PLACE, 0, 0)


@pytest.mark.parametrize("seed", few_and_many(50, 200))
def test_the_short_cut_is_the_definition(seed):
    rng = random.Random(seed)
    rows = random_log(rng, rng.randrange(1, 80), odd=rng.choice([0, 0, 0.02, 0.3]))
    assert fold_batch(records_of(rows), PLACE, 0, 0) == one_by_one(rows)


@short_and_long("batches", 500, 3_000)
def test_thousands_of_short_batches_fold_as_one_by_one(batches):
    rng = random.Random(7)
    for number in range(batches):
        rows = random_log(rng, rng.randrange(1, 40), odd=rng.choice([0, 0.02]))
        assert fold_batch(records_of(rows), PLACE, 0, 0) == one_by_one(rows), number


@pytest.mark.parametrize("seed", few_and_many(20, 50))
def test_however_the_log_is_cut_it_stops_at_the_same_record(seed):
    rng = random.Random(2_000 + seed)
    rows = random_log(rng, 60, odd=0.05)
    stops_at = rng.randrange(60)
    rows[stops_at] = HERE[0], b"v", 10_000, [rng.choice([("ls.id", b"i" * 16), ("ls.v", b"\x02"), ("ls.op", b"incr")])]
    before, next_offset, log_time_ms = {}, 0, 0
    while True:
        upto = rng.randrange(next_offset + 1, 61)
        folded = fold_batch(records_of(rows[next_offset:upto], next_offset), PLACE, next_offset, log_time_ms)
        before |= folded.entries
        next_offset, log_time_ms = folded.next_offset, folded.log_time_ms
        if folded.refused:
            break
    wanted = one_by_one(rows[:stops_at])
    assert (next_offset, log_time_ms, before) == (stops_at, wanted.log_time_ms, wanted.entries)


@pytest.mark.parametrize("seed", few_and_many(30, 100))
def test_any_cut_into_batches_gives_the_same_state(seed):
    rng = random.Random(1_000 + seed)
    rows = random_log(rng, 120, odd=0.1)
    whole = one_by_one(rows)
    entries, quarantined, next_offset, log_time_ms = {}, [], 0, 0
    while next_offset < len(rows):
        upto = rng.randrange(next_offset + 1, len(rows) + 1)
        folded = fold_batch(records_of(rows[next_offset:upto], next_offset), PLACE, next_offset, log_time_ms)
        entries |= folded.entries
        quarantined += folded.quarantined
        next_offset, log_time_ms = folded.next_offset, folded.log_time_ms
    assert (entries, quarantined, next_offset, log_time_ms) == (
        whole.entries,
        whole.quarantined,
        whole.next_offset,
        whole.log_time_ms,
    )


def test_log_time_is_the_running_maximum():
    assert fold_batch(records_of([(HERE[0], b"", 5, None), (HERE[0], b"", 3, None)]), PLACE, 0, 4).log_time_ms == 5
    assert fold_batch(records_of([(HERE[0], b"", 5, None)]), PLACE, 0, 9).log_time_ms == 9


def test_a_record_of_a_later_build_stops_exactly_there():
    rows = [(HERE[0], b"1", 1, None), (HERE[1], b"2", 2, [("ls.ttl", b"\0" * 8)]), (HERE[0], b"3", 3, None)]
    folded = fold_batch(records_of(rows), PLACE, 0, 0)
    assert (folded.next_offset, folded.log_time_ms, folded.entries) == (
        1,
        1,
        {HERE[0]: Entry(VALUE, 0, 1, b"1").encode()},
    )
    assert folded.refused is not None


def test_nothing_changes_nothing():
    assert fold_batch(records_of([]), PLACE, 7, 8) == fold.Folded(7, 8, {}, [], None)


def test_a_row_is_what_its_last_mutation_made_of_it():
    put = fold_row(None, Put(b"k", b"v"), 3, 30)
    assert put == Entry(VALUE, 3, 30, b"v")
    assert fold_row(put, Delete(b"k"), 4, 40) == Entry(TOMBSTONE, 4, 40)
    with pytest.raises(AssertionError):
        fold_row(put, Delete(b"k"), 3, 40)
