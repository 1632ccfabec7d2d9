"""What a record means: every row of the log format, every reason for quarantine, everything that stops a partition."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.model.folding.mutation import (
    CONTROLS,
    LATER,
    OPERATIONS,
    REASONS,
    RULES,
    Control,
    Delete,
    Mutation,
    Put,
    Quarantined,
    Refused,
    parse,
)

LIMIT = 10
ID, TTL, CONDITION = ("ls.id", b"i" * 16), ("ls.ttl", b"\0" * 8), ("ls.if", b"absent")
CUT = msgpack.packb({"cut": 1})


def meaning(key, value, *headers):
    return parse(key, value, headers, max_value_bytes=LIMIT, right_partition=lambda found: found != b"elsewhere")


MEANINGS = [
    ((b"k", b"v"), Put(b"k", b"v")),
    ((b"k", b""), Put(b"k", b"")),
    ((b"k", None), Delete(b"k")),
    ((b"k", b"v", ("ls.v", b"\x01")), Put(b"k", b"v")),
    ((b"k", b"v", ("ls.op", b"put")), Put(b"k", b"v")),
    ((b"k", b"ignored", ("ls.op", b"delete")), Delete(b"k")),
    ((b"k", b"x" * 1000, ("ls.op", b"delete")), Delete(b"k")),
    ((b"k", b"v", ("mine", None), ("mine", b"1"), ("LS.op", b"?")), Put(b"k", b"v")),
    ((b"k" * 65_535, b"v" * LIMIT), Put(b"k" * 65_535, b"v" * LIMIT)),
    *(((None, CUT, ("ls.op", word.encode())), Control(word)) for word in sorted(CONTROLS - {RULES})),
    ((None, CUT, ("ls.op", b"cut"), ID, TTL, CONDITION), Control("cut")),
    *(
        ((None, raw, ("ls.op", b"cut")), Control("cut"))
        for raw in (b"\x81\x91\x01\x02", b"\x81\x80\x01", b"\xa1\xff", b"\xc7\x01\x05\x00")
    ),
]


@pytest.mark.parametrize(("record", "meant"), MEANINGS)
def test_what_is_right_means_what_the_format_says(record, meant):
    assert meaning(*record) == meant


SKIPPED = [
    ("null-key", (None, b"v")),
    ("null-key", (None, None)),
    ("empty-key", (b"", b"v")),
    ("long-key", (b"k" * 65_536, b"v")),
    ("wrong-partition", (b"elsewhere", b"v")),
    ("unknown-operation", (b"k", b"v", ("ls.op", b"upsert"))),
    ("unknown-operation", (b"k", b"v", ("ls.op", b""))),
    ("unknown-operation", (b"k", b"v", ("ls.op", b"PUT"))),
    ("unknown-operation", (b"k", b"v", ("ls.op", b"\xff"))),
    ("unknown-header", (b"k", b"v", ("ls.new", b"1"))),
    ("unknown-header", (b"k", b"v", ("ls.", b"1"))),
    ("repeated-header", (b"k", b"v", ("ls.op", b"put"), ("ls.op", b"put"))),
    ("repeated-header", (b"k", b"v", ("ls.v", b"\x01"), ("ls.v", b"\x01"))),
    ("null-header", (b"k", b"v", ("ls.op", None))),
    ("null-header", (b"k", b"v", ("ls.v", None))),
    ("malformed-header", (b"k", b"v", ("ls.id", b"short"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"maybe"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"version:"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"version:-1"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"version:1@family"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"version: 1"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"version:" + "\u0661".encode()))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"version:" + b"1" * 20))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"absent\n"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"absent@f:q"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"value:" + b"h" * 17))),
    ("malformed-header", (b"k", b"v", ("ls.if", b""))),
    ("malformed-header", (b"k", b"v", ("ls.id", b""))),
    *(("malformed-header", (b"k", b"v", ("ls.seen", content))) for content in (b"", b"-2", b"1.0", b"1" * 20)),
    ("malformed-header", (b"k", b"v", ("ls.seen", b"7"))),  # for tables that keep siblings
    ("malformed-header", (b"k", b"v" * 8, ("ls.op", b"incr"), ("ls.seen", b"-1"))),
    ("malformed-header", (b"k", b"v", ("ls.if", b"value:" + b"h" * 15))),
    ("null-put", (b"k", None, ("ls.op", b"put"))),
    ("bad-ttl", (b"k", b"v", ("ls.ttl", b"\xff" * 8))),
    ("bad-ttl", (b"k", b"v", ("ls.ttl", b"\0" * 7))),
    ("long-value", (b"k", b"v" * (LIMIT + 1))),
    ("long-value", (b"k", b"v" * (LIMIT + 1), ("ls.op", b"append"))),
    ("bad-msgpack", (None, b"\xc1", ("ls.op", b"cut"))),
    ("bad-msgpack", (None, None, ("ls.op", b"fence"))),
    ("bad-msgpack", (None, b"\x01\x01", ("ls.op", b"base"))),
    ("bad-msgpack", (b"k", b"\xc1", ("ls.op", b"edit"))),
    ("bad-msgpack", (b"k", None, ("ls.op", b"edit"))),
    ("keyed-control", (b"k", CUT, ("ls.op", b"barrier"))),
]


@pytest.mark.parametrize(("reason", "record"), SKIPPED)
def test_what_cannot_be_right_is_quarantined(reason, record):
    assert meaning(*record) == Quarantined(reason)


def test_every_reason_has_a_record_that_shows_it():
    assert {reason for reason, _ in SKIPPED} == set(REASONS)


@pytest.mark.parametrize("reason_and_record", [pair for pair in SKIPPED if pair[0] != "repeated-header"])
def test_what_every_build_skips_never_stops_a_partition(reason_and_record):
    reason, (key, value, *headers) = reason_and_record
    names = {name for name, _ in headers}
    more = [header for header in (ID, TTL, CONDITION) if header[0] not in names]
    assert isinstance(meaning(key, value, *headers, *more), Quarantined), reason


STOPPED = [
    (b"k", b"v", ("ls.v", b"\x02")),
    (b"k", b"v", ("ls.v", b"")),
    (b"k", b"v", ("ls.v", b"\x01\x00")),
    (None, None, ("ls.v", b"\x02")),
    (b"k", b"v", ("ls.v", b"\x02"), ("ls.new", b"of that version")),
    (b"k", b"v", ("ls.v", b"\x01"), ("ls.v", b"\x02")),
    (b"k", b"v", ID),
    (b"k", b"v", TTL),
    *(
        (b"k", b"v", ("ls.if", content))
        for content in (b"absent", b"present", b"version:7", b"version:7@f:q", b"value:" + b"\n" * 16)
    ),
    *((b"k", b"v", ("ls.if", b"version:7@" + cell)) for cell in (b":", b"f:", b":q", b"f:q:r\n\x00@", b"\xff:\xff")),
    (b"k", b"v", ("ls.ttl", b"\x7f" + b"\xff" * 7)),
    (b"k", None, ID),
    (b"k", None, ("ls.op", b"delete"), TTL),
    *((b"k", msgpack.packb([]), ("ls.op", word.encode())) for word in sorted(LATER)),
    (b"k", None, ("ls.op", b"incr")),
    (None, CUT, ("ls.op", b"rules")),
]


@pytest.mark.parametrize("record", STOPPED)
def test_what_only_a_later_build_can_fold_stops_the_partition(record):
    assert isinstance(meaning(*record), Refused)


CONTENTS = (
    st.none()
    | st.binary(max_size=20)
    | st.sampled_from([word.encode() for word in sorted(OPERATIONS)] + [b"\x01", b"absent", b"\0" * 8])
)
NAMES = st.sampled_from(["ls.v", "ls.op", "ls.id", "ls.if", "ls.ttl", "ls.other", "mine"])
KEYS = st.none() | st.binary(max_size=4) | st.just(b"elsewhere")
VALUES = st.none() | st.binary(max_size=LIMIT + 2)


@given(KEYS, VALUES, st.lists(st.tuples(NAMES, CONTENTS), max_size=3))
def test_every_record_means_something(key, value, headers):
    meant = meaning(key, value, *headers)
    assert isinstance(meant, Mutation)
    if isinstance(meant, Quarantined):
        assert meant.reason in REASONS
    versions = {content for name, content in headers if name == "ls.v"}
    if versions - {None, b"\x01"}:
        assert isinstance(meant, Refused), "the format version is looked at before anything else"


@given(
    KEYS,
    VALUES,
    st.lists(st.tuples(NAMES, CONTENTS), max_size=2),
    st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=3))),
)
def test_headers_of_the_writers_own_mean_nothing(key, value, headers, others):
    own = [(name, content) for name, content in others if not name.startswith("ls.")]
    assert meaning(key, value, *own, *headers, *own) == meaning(key, value, *headers)
