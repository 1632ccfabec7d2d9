"""Partitioning: hash and ordered tables, against the definition read word by word; and that nobody goes around it."""

import base64
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_rooms import imports

from logstore.client.read.table_page import partitioning_of
from logstore.log.write.librdkafka import placing
from logstore.model.errors import BadDefinition, Corrupted
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.key import MAX_KEY_BYTES
from logstore.model.partitioner import partition_of
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.partitioning.splits import MAX_SPLITS_BYTES, check_splits
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest

KEYS = st.binary(min_size=1, max_size=4) | st.sampled_from([b"a", b"a\0", b"m", b"\xff", b"\0"])
SPLITS = st.sets(KEYS, min_size=1, max_size=9).map(lambda found: tuple(sorted(found)))
ORDERED = Table("t", "t", "0a" * 16, 3, splits=(b"m", b"t\xff"))


def naive(splits, key):
    """The partition of a key, as the definition says it: one more than there are split points at or below it."""
    return sum(split <= key for split in splits)


@given(SPLITS, st.lists(KEYS, max_size=60))
def test_a_key_lies_behind_every_split_point_that_is_not_above_it(splits, keys):
    partitioning = Partitioning(len(splits) + 1, splits)
    expected = [naive(splits, key) for key in keys]
    place = placing(partitioning)
    assert [partitioning.of(key) for key in keys] == expected
    assert partitioning.of_each(keys).tolist() == expected
    assert partitioning.listed(keys) == expected
    assert [place(None, key, len(key), len(splits) + 1, None, None) for key in keys] == expected


@given(st.integers(1, 40), st.lists(KEYS, max_size=60))
def test_a_hash_table_is_placed_as_kafkas_java_client_places_it(partitions, keys):
    partitioning = Partitioning(partitions)
    expected = [partition_of(key, partitions) for key in keys]
    assert [partitioning.of(key) for key in keys] == expected
    assert partitioning.of_each(keys).tolist() == expected
    assert partitioning.listed(keys) == expected
    assert partitioning.touched(b"x", b"y") == range(partitions)
    assert partitioning.legs(b"x", b"y", reverse=True) == [range(partitions)]


@given(SPLITS, KEYS | st.just(b""), st.none() | KEYS, st.booleans())
def test_a_range_touches_the_partitions_of_its_keys_and_no_others(splits, start, end, reverse):
    partitioning = Partitioning(len(splits) + 1, splits)
    touched = partitioning.touched(start, end)
    assert partitioning.legs(start, end, reverse=reverse) == [(p,) for p in sorted(touched, reverse=reverse)]
    lows, highs = [b"", *splits], [*splits, None]
    for partition, (low, high) in enumerate(zip(lows, highs, strict=True)):
        first = max(low, start)
        meets = all(bound is None or first < bound for bound in (high, end))
        assert not meets or partition in touched
    if end is None or start < end:  # the partitions at both ends can hold a key of the range
        assert partitioning.of(start or b"\0") == touched[0] or start == b""
        assert end is None or lows[touched[-1]] < end
    else:
        assert list(touched) == [naive(splits, start)]


def test_the_fold_skips_what_stands_in_another_partition_than_its_keys_range():
    keys = [b"a", b"lz", b"m", b"zebra", b"t\xff"]
    records = Records(range(5), keys, [b"1"] * 5, [7] * 5, [None] * 5)
    folded = [fold_batch(records, FoldRules.of(ORDERED, p), 0, 0) for p in range(3)]
    assert [sorted(one.entries) for one in folded] == [[b"a", b"lz"], [b"m"], [b"t\xff", b"zebra"]]
    assert folded[1].quarantined == [(o, "wrong-partition") for o in (0, 1, 3, 4)]


def test_the_record_of_an_ordered_tables_definition_never_changes():
    raw = ORDERED.to_json()
    assert raw == (
        b'{"adopted":false,"allow_control_records":true,"description":"","dropped":false,'
        b'"epoch":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","format":1,"former_epochs":[],"max_value_bytes":1000000,'
        b'"name":"t","partitions":3,"skips":{},"splits":["bQ==","dP8="],"topic":"t"}'
    )
    assert Table.from_json(raw) == ORDERED
    assert b"splits" not in replace(ORDERED, splits=()).to_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"splits": None},
        {"splits": "bQ=="},
        {"splits": ["m", "t"]},
        {"splits": ["bQ==", 5]},
        {"splits": ["bQ=="]},
        {"splits": ["dP8=", "bQ=="]},
        {"splits": ["bQ==", "bQ=="]},
        {"splits": ["", "bQ=="]},
        {"adopted": True},
    ],
)
def test_split_points_that_cannot_be_are_damage_in_a_definition(wrong):
    with pytest.raises(Corrupted):
        Table.from_json(orjson.dumps({**orjson.loads(ORDERED.to_json()), **wrong}))


@pytest.mark.parametrize(
    ("splits", "partitions", "says"),
    [
        ((b"m",), 4, "1 split points make 2 partitions, not 4"),
        ((b"",), 2, "a split point is a key of 1 to"),
        ((b"x" * (MAX_KEY_BYTES + 1),), 2, "a split point is a key of 1 to"),
        ((b"t", b"m"), 3, "sort them as bytes"),
        ((b"m", b"m"), 3, "name each once"),
        (("m",), 2, "keys as bytes"),
        ("mt", 3, "keys as bytes"),
        ((b"a" * 40_000, b"b" * 40_000), 3, f"at most {MAX_SPLITS_BYTES:,} bytes in all"),
    ],
)
def test_split_points_that_cannot_be_are_refused_with_what_to_do(splits, partitions, says):
    with pytest.raises(BadDefinition, match=says):
        check_splits(splits, partitions)


def test_a_manifest_names_the_split_points_by_which_its_rows_were_placed():
    made = Manifest("n", "t", "t", "ab" * 16, 3, 100, "compact", None, 1, 2, "j", "b", {}, [], splits=ORDERED.splits)
    assert b'"splits":["bQ==","dP8="]' in made.to_json()
    assert Manifest.from_json(made.to_json()) == made
    assert made.partitioning == ORDERED.partitioning
    assert b"splits" not in replace(made, splits=()).to_json()
    with pytest.raises(Corrupted):
        Manifest.from_json(replace(made, partitions=4).to_json())


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ({"partitions": 4}, Partitioning(4)),
        ({"partitions": 3, "splits": ["m", {"base64": base64.b64encode(b"t\xff").decode()}]}, ORDERED.partitioning),
        ({"partitions": 3, "splits": ["m"]}, None),
        ({"partitions": 2, "splits": [{"base64": "?"}]}, None),
        ({"partitions": 2, "splits": [7]}, None),
        ({"partitions": 2, "splits": "m"}, None),
        ({"partitions": 0}, None),
        ({}, None),
    ],
)
def test_a_client_takes_the_partitioning_from_a_tables_page(page, found):
    assert partitioning_of(page) == found


def test_nobody_goes_around_the_partitioning():
    """Who hashed a key alone would be wrong about ordered tables."""
    known = {"logstore.model.partitioning.partitioning", "logstore.log.write.librdkafka"}
    users = {user for user, used in imports().items() if "logstore.model.partitioner" in used}
    assert users == known
