"""Tables of wide rows and siblings as Spark data frames: a line a value, or a line a row."""

import pytest
from support_jobs import ends, make_table, token
from support_log import produce
from support_spark import context
from support_wide_log import sibling_fields, wide_fields, write_rows
from test_source import frame, options
from test_wide_jobs import edit, lane_rows

from batch.datasource.row_shape import RowShape, shape_of
from batch.datasource.source import TableReader
from batch.jobs.compact import compact
from logstore.model.errors import UsageError

HOUR_MS = 3_600_000


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def read_here(ctx, table, **more):
    """Lines of a frame, read in this process."""
    reader = TableReader(options(ctx, table, **more))
    return [line for part in reader.partitions() for batch in reader.read(part) for line in batch.to_pylist()]


def cells_of(lines):
    return [tuple(line[name] for name in ("key", "family", "qualifier", "version", "value")) for line in lines]


def wanted_cells(rows, versions):
    """The cells of rows as the lane has them."""
    return [
        (key, *column, one.version, one.payload)
        for key, row in rows.items()
        for column, cell in sorted(row.cells.items())
        for one in (*cell.members, *cell.older[: versions - 1])
    ]


@pytest.mark.parametrize("kind", ["wide", "siblings"])
def test_a_line_a_value_is_what_the_lane_has_at_any_position(ctx, tmp_path, kind):
    fields = wide_fields(expiring=True) if kind == "wide" else sibling_fields()
    table = make_table(ctx, f"{kind}-lines", 2, **fields)
    write_rows(ctx.bootstrap, table, 150)
    manifest = compact(ctx, table).manifest
    write_rows(ctx.bootstrap, table, 80, seed=2)
    at = ends(ctx, table)
    cuts = {partition: part.cut for partition, part in manifest.parts.items()}
    for name, offsets, more in (("snapshot", cuts, {}), ("as-of", at, {"as_of": token(table, at)})):
        rows = lane_rows(ctx, table, offsets, tmp_path / name)
        for versions in ("1", "2", "all"):
            found = cells_of(read_here(ctx, table, shape="cells", versions=versions, **more))
            assert sorted(found) == sorted(wanted_cells(rows, 99 if versions == "all" else int(versions))), versions
        whole = read_here(ctx, table, shape="rows", **more)
        assert {line["key"]: line["version"] for line in whole} == {key: row.version for key, row in rows.items()}


def test_spark_reads_cells_and_rows(ctx):
    table = make_table(ctx, "wide-frame", 2, **wide_fields(expiring=True))
    edit(ctx, table, b"a", ["set", "content", "title", "old"], ["set", "anchor", b"\xff", "x", HOUR_MS])
    edit(ctx, table, b"a", ["set", "content", "title", "new"], ["incr", "count", "hits", 2])
    edit(ctx, table, b"b", ["set", "content", "title", "b"])
    compact(ctx, table)
    cells = frame(ctx, table, shape="cells", versions="all")
    assert sorted((bytes(c.key), c.family, bytes(c.qualifier), bytes(c.value)) for c in cells.collect()) == [
        (b"a", "anchor", b"\xff", b"x"), (b"a", "content", b"title", b"new"), (b"a", "content", b"title", b"old"),
        (b"a", "count", b"hits", (2).to_bytes(8)), (b"b", "content", b"title", b"b"),
    ]  # fmt: skip
    assert cells.where("family = 'content'").groupBy("key").count().count() == 2
    (row,) = frame(ctx, table, shape="rows", key="a").collect()
    assert [bytes(one.value) for one in row.families["content"]] == [b"new"]
    assert sorted(row.families) == ["anchor", "content", "count"]
    assert frame(ctx, table, shape="rows", families="anchor,count").count() == 1


def test_a_table_of_several_values_asks_for_its_shape(ctx):
    for name, fields in (("wide", wide_fields()), ("siblings", sibling_fields())):
        table = make_table(ctx, f"{name}-shapeless", 1, **fields)
        with pytest.raises(UsageError, match=r'\.option\("shape", "cells"\)'):
            TableReader(options(ctx, table))
    plain = make_table(ctx, "plain-shape", 1)
    produce(ctx.bootstrap, plain.topic, [(b"k", b"v")])
    found = read_here(ctx, plain, shape="cells", as_of=token(plain, ends(ctx, plain)))
    assert cells_of(found) == [(b"k", "", b"", 0, b"v")]


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"shape": "table"}, "snapshot", r'"shape", "cells"'),
        ({"versions": "2"}, "snapshot", r'versions goes with .option\("shape", "cells"\)'),
        ({"shape": "cells", "versions": "0"}, "snapshot", "versions is 1 or more, or all, not '0'"),
        ({"shape": "cells"}, "changes", "shape goes with snapshot and as_of"),
    ],
)
def test_a_shape_that_cannot_be_says_what_to_write(given, kind, said):
    with pytest.raises(UsageError, match=said):
        shape_of(given, kind)


def test_the_shapes_of_options():
    assert shape_of({}, "changes") == RowShape()
    assert shape_of({"shape": "rows", "families": "a,b"}, "as_of") == RowShape("rows", 1, frozenset({"a", "b"}))
