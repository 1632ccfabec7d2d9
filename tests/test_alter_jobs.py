"""A log whose column families were altered: what batch jobs make of it is what the lane makes, whatever runs them."""

import msgpack
import pytest
import support_spark
from support_conditional_log import lane_facts
from support_jobs import context, ends, make_table, token
from support_log import produce
from support_wide_log import FAMILIES, wide_fields, write_rows
from test_conditional_jobs import sound
from test_wide_jobs import lane_rows, without_time

from batch.jobs.compact import compact, rebuild
from batch.jobs.restore import restore
from logstore.log.tables import ddl


def note(ctx, table, *values):
    for n, value in enumerate(values):
        edit = msgpack.packb([["set", "notes", "q", value]])
        keys = [(b"key-%03d" % key, edit) for key in range(n, 20)]
        produce(ctx.bootstrap, table.topic, keys, headers=[("ls.op", b"edit")])


def altered(ctx, table, **asked):
    return ddl.alter(ctx.registry, table.name, **asked).table


def history(rows, family, qualifier):
    cells = [row.cells.get((family, qualifier)) for row in rows.values()]
    return {tuple(one.payload for one in (*cell.members, *cell.older)) for cell in cells if cell is not None}


@pytest.mark.slow
def test_lane_local_engine_and_spark_change_the_rules_where_the_log_does(kafka, tmp_path):
    ctx = context(kafka.bootstrap, tmp_path)
    created = make_table(ctx, "altered-engines", 2, **wide_fields(expiring=True, multi_row=True))
    note(ctx, created, "nobody")
    write_rows(ctx.bootstrap, created, 150)
    first = compact(ctx, created).manifest
    table = altered(ctx, created, add_families={"notes": {"versions": 2}}, families={"content": {"versions": 1}})
    note(ctx, table, "1", "2", "3")
    write_rows(ctx.bootstrap, table, 150, seed=2)
    second = compact(ctx, table).manifest
    table = altered(ctx, table, families={"notes": {"versions": 4}, "anchor": {"ttl_ms": 60_000}})
    note(ctx, table, "4", "5")
    write_rows(ctx.bootstrap, table, 150, seed=3)
    third = compact(ctx, table).manifest
    revisions = [one.revision for one in table.rules]
    assert [{part.rules for part in made.parts.values()} for made in (first, second, third)] == [{r} for r in revisions]
    assert sound(ctx, table, third) == lane_facts(ctx.bootstrap, table, third, tmp_path / "lane")
    rows = lane_rows(ctx, table, ends(ctx, table), tmp_path / "rows")
    assert any(len(values) == 4 for values in history(rows, "notes", b"q"))
    assert not any(b"nobody" in values for values in history(rows, "notes", b"q"))
    ctx.engines = support_spark.context(ctx.bootstrap, tmp_path).engines
    spark = rebuild(ctx, table).manifest  # at later cuts, and so of a later log time, from offset 0 on
    assert sound(ctx, table, spark) == lane_facts(ctx.bootstrap, table, spark, tmp_path / "lane-again")
    assert {part.rules for part in spark.parts.values()} == {revisions[2]}


@pytest.mark.slow
def test_a_fork_begins_with_the_families_of_its_position(kafka, tmp_path):
    ctx = context(kafka.bootstrap, tmp_path)
    source = make_table(ctx, "altered-source", 2, **wide_fields())
    write_rows(ctx.bootstrap, source, 40)
    before = token(source, ends(ctx, source))
    source = altered(ctx, source, add_families={"notes": {"versions": 2}})
    note(ctx, source, "1", "2")
    compact(ctx, source)
    after = token(source, ends(ctx, source))
    source = altered(ctx, source, add_families={"more": {}})
    old, new = (restore(ctx, source.name, at, f"altered-{n}").table for n, at in enumerate((before, after)))
    assert (old.families, old.rules) == (FAMILIES, ())
    assert (new.families, new.rules) == ({**FAMILIES, "notes": {"versions": 2}}, ())
    note(ctx, new, "3")
    made = compact(ctx, new).manifest
    assert without_time(sound(ctx, new, rebuild(ctx, new).manifest)) == without_time(sound(ctx, new, made))
    rows = lane_rows(ctx, source, ends(ctx, source), tmp_path / "rows")
    assert (b"2", b"1") in history(rows, "notes", b"q")
