"""The bytes of a view, drawn in docs/lmdb_layout.md."""

import pytest
import xxhash

from logstore.model.errors import Corrupted
from logstore.model.record_identity import RecordIdentity, identify
from logstore.view import layout
from logstore.view.layout import State, Stop

NO_RECORD = "ffffffffffffffff" + "00" * 16
STATES = {
    State(0, 0): "0000000000000000 0000000000000000 ffffffff" + NO_RECORD,
    State(258, 1_700_000_000_000, 3, last=RecordIdentity(257, bytes(range(16)))): (
        "0000000000000102 0000018bcfe56800 00000003 0000000000000101 000102030405060708090a0b0c0d0e0f"
    ),
    State(1, 2, 3, Stop("gap", "d", 1)): "0000000000000001 0000000000000002 00000003"
    + NO_RECORD
    + b'{"word":"gap","detail":"d","offset":1}'.hex(),
}


@pytest.mark.parametrize(("state", "golden"), STATES.items())
def test_the_bytes_of_a_state_never_change(state, golden):
    assert state.encode() == bytes.fromhex(golden)
    assert State.decode(bytes.fromhex(golden)) == state


def test_a_state_that_is_too_short_is_damaged():
    with pytest.raises(Corrupted):
        State.decode(b"\0" * 43)


def test_the_identity_of_a_record_never_changes():
    one = identify(257, 1_700_000_000_000, b"k", b"v")
    hashed = "0000000000000101 0000018bcfe56800 00000001 6b 00000001 76"
    assert one == RecordIdentity(257, xxhash.xxh3_128_digest(bytes.fromhex(hashed)))
    assert RecordIdentity.parse(one.text) == one
    null = "0000000000000007 0000000000000001 ffffffff ffffffff"
    assert identify(7, 1, None, None).digest == xxhash.xxh3_128_digest(bytes.fromhex(null))
    assert identify(7, 1, b"", b"") != identify(7, 1, None, None)
    with pytest.raises(Corrupted):
        RecordIdentity.parse("7-abc")


@pytest.mark.parametrize("raw", [b"{", b"[]", b"null", b'{"word":"gap"}', b"\0"])
def test_a_stop_that_cannot_be_read_is_damage(raw):
    with pytest.raises(Corrupted):
        State.decode(State(0, 0).encode() + raw)


@pytest.mark.parametrize("length", [1, 494, 495])
def test_a_short_key_is_its_own_cell_key(length):
    key = b"k" * length
    assert layout.cell_key(key) == key
    assert not layout.is_bucket(layout.cell_key(key))


@pytest.mark.parametrize("length", [496, 503, 511, 512, 65_535])
def test_a_long_key_is_a_prefix_and_a_hash(length):
    key = b"k" * length
    assert layout.cell_key(key) == b"k" * 495 + xxhash.xxh3_64_digest(key)
    assert layout.is_bucket(layout.cell_key(key))


def test_the_bytes_of_a_bucket_never_change():
    raw = layout.pack_bucket({b"kb": b"2", b"ka": b"1"})
    assert raw == bytes.fromhex("00000002 00000001 6b61 31  00000002 00000001 6b62 32")
    assert list(layout.unpack_bucket(raw)) == [(b"ka", b"1"), (b"kb", b"2")]


@pytest.mark.parametrize("cut", [1, 7, 8, 10])
def test_a_bucket_that_ends_inside_an_item_is_damaged(cut):
    with pytest.raises(Corrupted):
        list(layout.unpack_bucket(layout.pack_bucket({b"ka": b"1"})[:cut]))
