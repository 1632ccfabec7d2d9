"""A table's definition: its bytes in the log, and what cannot be a table."""

import re
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from logstore.model.errors import BadDefinition, Corrupted, Unsupported
from logstore.model.key import MAX_MAX_VALUE_BYTES
from logstore.model.table import Table, check_limits, check_name

TABLE = Table(
    "users", "people", "0af1" * 8, 4, adopted=True, skips={0: [(2, 2), (4, 9)], 3: [(7, 7)]},
    former_epochs=("ab" * 16,), revision=12
)  # fmt: skip
GOLDEN = (
    b'{"adopted":true,"allow_control_records":true,"description":"","dropped":false,"epoch":"0af10af10af10af10af10af10af10af1","format":1,'
    b'"former_epochs":["abababababababababababababababab"],"max_value_bytes":1000000,"name":"users","partitions":4,'
    b'"skips":{"0":[[2,2],[4,9]],"3":[[7,7]]},"topic":"people"}'
)


def test_the_record_of_a_definition_never_changes():
    assert TABLE.to_json() == GOLDEN
    assert Table.from_json(GOLDEN, revision=12) == TABLE


def test_how_snapshots_are_made_is_written_where_it_is_not_the_usual_way():
    table = replace(
        TABLE,
        compression="zstd",
        block_bytes=4_096,
        keep_snapshots=7,
        schedule={"every_mutations": 5, "every_minutes": None},
    )
    more = {
        "compression": "zstd",
        "block_bytes": 4_096,
        "keep_snapshots": 7,
        "schedule": {"every_mutations": 5, "every_minutes": None},
    }
    assert table.to_json() == orjson.dumps({**orjson.loads(GOLDEN), **more}, option=orjson.OPT_SORT_KEYS)
    assert Table.from_json(table.to_json(), revision=12) == table


def test_a_repair_is_added_and_nothing_else_changes():
    repaired = TABLE.with_skip(0, 3, 3).with_skip(1, 5, 6)
    assert repaired.skips == {0: [(2, 2), (3, 3), (4, 9)], 1: [(5, 6)], 3: [(7, 7)]}
    assert TABLE.skips[0] == [(2, 2), (4, 9)]
    assert Table.from_json(repaired.to_json(), 12) == repaired


def changed(**fields):
    return orjson.dumps({**orjson.loads(GOLDEN), **fields})


@pytest.mark.parametrize(
    "raw",
    [b"", b"nonsense", b"[]", b"7", b"null", b"{}", b'{"format":1}',
     changed(skips=[]), changed(skips={"x": []}), changed(skips={"0": [[1]]}), changed(former_epochs=None),
     changed(name=None), changed(topic=5), changed(description=[]), changed(former_epochs=[1]), changed(epoch=""),
     changed(epoch=None),
     changed(partitions="4"), changed(partitions=0), changed(partitions=None), changed(max_value_bytes=0),
     changed(max_value_bytes=None),
     changed(compression="rar"), changed(compression=1), changed(block_bytes=1), changed(block_bytes="x"),
     changed(keep_snapshots=0),
     changed(schedule=5), changed(base="x"), changed(origin=[]),
     changed(dropped="no"), changed(adopted=1), changed(allow_control_records=None),
     changed(skips={"0": [[9, 1]]}), changed(skips={"0": [[-1, 1]]}), changed(skips={"0": [["a", "b"]]}),
     changed(skips={"4": [[0, 1]]}), changed(skips={"0": [[0, 2**63]]}), changed(partitions=True),
     changed(name="../../x"), changed(name="/etc"), changed(name="a/b"), changed(name=".."), changed(name="logstore.x"),
     changed(topic="../x"), changed(topic=".."), changed(topic=""), changed(topic="\0"),
     changed(topic="logstore.nodes"),
     changed(epoch="e"), changed(epoch="../" * 10 + "ab"), changed(epoch="0AF1" * 8), changed(former_epochs=["../x"]),
     changed(schedule={"every_mutations": "a"}), changed(base={"snapshot": 5}), changed(base={"snapshot": "../x"}),
     changed(base={}), changed(origin={"x": 1})],
)  # fmt: skip
def test_what_is_no_definition_is_damage(raw):
    with pytest.raises(Corrupted):
        Table.from_json(raw, 3)


def test_a_definition_of_a_later_format_says_upgrade():
    with pytest.raises(Unsupported, match="upgrade"):
        Table.from_json(changed(format=2))


def test_a_definition_with_a_field_of_a_later_build_says_upgrade_and_names_it():
    with pytest.raises(Unsupported, match=r"\['versions'\].*upgrade"):
        Table.from_json(changed(versions=3))


def test_a_definition_under_another_tables_key_is_damage():
    assert Table.from_json(GOLDEN, 12, b"users") == TABLE
    with pytest.raises(Corrupted, match="its key is b'others'"):
        Table.from_json(GOLDEN, 12, b"others")


@pytest.mark.parametrize("name", ["a", "0", "users", "a.b_c-d", "x" * 100])
def test_a_name_of_the_alphabet_is_a_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "-a", "_a", "A", "a b", "a/b", "a\n", "ä", "x" * 101, "logstore.tables", "logstore."]
)
def test_other_names_are_refused(name):
    with pytest.raises(BadDefinition):
        check_name(name)


@pytest.mark.parametrize(("partitions", "max_value_bytes"), [(1, 1), (1024, MAX_MAX_VALUE_BYTES)])
def test_limits_may_be_reached(partitions, max_value_bytes):
    check_limits(partitions, max_value_bytes)


@pytest.mark.parametrize(("partitions", "max_value_bytes"), [(0, 1), (1025, 1), (1, 0), (1, MAX_MAX_VALUE_BYTES + 1)])
def test_limits_may_not_be_passed(partitions, max_value_bytes):
    with pytest.raises(BadDefinition):
        check_limits(partitions, max_value_bytes)


def test_a_definition_of_nothing_but_defaults_is_read_as_it_was_written():
    plain = Table("t", "t", "00" * 16, 1)
    assert Table.from_json(plain.to_json()) == plain
    assert plain.revision == -1


def test_the_revision_is_where_the_record_stands_and_not_in_it():
    assert b"revision" not in TABLE.to_json()
    assert Table.from_json(GOLDEN, 77).revision == 77


def test_a_repair_of_a_partition_keeps_its_ranges_in_order():
    table = TABLE.with_skip(5, 9, 9).with_skip(5, 1, 3).with_skip(5, 5, 6)
    assert table.skips[5] == [(1, 3), (5, 6), (9, 9)]


def test_a_damaged_definition_says_where_it_stands():
    with pytest.raises(Corrupted, match=r"offset 31 of logstore\.tables"):
        Table.from_json(b"{", 31)


def test_the_page_draws_every_field_of_a_definition():
    page = (Path(__file__).parent.parent / "docs" / "log_format.md").read_text()
    drawn = re.findall(r'^      "(\w+)":', page, re.MULTILINE)
    assert drawn == sorted(orjson.loads(GOLDEN))
