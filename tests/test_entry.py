"""The bytes of an entry, and what damaged ones are."""

import pytest

from logstore.model.entry import HEAD_BYTES, TOMBSTONE, VALUE, Entry, encode_head
from logstore.model.errors import Corrupted

GOLDEN = {
    Entry(VALUE, 0, 0): "00 0000000000000000 0000000000000000",
    Entry(VALUE, 258, 1_700_000_000_000, b"abc"): "00 0000000000000102 0000018bcfe56800 616263",
    Entry(TOMBSTONE, 7, 1): "01 0000000000000007 0000000000000001",
    Entry(VALUE, 7, 2, b"x", expires_ms=1_700_000_000_000): "80 0000000000000007 0000000000000002 0000018bcfe56800 78",
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


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x00" * 16, b"\x80" + b"\x00" * 16, b"\x02" + b"\x00" * 16, b"\x7f" + b"\x00" * 24])
def test_damaged_bytes_are_never_an_answer(raw):
    with pytest.raises(Corrupted):
        Entry.decode(raw)


def test_expiry_counts_from_the_millisecond_itself():
    entry = Entry(VALUE, 1, 1, b"x", expires_ms=1000)
    assert not entry.expired(999)
    assert entry.expired(1000)
    assert not Entry(VALUE, 1, 1, b"x").expired(2**62)
