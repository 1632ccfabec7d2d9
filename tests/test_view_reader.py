"""Reading a view: keys of every length in exact byte order, whatever their hashes are."""

import random
import tracemalloc

import pytest
from support_view import open_view, put

from logstore.view import layout

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
        assert [(key, raw[17:]) for key, raw in reading.scan()] == sorted({**rows, b"k" * 495 + b"0007": b"newer"}.items())
        assert reading.get(b"k" * 495 + b"9999") is None


def test_a_large_group_of_long_keys_is_scanned_in_order_with_little_memory(view):
    numbers = list(range(5_000))
    random.Random(1).shuffle(numbers)
    put(view, {b"k" * 500 + b"%06d" % n: b"v" * 1_000 for n in numbers})
    with view.reader().reading() as reading:
        tracemalloc.start()
        keys = [key[500:] for key, _ in reading.scan()]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert keys == [b"%06d" % n for n in range(5_000)]
    assert peak < 3 << 20  # all values together are 5 MB


def test_a_reading_sees_one_state(view):
    put(view, {b"a": b"1"})
    with view.reader().reading() as reading:
        assert (reading.state.next_offset, reading.get(b"b")) == (1, None)
    put(view, {b"b": b"2"})
    with view.reader().reading() as reading:
        assert (reading.state.next_offset, reading.get(b"b")[17:]) == (2, b"2")
