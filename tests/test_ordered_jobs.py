"""Batch jobs on ordered tables: the same snapshots with every engine, forks that keep the split points, diffs."""

import random
from dataclasses import replace

import pytest
import support_spark
from hypothesis import given
from hypothesis import strategies as st
from support_jobs import content, context, digests, ends, live, make_table, token
from support_log import produce

from batch.datasource.key_filter import Keys
from batch.datasource.plan import Planner
from batch.datasource.read import TableSource
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.diff import diff, groups_of
from batch.jobs.restore import restore
from logstore.model.partitioning.partitioning import Partitioning

SPLITS = (b"h", b"p", b"p\xff")
SEED = 20_261_130


def ordered(ctx, name, rows, **more):
    """An ordered table of these rows, each in the partition of its range."""
    table = make_table(ctx, name, len(SPLITS) + 1, splits=SPLITS, **more)
    put(ctx, table, rows)
    return table


def put(ctx, table, rows):
    for partition in range(table.partitions):
        mine = [(key, value) for key, value in rows if table.partitioning.of(key) == partition]
        if mine:
            produce(ctx.bootstrap, table.topic, mine, partition)


def made_up(seed, count=800):
    print("seed", seed)
    rng = random.Random(seed)
    keys = [rng.choice([b"a", b"h", b"k", b"p", b"p\xff", b"z"]) + rng.randbytes(1) for _ in range(count)]
    return [(key, None if rng.random() < 0.2 else rng.randbytes(9)) for key in keys]


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path / "local")


def test_snapshots_are_the_same_with_every_engine_and_hold_what_the_fold_makes(ctx, kafka, tmp_path):
    spark = support_spark.context(kafka.bootstrap, tmp_path / "spark")
    table = ordered(ctx, "ord-engines", made_up(SEED))
    produce(ctx.bootstrap, table.topic, [(b"apple", b"of partition 0"), (b"\xff", b"of partition 3")], partition=1)
    table = replace(table, allow_control_records=False)  # so that two jobs end at the same cut
    ctx.registry.write(table)
    local, theirs = compact(ctx, table).manifest, compact(spark, table).manifest
    assert (local.splits, local.parts) == (SPLITS, theirs.parts)
    assert [part.quarantine_counts for part in local.parts.values()] == [{}, {"wrong-partition": 2}, {}, {}]
    for partition, end in ends(ctx, table).items():
        assert content(ctx, local, partition) == live(ctx.bootstrap, table, partition, end)
    put(ctx, table, made_up(SEED + 1, 200))
    changed = compact(ctx, table).manifest
    assert digests(changed) == digests(compact(spark, table).manifest) == digests(rebuild(ctx, table).manifest)
    assert ctx.repository(table).verify(changed.name) == []
    found = audit(ctx, table, timeout_s=0)
    assert {suspect.verdict for suspect in found.suspects if suspect.name.startswith("snapshot")} == {"agree"}


def test_a_file_of_keys_of_another_range_is_found_by_verify(ctx):
    table = ordered(ctx, "ord-verify", made_up(SEED))
    made = compact(ctx, table).manifest
    repository = ctx.repository(table)
    assert repository.verify(made.name) == []
    moved = replace(made, splits=(b"a", b"b", b"c"))
    path = ctx.storage.local(repository.file_path(f"{made.name}/_MANIFEST.json"))
    path.write_bytes(moved.to_json())
    assert any("it belongs to partition" in problem for problem in repository.verify(made.name))


def test_a_fork_keeps_the_split_points_and_takes_rows_by_them(ctx):
    source = ordered(ctx, "ord-fork", made_up(SEED))
    at = token(source, ends(ctx, source))
    fork = restore(ctx, source.name, at, "ord-fork-then").table
    assert (fork.partitions, fork.splits) == (source.partitions, SPLITS)
    assert diff(ctx, source.name, fork.name).same
    put(ctx, fork, [(b"kiwi", b"new")])
    assert diff(ctx, source.name, fork.name).counts["only_right"] == 1
    compact(ctx, fork)
    assert diff(ctx, source.name, fork.name).counts["only_right"] == 1


def test_tables_of_any_partitioning_are_compared(ctx):
    rows = made_up(SEED, 300)
    one = ordered(ctx, "ord-diff", rows)
    hashed = make_table(ctx, "ord-diff-hash", 3)
    produce(ctx.bootstrap, hashed.topic, rows)
    other = make_table(ctx, "ord-diff-other", 3, splits=(b"c", b"p"))
    put(ctx, other, rows)
    assert diff(ctx, one.name, hashed.name).same
    assert diff(ctx, other.name, one.name).same
    produce(ctx.bootstrap, hashed.topic, [(b"zz-new", b"1")])
    put(ctx, other, [(b"zz-new", b"1"), (b"zz-other", b"1")])
    assert diff(ctx, hashed.name, other.name).counts["only_right"] == 1
    assert diff(ctx, one.name, other.name).counts["only_right"] == 2


def test_a_reading_of_a_range_asks_the_partitions_of_the_range(ctx):
    table = ordered(ctx, "ord-read", made_up(SEED))
    compact(ctx, table)
    planner = Planner(TableSource(ctx.bootstrap, table, ctx.storage))
    for keys, expected in (
        (Keys(start=b"h", end=b"p"), {1}),
        (Keys(end=b"k"), {0, 1}),
        (Keys(start=b"p\xff"), {3}),
        (Keys(some=frozenset([b"a", b"z"])), {0, 3}),
        (Keys(), {0, 1, 2, 3}),
    ):
        assert {order.stretch.partition for order in planner.as_of("latest", keys)} == expected
        assert {order.partition for order in planner.snapshot("current", keys)} <= expected  # by the files' bounds, too


PARTITIONINGS = st.integers(1, 8).map(Partitioning) | st.sets(st.binary(min_size=1, max_size=2), min_size=1).map(
    lambda found: Partitioning(len(found) + 1, tuple(sorted(found)))
)


@given(PARTITIONINGS, PARTITIONINGS, st.lists(st.binary(min_size=1, max_size=3), max_size=40))
def test_a_key_lies_in_the_same_group_on_both_sides(left, right, keys):
    groups = groups_of(left, right)
    for key in keys:
        mine = [number for number, (here, _) in enumerate(groups) if left.of(key) in here]
        theirs = [number for number, (_, there) in enumerate(groups) if right.of(key) in there]
        assert mine == theirs
        assert len(mine) == 1
    assert {p for here, _ in groups for p in here} == set(range(left.partitions))
    assert {p for _, there in groups for p in there} == set(range(right.partitions))
