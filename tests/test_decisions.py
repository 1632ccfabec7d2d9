"""The bytes of outcomes and ids: they are on disks, so they never change."""

import pytest

from logstore.model.errors import Corrupted
from logstore.model.folding.terms import content_digest, short_content_digest
from logstore.model.hard_rows.encoding import (
    decode_id,
    decode_outcome,
    encode_id,
    encode_outcome,
    first_of,
    outcome_key,
    outcome_offset,
)  # fmt: skip
from logstore.model.hard_rows.outcomes import (
    AppliedOutcome,
    DuplicateOutcome,
    InvalidOutcome,
    RejectedOutcome,
    RememberedId,
    RememberedOutcome,
)  # fmt: skip

HEAD = "0000000000000007" + "0000018bcfe56800"  # number 7, log time
GOLDEN = [
    (AppliedOutcome(), "00"),
    (RejectedOutcome(258), "010000000000000102"),
    (RejectedOutcome(None), "01ffffffffffffffff"),
    (InvalidOutcome("overflow"), "026f766572666c6f77"),
    (DuplicateOutcome(3, AppliedOutcome()), "03000000000000000300"),
    (DuplicateOutcome(3, RejectedOutcome(1)), "030000000000000003010000000000000001"),
    (DuplicateOutcome(3, InvalidOutcome("x")), "0300000000000000030278"),
]


@pytest.mark.parametrize(("outcome", "tail"), GOLDEN)
def test_an_outcome_has_these_bytes(outcome, tail):
    remembered = RememberedOutcome(outcome, 1_700_000_000_000, 7)
    assert encode_outcome(remembered).hex() == HEAD + tail
    assert decode_outcome(bytes.fromhex(HEAD + tail)) == remembered


def test_an_id_has_these_bytes():
    remembered = RememberedId(5, b"c" * 16, AppliedOutcome(), 1_700_000_000_000, 7)
    raw = encode_id(remembered)
    assert raw.hex() == "0000000000000005" + "63" * 16 + "0000018bcfe56800" + "0000000000000007"
    assert first_of(raw) == 5
    assert decode_id(raw, RememberedOutcome(AppliedOutcome(), 1_700_000_000_000, 7)) == remembered


def test_the_key_of_an_outcome_is_its_offset():
    assert outcome_key(258).hex() == "0000000000000102"
    assert outcome_offset(outcome_key(258)) == 258


@pytest.mark.parametrize(
    "damaged", ["", "00", HEAD, HEAD + "0000", HEAD + "0100", HEAD + "02", HEAD + "04", HEAD + "03" + "00" * 7,
                HEAD + "03" + "00" * 8, HEAD + "03" + "00" * 8 + "03" + "00" * 9, HEAD + "02ff"],
)  # fmt: skip
def test_damaged_outcomes_are_told(damaged):
    with pytest.raises(Corrupted):
        decode_outcome(bytes.fromhex(damaged))


def test_damaged_ids_are_told():
    raw = encode_id(RememberedId(5, b"c" * 16, AppliedOutcome(), 9, 7))
    for bad in (raw[:-1], raw + b"\0", b""):
        with pytest.raises(Corrupted):
            first_of(bad)
    for first in (
        RememberedOutcome(AppliedOutcome(), 9, 8),
        RememberedOutcome(DuplicateOutcome(1, AppliedOutcome()), 9, 7),
    ):
        with pytest.raises(Corrupted):
            decode_id(raw, first)
    with pytest.raises(Corrupted):
        outcome_offset(b"1234567")


@pytest.mark.parametrize("operation", ["put", "incr", "append"])
@pytest.mark.parametrize("condition", [None, b"absent", b"version:7", b"value:" + bytes(range(16))])
@pytest.mark.parametrize("value", [b"", b"v", bytes(8), b"%b" * 100])
def test_the_short_way_to_a_content_digest_gives_the_same(operation, condition, value):
    headers = {} if condition is None else {"ls.if": condition}
    assert short_content_digest(operation, condition, value) == content_digest(operation, headers, value)
