"""Whichever engine runs a job, the result is the same; and what a task may do to its engine."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest
import support_spark
from support_jobs import InProcess, context, digests, ends, make_table, token, write
from support_log import produce

from batch.defaults import AUTO, LOCAL, SPARK
from batch.engine import choice
from batch.engine.choice import Engines, JobSize
from batch.engine.local import LocalEngine
from batch.engine.protocol import ATTEMPTS, TRIES
from batch.jobs.archive import archive, repair_archive, verify_archive
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.diff import diff
from batch.jobs.restore import restore
from logstore.log.control import append_control
from logstore.model.errors import Corrupted, LogStoreError, LogUnreachable, UsageError


def written(ctx, name):
    """A table of everything that the fold knows: deletes, quarantined records, cuts; and it takes no more of those."""
    table = make_table(ctx, name, 3, max_value_bytes=1_000)
    write(ctx.bootstrap, table, 1_500)
    append_control(ctx.bootstrap, table, "cut", {"job": "j", "table": name})
    produce(ctx.bootstrap, table.topic, [(b"", b"v"), (b"k", b"v" * 1_001), (b"key-00001", None)])
    write(ctx.bootstrap, table, 300, seed=2, deletes=0.6)
    taking_none = replace(table, allow_control_records=False)  # so that two jobs end at the same cut
    ctx.registry.write(taking_none)
    return taking_none


def facts(manifest):
    """A manifest but for the names and the attempts in it."""
    files = [
        (f.partition, f.entries, f.size_bytes, f.first_key, f.last_key)
        for f in sorted(manifest.files, key=lambda f: (f.partition, f.first_key))
    ]
    parts = {p: part._replace(leader_epoch=0) for p, part in manifest.parts.items()}
    return manifest.kind, manifest.partitions, manifest.max_value_bytes, parts, [row[:2] + row[3:] for row in files]


def archived(ctx, table):
    return [(s.partition, s.start, s.end, s.records, s.last) for s in ctx.archive(table).segments()]


def outcomes(ctx, table, fork):
    """What every job says of a table."""
    archive(ctx, table)
    found = {"archive": archived(ctx, table), "verify": verify_archive(ctx, table)["records"]}
    first = compact(ctx, table).manifest
    at = token(table, ends(ctx, table))
    found |= {"compact": facts(first), "repair": repair_archive(ctx, table)}
    found["audit"] = [(s.partition, s.verdict) for s in audit(ctx, table, timeout_s=0).suspects]
    found["rebuild"] = facts(rebuild(ctx, table).manifest)
    found["restore"] = facts(restore(ctx, table.name, at, fork).manifest)
    compared = diff(ctx, f"{table.name}@{at}", fork)
    return found | {"diff": (compared.counts, compared.keys)}, compared.same


def test_the_shared_session_is_local():
    assert support_spark.spark().sparkContext.master == support_spark.MASTER


@pytest.mark.slow
def test_every_job_gives_the_same_with_every_engine(kafka, tmp_path):
    local = context(kafka.bootstrap, tmp_path / "local")
    spark = support_spark.context(kafka.bootstrap, tmp_path / "spark")
    table = written(local, "engines")
    ours, same = outcomes(local, table, "engines-local")
    theirs, also = outcomes(spark, table, "engines-spark")
    assert ours == theirs
    assert same
    assert also
    write(kafka.bootstrap, table, 400, seed=3, deletes=0.5)
    mine, others = compact(local, table), compact(spark, table)
    assert facts(mine.manifest) == facts(others.manifest)
    assert digests(mine.manifest) == digests(rebuild(spark, table).manifest)
    left, right = (diff(one, "engines", f"engines-{name}") for one, name in ((local, "local"), (spark, "spark")))
    assert (left.counts, left.keys) == (right.counts, right.keys)
    assert not left.same
    assert any(part.quarantine_counts for part in mine.manifest.parts.values())


@pytest.mark.slow
def test_a_partition_folded_by_ranges_of_keys_is_the_same_with_every_engine(kafka, tmp_path):
    whole = context(kafka.bootstrap, tmp_path / "whole")
    local = context(kafka.bootstrap, tmp_path / "local")
    spark = support_spark.context(kafka.bootstrap, tmp_path / "spark")
    local.task_bytes = spark.task_bytes = 6_000
    table = written(whole, "engines-ranges")
    for seed in (3, 4):
        made = [compact(ctx, table).manifest for ctx in (whole, local, spark)]
        assert made[0].parts == made[1].parts == made[2].parts
        assert len(made[0].files) < len(made[1].files)
        assert len(made[0].files) < len(made[2].files)
        write(kafka.bootstrap, table, 400, seed=seed, deletes=0.5)
    assert local.repository(table).verify(made[1].name) == []
    assert digests(rebuild(spark, table).manifest) == digests(compact(whole, table).manifest)


@pytest.fixture(scope="module")
def engine():
    """Two processes for the tests of the engine: a start of them for each costs more than all that they do."""
    made = LocalEngine(2)
    yield made
    made.close()


def run(engine, function, items):
    return engine.run("step", function, items, lambda done: None)


def test_results_come_in_order_and_progress_is_told(engine):
    told = []
    assert engine.run("step", abs, [-3, 1, -2, 0], told.append) == [3, 1, 2, 0]
    assert told == [1, 2, 3, 4]


GETPID = "__import__('os').getpid()"
DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def test_tasks_run_in_so_many_other_processes_that_are_kept(engine):
    engine.start()
    found = set(run(engine, eval, [GETPID] * 6)) | set(run(engine, eval, [GETPID] * 6))
    assert os.getpid() not in found
    assert 1 <= len(found) <= 2


def test_no_process_of_the_pool_loads_pandas(engine):
    """Arrow would, at its first array, where it is installed."""
    looks = "(__import__('pyarrow').array([1]), __import__('sys').modules.get('pandas'))[1]"
    assert run(engine, eval, [looks]) == [None]


def counted(path, then):
    """A task that leaves a line for every attempt."""
    return f"import os\nwith open({str(path)!r}, 'a') as file: file.write('.')\n{then}"


ERRORS = "from logstore.model import errors\n"


@pytest.mark.parametrize(
    ("then", "raised", "attempts"),
    [
        (DIE, r"step: a task failed 4 times, at last so: its process ended with signal SIGKILL", ATTEMPTS),
        ("os._exit(3)", r"its process ended with exit status 3", ATTEMPTS),
        ("1 / 0", r"step: a task failed 4 times, at last so: ZeroDivisionError: division by zero", ATTEMPTS),
        (f"{ERRORS}raise errors.LogUnreachable('away')", "^away$", TRIES),
        (f"{ERRORS}raise errors.Corrupted('broken')", "^broken$", 1),
    ],
)
def test_a_task_that_fails_is_tried_so_often_and_then_ends_the_job(engine, tmp_path, then, raised, attempts):
    with pytest.raises(LogStoreError, match=raised) as caught:
        run(engine, exec, [counted(tmp_path / "tries", then)])
    assert len((tmp_path / "tries").read_text()) == attempts
    assert type(caught.value) is {"^away$": LogUnreachable, "^broken$": Corrupted}.get(raised, LogStoreError)
    assert run(engine, abs, [-1]) == [1]


def test_a_task_whose_process_dies_once_is_done_by_another_one(engine, tmp_path):
    once = f"import os\nif not os.path.exists({str(tmp_path / 'died')!r}):\n    open({str(tmp_path / 'died')!r}, 'w')"
    assert run(engine, exec, [f"{once}\n    os.kill(os.getpid(), {signal.SIGKILL})", "1"]) == [None, None]
    assert (tmp_path / "died").exists()


def test_an_error_ends_the_tasks_that_still_run(engine):
    """Nobody waits for the other one, which would take for ever."""
    forever = "import signal\nwhile True: signal.pause()"
    with pytest.raises(Corrupted):
        run(engine, exec, [forever, f"{ERRORS}raise errors.Corrupted('broken')"])
    assert run(engine, abs, [-1, -2]) == [1, 2]


def test_what_a_task_prints_is_not_on_stdout(capfd):
    with closing(LocalEngine(1)) as engine:
        run(engine, exec, ["print('said', flush=True)"])
    said = capfd.readouterr()
    assert ("said" in said.out, "said" in said.err) == (False, True)


def test_processes_of_the_pool_look_for_modules_in_no_current_folder(tmp_path, monkeypatch):
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "__init__.py").write_text("raise SystemExit('another one')")
    monkeypatch.chdir(tmp_path)
    with closing(LocalEngine(1)) as engine:
        assert run(engine, abs, [-1]) == [1]


SMALL, LARGE, HEAVY = JobSize(1_000, 1_000), JobSize(6_000_000, 0), JobSize(1, 3 << 30)


@pytest.mark.parametrize(
    ("engines", "size", "name"),
    [
        (Engines(), SMALL, LOCAL),
        (Engines(), LARGE, SPARK),
        (Engines(), HEAVY, SPARK),
        (Engines(AUTO, "local[2]"), SMALL, SPARK),
        (Engines(AUTO, None, {"spark.driver.memory": "1g"}), SMALL, SPARK),
        (Engines(made={SPARK: InProcess()}), SMALL, SPARK),  # it runs already
        (Engines(LOCAL), LARGE, LOCAL),
        (Engines(SPARK), SMALL, SPARK),
        (Engines(most=JobSize(10, 10)), SMALL, SPARK),
    ],
)
def test_a_job_gets_spark_where_it_is_large_or_spark_is_asked_for(engines, size, name):
    assert engines.name_for(size) == name


def test_without_spark_a_large_job_runs_here_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert Engines().name_for(LARGE) == LOCAL
    assert "Spark is not installed" in caplog.text


def test_the_local_engine_has_no_master():
    with pytest.raises(UsageError, match="leave them out"):
        Engines(LOCAL, "local[2]")


LOCAL_ALONE = """
import importlib, pkgutil, sys
sys.modules |= {"pyspark": None, "py4j": None}
for name in ("batch.jobs", "batch.tasks", "batch.cli"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        importlib.import_module(module.name)
from batch.engine.choice import Engines, JobSize
engines = Engines()
print(engines.take(JobSize()).run("step", abs, [-1, 2], lambda done: None))
engines.close()
Engines("spark").take(JobSize())
"""


def test_jobs_run_where_spark_is_not_installed_and_who_asks_for_it_is_told():
    done = subprocess.run([sys.executable, "-c", LOCAL_ALONE], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "[1, 2]\n", done.stderr
    assert "pip install 'logstore-kv[batch]'" in done.stderr
