"""Reading a view: keys of every length in exact byte order, whatever their hashes are."""

import random
import tracemalloc
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_tiers import short_and_long
from support_view import open_view, put, zero_pages

from logstore.model.errors import Corrupted
from logstore.view import layout
from logstore.view.reader import ViewReader

LENGTHS = [1, 2, 3, 10, 494, 495, 496, 497, 503, 511, 512, 513, 1_000, 65_535]


def a_key(rng: random.Random) -> bytes:
    length = rng.choice(LENGTHS)
    stem = bytes([rng.choice([0, 1, 255])]) * length if rng.random() < 0.7 else rng.randbytes(length)
    return stem[:-1] + bytes([rng.randrange(4)]) if length > 1 else stem


@pytest.fixture
def view(tmp_path):
    opened = open_view(tmp_path / "view")
    yield opened
    opened.close()


@pytest.mark.parametrize("seed", range(4))
def test_every_scan_is_a_sorted_dict(view, seed):
    rng, rows = random.Random(seed), {}
    for _ in range(12):
        rows |= put(view, {a_key(rng): rng.choice([None, rng.randbytes(20)]) for _ in range(40)}).entries
    with view.reader().reading() as reading:
        assert list(reading.scan()) == sorted(rows.items())
        assert list(reading.scan(reverse=True)) == sorted(rows.items(), reverse=True)
        for _ in range(60):
            start, end = sorted((a_key(rng), a_key(rng)))
            for reverse in (False, True):
                wanted = sorted(((key, raw) for key, raw in rows.items() if start <= key < end), reverse=reverse)
                assert list(reading.scan(start, end, reverse=reverse)) == wanted
        assert all(reading.get(key) == raw for key, raw in rows.items())
        assert reading.get(b"z" * 600) is None
    assert all(view.reader().point(key)[1] == raw for key, raw in rows.items())


def test_long_keys_with_one_hash_are_still_themselves(view, monkeypatch):
    monkeypatch.setattr(layout.xxhash, "xxh3_64_digest", lambda _: b"collides")
    rows = {b"k" * 495 + b"%04d" % n: b"v%d" % n for n in range(50)}
    put(view, rows)
    put(view, {b"k" * 495 + b"0007": b"newer"})
    with view.reader().reading() as reading:
        assert reading.count() == 1
        assert [(key, raw[17:]) for key, raw in reading.scan()] == sorted(
            {**rows, b"k" * 495 + b"0007": b"newer"}.items()
        )
        assert reading.get(b"k" * 495 + b"9999") is None


@short_and_long("count", 8_000, 20_000)
@pytest.mark.slow
def test_a_large_group_of_long_keys_is_scanned_in_order_with_little_memory(view, count):
    numbers = list(range(count))
    random.Random(1).shuffle(numbers)
    put(view, {b"k" * 500 + b"%06d" % n: b"v" * 100 for n in numbers})
    with view.reader().reading() as reading:
        tracemalloc.start()
        in_order = all(key[500:] == b"%06d" % n for n, (key, _) in zip(range(count), reading.scan(), strict=True))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert in_order
        assert peak < 3 << 20  # all keys together are 4 MB, in the long form 10
        high = count * 3 // 4
        for reverse in (False, True):
            some = list(islice(reading.scan(b"k" * 500 + b"003", b"k" * 500 + b"%06d" % high, reverse=reverse), 3_000))
            wanted = range(high - 1, high - 3_001, -1) if reverse else range(3_000, 6_000)
            assert [key[500:] for key, _ in some] == [b"%06d" % n for n in wanted]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_group_of_the_longest_keys_is_selected_a_few_at_a_time(view, reverse):
    rows = put(view, {b"k" * 65_531 + b"%04d" % n: b"v" for n in range(100)}).entries
    with view.reader().reading() as reading:
        tracemalloc.start()
        in_order = all(
            found == row
            for found, row in zip(reading.scan(reverse=reverse), sorted(rows.items(), reverse=reverse), strict=True)
        )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert in_order
    assert peak < 3 << 20  # all keys together are 6.5 MB


ROWS = st.dictionaries(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=2), max_size=12)
EDGES = st.binary(max_size=3)


@settings(max_examples=settings.default.max_examples // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.sampled_from([0, 492, 493, 494, 495, 501]), EDGES, EDGES, st.booleans(), st.booleans())
def test_around_the_longest_short_key_every_range_is_exact(tmp_path, tails, common, low, high, bounded, reverse):
    rows = {b"\xff" * common + tail: value for tail, value in tails.items()}
    start, end = b"\xff" * common + low, b"\xff" * common + high if bounded else None
    with TemporaryDirectory(dir=tmp_path) as directory:
        view = open_view(Path(directory) / "view")
        entries = put(view, rows).entries
        with view.reader().reading() as reading:
            wanted = [(key, raw) for key, raw in sorted(entries.items()) if start <= key and (end is None or key < end)]
            assert list(reading.scan(start, end, reverse=reverse)) == (wanted[::-1] if reverse else wanted)
        view.close()


def test_a_reading_sees_one_state(view):
    put(view, {b"a": b"1"})
    with view.reader().reading() as reading:
        assert (reading.state.next_offset, reading.get(b"b")) == (1, None)
    put(view, {b"b": b"2"})
    with view.reader().reading() as reading:
        assert (reading.state.next_offset, reading.get(b"b")[17:]) == (2, b"2")


READS = {
    "point": lambda reader: reader.point(b"7"),
    "point of a long key": lambda reader: reader.point(b"7" * 600),
    "state": lambda reader: reader.state(),
    "base": lambda reader: reader.base(),
    "counts": lambda reader: reader.quarantine_counts(),
    "get": lambda reader: _within(reader, lambda reading: reading.get(b"7")),
    "scan": lambda reader: _within(reader, lambda reading: list(reading.scan())),
    "downwards": lambda reader: _within(reader, lambda reading: list(reading.scan(reverse=True))),
    "range": lambda reader: _within(reader, lambda reading: list(reading.scan(b"5", b"6"))),
    "quarantine": lambda reader: _within(reader, lambda reading: reading.quarantine()),
}


def _within(reader, read):
    with reader.reading() as reading:
        return read(reading)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_zeroed_pages_are_damage_to_every_way_of_reading(tmp_path, read):
    view = open_view(tmp_path / "view")
    put(view, {b"%d" % n: b"v" * 100 for n in range(1_000)} | {b"7" * 600: b"long"})
    view.close()
    reader = ViewReader.open(tmp_path / "view")
    zero_pages(tmp_path / "view")
    with pytest.raises(Corrupted, match="is damaged"):
        read(reader)
    reader.close()
