import random
from collections import Counter

import msgpack
import pyarrow as pa
import pytest
from support_tiers import few_and_many

from batch.tasks import fold as folding
from batch.tasks.fold import Fold, QuarantineTally, Runs, Shape, over
from logstore.log.read.ranges import HEADERS, SCHEMA
from logstore.model.errors import Unsupported
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.folding.mutation import REASONS
from logstore.model.partitioner import partition_of

PLACE = FoldRules(1, 3, 200)
HERE = [key for n in range(4_000) if partition_of(key := b"k%d" % n, 3) == 1][:300]
ELSEWHERE = [key for n in range(100) if partition_of(key := b"k%d" % n, 3) != 1]
LONG = next(key for n in range(9) if partition_of(key := b"x" * 70_000 + b"%d" % n, 3) == 1)


def batch_of(records, partition=1):
    offsets, keys, values, timestamps, headers = records
    columns = [
        pa.array([partition] * len(offsets), pa.int32()), pa.array(offsets, pa.int64()),
        pa.array(timestamps, pa.int64()),
        pa.array(keys, pa.binary()), pa.array(values, pa.binary()), pa.array(headers, HEADERS),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def one(rng):
    """A record of any kind that some build could write: (key, value, headers)."""
    key = rng.choice(HERE)
    value = rng.randbytes(rng.choice([0, 3, 50, 200]))
    control = msgpack.packb({"job": "x"})
    return rng.choice(
        [
            *[(key, value, None)] * 8,
            *[(key, None, None)] * 3,
            (key, value, [("trace", b"1"), ("other", None)]),
            (key, value, [("ls.op", b"put")]),
            (key, value, [("ls.v", b"\x01"), ("trace", b"1")]),
            (key, value, [("ls.op", b"delete")]),
            (key, b"v" * 201, [("ls.op", b"delete")]),
            (None, control, [("ls.op", b"cut")]),
            (None, control, [("ls.op", b"barrier")]),
            (None, b"\xc1", [("ls.op", b"cut")]),
            (key, control, [("ls.op", b"base")]),
            (None, value, None),
            (b"", value, None),
            (LONG, value, None),
            (rng.choice(ELSEWHERE), value, None),
            (rng.choice(ELSEWHERE), b"v" * 201, None),
            (rng.choice(ELSEWHERE), value, [("ls.op", b"put")]),
            (key, value, [("ls.op", b"frobnicate")]),
            (key, value, [("ls.new", b"1")]),
            (key, value, [("ls.op", b"put"), ("ls.op", b"put")]),
            (key, value, [("ls.op", None)]),
            (key, value, [("ls.id", b"short")]),
            (key, None, [("ls.op", b"put")]),
            (key, value, [("ls.ttl", b"\xff" * 8)]),
            (key, b"v" * 201, None),
            (key, b"\xc1", [("ls.op", b"edit")]),
        ]
    )


def a_log(rng, count):
    rows = [one(rng) for _ in range(count)]
    return Records(
        list(range(count)), [key for key, _, _ in rows], [value for _, value, _ in rows],
        [rng.choice([-1, 5, 1_000 + i]) for i in range(count)], [headers for _, _, headers in rows],
    )  # fmt: skip


def cut_up(records, rng):
    at = 0
    while at < len(records.offsets):
        step = rng.choice([1, 7, 100, 1_000])
        yield batch_of(records.slice(at, at + step))
        at += step


@pytest.mark.parametrize("seed", few_and_many(4, 12))
@pytest.mark.parametrize("buffer_bytes", [2_000, 60_000, 64 << 20])
def test_the_batch_fold_is_the_fold_on_logs_with_everything_that_can_be_wrong(
    tmp_path, monkeypatch, seed, buffer_bytes
):
    monkeypatch.setattr(folding, "MERGED_RUNS", 3)
    monkeypatch.setattr(folding, "LISTED", 10**9)
    print("seed", seed)
    rng = random.Random(seed)
    records = a_log(rng, 3_000)
    expected = fold_batch(records, PLACE, 0, 0)
    fold = Fold(Shape("t", PLACE), tmp_path, buffer_bytes=buffer_bytes)
    for batch in cut_up(records, rng):
        fold.take(batch)
    assert list(fold.items()) == sorted(expected.entries.items())
    assert fold.log_time_ms == expected.log_time_ms
    assert fold.quarantine.records == expected.quarantined
    assert fold.quarantine.counts == Counter(reason for _, reason in expected.quarantined)
    if seed == 0:
        assert set(fold.quarantine.counts) == set(REASONS)


@pytest.mark.parametrize(
    "headers",
    [
        [("ls.v", b"\x02")],
        [("ls.op", b"incr")],
        [("ls.if", b"absent")],
        [("ls.id", b"i" * 16)],
        [("ls.ttl", b"\0" * 8)],
    ],
)
def test_a_record_of_a_later_build_ends_the_job_and_is_named(tmp_path, headers):
    fold = Fold(Shape("users", PLACE), tmp_path)
    records = Records([7, 8], [HERE[0], HERE[1]], [b"v", b"w" * 8], [1, 1], [None, headers])
    assert fold_batch(records, PLACE, 7, 0).next_offset == 8
    with pytest.raises(Unsupported, match=r"offset 8 of users/1 .*--partition 1 --skip 8 --force"):
        fold.take(batch_of(records))


def test_offsets_that_a_repair_gave_up_are_not_folded_and_give_no_time(tmp_path):
    fold = Fold(Shape("t", PLACE, [(1, 2), (4, 9)]), tmp_path)
    records = Records(
        [0, 1, 2, 3], [HERE[0]] * 4, [b"0", b"1", None, b"3"], [5, 99, 99, 6], [None, None, [("ls.v", b"\x09")], None]
    )
    fold.take(batch_of(records))
    assert list(fold.items()) == [(HERE[0], Entry(VALUE, 3, 6, b"3").encode())]
    assert (fold.log_time_ms, fold.mutations) == (6, 2)


def test_a_tail_of_control_records_and_quarantined_ones_is_no_change(tmp_path):
    fold = Fold(
        Shape("t", PLACE), tmp_path, log_time_ms=50, quarantine=QuarantineTally({"null-key": 2}, [(1, "null-key")])
    )
    control = (None, msgpack.packb({}), [("ls.op", b"cut")])
    rows = [control, (ELSEWHERE[0], b"v", None), (None, b"v", None)]
    fold.take(
        batch_of(
            Records([10, 11, 12], *zip(*[(k, v) for k, v, _ in rows], strict=True), [1, 2, 3], [h for _, _, h in rows])
        )
    )
    fold.finish()
    assert fold.mutations == 0
    assert list(fold.items()) == []
    assert fold.log_time_ms == 50
    assert fold.quarantine.counts == {"null-key": 3, "wrong-partition": 1}
    assert fold.quarantine.records == [(1, "null-key"), (11, "wrong-partition"), (12, "null-key")]


def test_only_the_newest_quarantined_records_are_listed():
    quarantine = QuarantineTally()
    for offset in random.Random(1).sample(range(5_000), 5_000):
        quarantine.add(offset, "null-key")
    assert quarantine.counts == {"null-key": 5_000}
    assert [offset for offset, _ in quarantine.records] == list(range(4_000, 5_000))


@pytest.mark.parametrize("seed", range(5))
def test_runs_on_disk_give_the_newest_row_of_every_key_in_order(tmp_path, seed):
    rng = random.Random(seed)
    runs, newest, offset = Runs(tmp_path), {}, 0
    for _ in range(rng.choice([1, 8, 9, 70])):
        rows = {}
        for key in sorted(rng.sample(HERE, 40)):
            offset += 1
            rows[key] = newest[key] = (key, offset, offset, rng.choice([None, rng.randbytes(9)]))
        runs.add(pa.Table.from_batches([folding._batch([rows[key] for key in sorted(rows)])]))
    assert list(folding._merged(runs.readers())) == [newest[key] for key in sorted(newest)]
    assert len(list(tmp_path.iterdir())) <= 2 * folding.MERGED_RUNS


def test_the_tail_lies_over_the_base_and_deleted_rows_vanish():
    old, new, gone = (Entry(VALUE, 1, 1).encode(), Entry(VALUE, 2, 2).encode(), Entry(TOMBSTONE, 2, 2).encode())
    base = [(key, old) for key in (b"a", b"c", b"d", b"f")]
    tail = [(b"0", new), (b"a", new), (b"b", gone), (b"d", gone), (b"e", new), (b"g", new)]
    assert list(over(base, tail)) == [
        (b"0", new), (b"a", new), (b"c", old), (b"e", new), (b"f", old), (b"g", new)
    ]  # fmt: skip
    assert list(over(base, [])) == base
    assert list(over([], tail)) == [(key, new) for key in (b"0", b"a", b"e", b"g")]


@pytest.mark.parametrize("seed", range(5))
def test_a_fold_in_two_steps_over_a_base_is_the_fold_in_one(tmp_path, seed):
    rng = random.Random(seed)
    records, half = a_log(rng, 2_000), rng.randrange(2_000)
    base = {k: e for k, e in fold_batch(records.slice(0, half), PLACE, 0, 0).entries.items() if e[0] != TOMBSTONE}
    fold = Fold(Shape("t", PLACE), tmp_path)
    for batch in cut_up(records.slice(half), rng):
        fold.take(batch)
    whole = {k: e for k, e in fold_batch(records, PLACE, 0, 0).entries.items() if e[0] != TOMBSTONE}
    assert list(over(sorted(base.items()), fold.items())) == sorted(whole.items())
