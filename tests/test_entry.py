"""The bytes of an entry, and what damaged ones are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.model.errors import Corrupted
from logstore.model.folding.entry import HEAD_BYTES, TOMBSTONE, VALUE, Entry, encode_head, ends_later

GOLDEN = {
    Entry(VALUE, 0, 0): "00 0000000000000000 0000000000000000",
    Entry(VALUE, 258, 1_700_000_000_000, b"abc"): "00 0000000000000102 0000018bcfe56800 616263",
    Entry(TOMBSTONE, 7, 1): "01 0000000000000007 0000000000000001",
    Entry(VALUE, 7, 2, b"x", expires_ms=1_700_000_000_000): "80 0000000000000007 0000000000000002 0000018bcfe56800 78",
    Entry(VALUE, 7, 2, expires_ms=0): "80 0000000000000007 0000000000000002 0000000000000000",
    Entry(TOMBSTONE, 7, 2, expires_ms=1): "81 0000000000000007 0000000000000002 0000000000000001",
    Entry(TOMBSTONE, 2**63 - 1, 2**63 - 1): "01 7fffffffffffffff 7fffffffffffffff",
}


@pytest.mark.parametrize(("entry", "golden"), GOLDEN.items())
def test_bytes_on_disk_never_change(entry, golden):
    assert entry.encode() == bytes.fromhex(golden)
    assert Entry.decode(bytes.fromhex(golden)) == entry


def test_the_head_alone_is_what_encode_begins_with():
    assert encode_head(VALUE, 5, 6) == Entry(VALUE, 5, 6).encode()
    assert len(encode_head(VALUE, 5, 6)) == HEAD_BYTES


def test_an_empty_value_is_not_a_tombstone():
    assert Entry.decode(Entry(VALUE, 1, 1, b"").encode()).kind == VALUE


@pytest.mark.parametrize(
    "raw", [b"", b"\x00", b"\x00" * 16, b"\x80" + b"\x00" * 16, b"\x04" + b"\x00" * 16, b"\x7f" + b"\x00" * 24]
)
def test_damaged_bytes_are_never_an_answer(raw):
    with pytest.raises(Corrupted):
        Entry.decode(raw)


def test_expiry_counts_from_the_millisecond_itself():
    entry = Entry(VALUE, 1, 1, b"x", expires_ms=1000)
    assert not entry.expired(999)
    assert entry.expired(1000)
    assert not Entry(VALUE, 1, 1, b"x").expired(2**62)


@pytest.mark.parametrize(("entry", "golden"), GOLDEN.items())
def test_an_entry_cut_off_inside_its_head_is_damaged(entry, golden):
    raw = bytes.fromhex(golden)
    for length in range(len(raw) - len(entry.payload)):
        with pytest.raises(Corrupted):
            Entry.decode(raw[:length])


def test_only_the_kinds_that_are_drawn_are_known():
    known = []
    for kind in range(256):
        try:
            Entry.decode(bytes([kind]) + b"\0" * 24)
        except Corrupted:
            continue
        known.append(kind)
    assert known == [0x00, 0x01, 0x02, 0x03, 0x80, 0x81, 0x82, 0x83]


def test_a_tombstone_with_a_payload_is_never_written():
    with pytest.raises(AssertionError):
        Entry(TOMBSTONE, 1, 1, b"x").encode()


NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, NUMBERS, st.binary(max_size=40), st.none() | NUMBERS)
def test_every_entry_is_read_as_it_was_written(version, timestamp_ms, payload, expires_ms):
    for entry in (
        Entry(VALUE, version, timestamp_ms, payload, expires_ms),
        Entry(TOMBSTONE, version, timestamp_ms, b"", expires_ms),
    ):
        assert Entry.decode(entry.encode()) == entry
        assert Entry.decode(memoryview(entry.encode())) == entry, "a view of LMDB's own pages is read alike"


@given(st.binary(max_size=40))
def test_any_bytes_are_an_entry_that_writes_the_same_bytes_or_damage(raw):
    try:
        entry = Entry.decode(raw)
    except Corrupted:
        return
    if entry.kind == VALUE:
        assert entry.encode() == raw


@given(st.lists(NUMBERS, min_size=2, max_size=9, unique=True))
def test_entries_of_one_key_sort_like_their_versions(versions):
    encoded = sorted(Entry(VALUE, version, 5, b"x").encode() for version in versions)
    assert [Entry.decode(raw).version for raw in encoded] == sorted(versions)


def test_an_end_moves_and_nothing_else_does():
    entry = Entry(VALUE, 7, 5, b"payload", 1_000)
    assert Entry.decode(ends_later(entry.encode(), 250)) == entry._replace(expires_ms=1_250)
    assert ends_later(Entry(VALUE, 7, 5, b"p").encode(), 250) == Entry(VALUE, 7, 5, b"p").encode()
    never = entry._replace(expires_ms=2**63 - 1)
    assert ends_later(never.encode(), 250) == never.encode()
