"""Batch jobs on conditional tables: what they make of them, and which do not work on them yet."""

import pytest
import support_spark
from support_conditional_log import facts, lane_facts, write_hard
from support_jobs import context, make_table
from support_log import produce

from batch.datasource import plan
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.diff import diff
from batch.jobs.restore import restore
from batch.jobs.trim import trim
from logstore.model.errors import Unsupported


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


JOBS = {
    "audit": audit,
    "trim": trim,
    "diff": lambda ctx, table: diff(ctx, table.name, table.name),
    "restore": lambda ctx, table: restore(ctx, table.name, "latest", f"{table.name}-fork"),
    "spark": lambda ctx, table: plan.find(ctx.bootstrap, table.name, ctx.storage.url),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_that_folds_plain_tables_alone_says_so_and_writes_nothing(ctx, job):
    table = make_table(ctx, f"conditional-refused-{job}", 1, conditional=True)
    with pytest.raises(Unsupported, match="conditional table"):
        JOBS[job](ctx, table)
    assert ctx.storage.list(table.topic) == []


def sound(ctx, table, manifest):
    assert ctx.repository(table).verify(manifest.name) == []
    return facts(manifest)


def test_lane_local_engine_and_spark_come_to_the_same_state(ctx, tmp_path):
    table = make_table(ctx, "conditional-engines", 2, conditional=True)
    write_hard(ctx.bootstrap, table, 600)
    made = rebuild(ctx, table).manifest
    assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / "lane")
    assert all(part.decisions and part.entries and part.counter for part in made.parts.values())
    ctx.engines = support_spark.context(ctx.bootstrap, tmp_path).engines
    again = rebuild(ctx, table).manifest
    assert sound(ctx, table, again) == lane_facts(ctx.bootstrap, table, again, tmp_path / "lane-again")
    assert {p: one[:3] for p, one in facts(again).items()} == {p: one[:3] for p, one in facts(made).items()}


@pytest.mark.parametrize("merge_share", [0.0, 10.0])
def test_a_compaction_upon_another_gives_what_a_rebuild_gives(ctx, tmp_path, merge_share):
    """Outcomes end between the cuts, rows are incremented upon the base, and ids are repeated across them."""
    more = {"conditional": True, "dedup_records": 70, "merge_share": merge_share}
    table = make_table(ctx, f"conditional-compact-{merge_share:g}", 2, **more)
    levels = []
    for seed in range(1, 6):
        write_hard(ctx.bootstrap, table, 150, seed=seed)
        made = compact(ctx, table).manifest
        assert sound(ctx, table, made) == lane_facts(ctx.bootstrap, table, made, tmp_path / f"lane-{seed}")
        assert all(0 < part.decisions <= 2 * 70 for part in made.parts.values())
        levels.append(max(file.level for file in made.files_of(0)))
    assert levels == ([0] * 5 if merge_share == 0 else [0, 1, 2, 3, 1])
    rebuilt = rebuild(ctx, table).manifest
    assert {p: one[:3] for p, one in facts(rebuilt).items()} == {p: one[:3] for p, one in facts(made).items()}


def test_a_compaction_of_what_changes_no_row_keeps_the_files_of_the_rows_and_writes_outcomes_anew(ctx, tmp_path):
    table = make_table(ctx, "conditional-rejected", 1, conditional=True)
    produce(ctx.bootstrap, table.topic, [(b"k", b"v")])
    first = compact(ctx, table).manifest
    assert (first.parts[0].decisions, first.decisions_of(0), first.parts[0].rows_digest) == (0, None, "")
    produce(ctx.bootstrap, table.topic, [(b"k", b"w")], headers=[("ls.if", b"absent")])
    second = compact(ctx, table).manifest
    assert second.files_of(0) == first.files_of(0)
    assert (second.parts[0].decisions, second.parts[0].counter) == (1, 1)
    assert sound(ctx, table, second) == lane_facts(ctx.bootstrap, table, second, tmp_path / "lane")
    assert compact(ctx, table).unchanged
    produce(ctx.bootstrap, table.topic, [(b"k", b"x")])
    third = compact(ctx, table).manifest
    assert third.decisions_of(0).path != second.decisions_of(0).path
    assert sound(ctx, table, third) == lane_facts(ctx.bootstrap, table, third, tmp_path / "lane-third")
