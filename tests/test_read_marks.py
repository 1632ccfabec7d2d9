"""Jobs that read a table's history let others work on the table, and what they read stays."""

import pytest
from support_jobs import context, ends, engines, make_table, pool, token, write

from batch.jobs.archive import repair_archive
from batch.jobs.audit import AGREE, audit
from batch.jobs.compact import compact
from batch.jobs.restore import restore
from batch.jobs.trim import trim
from logstore.model.errors import JobRunning


class During:
    """An engine with which something else is done before a step begins."""

    name = "local"

    def __init__(self, step, act):
        self._step, self._act, self.acted = step, act, 0

    def start(self):
        pool().start()

    def run(self, step, function, items, saw):
        if step == self._step:
            self.acted += 1
            self._act()
        return pool().run(step, function, items, saw)

    def remote_places(self):
        return 0

    def at_once(self):
        return pool().at_once()

    def close(self):
        """The pool is everybody's."""


@pytest.fixture
def table(kafka, tmp_path):
    """A table that keeps one snapshot, and has two that differ."""
    ctx = context(kafka.bootstrap, tmp_path)
    made = make_table(ctx, f"reads-{tmp_path.name}", 2, keep_snapshots=1)
    for seed in (1, 2):
        write(kafka.bootstrap, made, 300, seed=seed)
        compact(ctx, made)
    return made


@pytest.fixture
def beside(kafka, tmp_path, table):
    """What others do meanwhile: they make snapshots, and what is read keeps them from nothing else but its removal."""
    ctx = context(kafka.bootstrap, tmp_path)
    made = []

    def act():
        for seed in (3, 4):
            write(kafka.bootstrap, table, 300, seed=seed)
            made.append(compact(ctx, table).manifest)
        for forbidden in (lambda: trim(ctx, table, yes=True), lambda: repair_archive(ctx, table)):
            with pytest.raises(JobRunning, match="reads the table's history"):
                forbidden()

    act.made = made
    return act


def reading(kafka, tmp_path, step, act):
    ctx = context(kafka.bootstrap, tmp_path)
    engine = During(step, act)
    ctx.engines = engines(engine)
    return ctx, engine


def test_compactions_run_and_end_while_an_audit_reads(kafka, tmp_path, table, beside):
    ctx, engine = reading(kafka, tmp_path, "fold", beside)
    repository = ctx.repository(table)
    audited = repository.current().name
    found = audit(ctx, table, timeout_s=0)
    assert engine.acted == 1
    assert found.problems == []
    assert found.snapshot.name == audited
    assert {s.verdict for s in found.suspects if s.name == f"snapshot {audited}"} == {AGREE}
    assert repository.current().name == beside.made[-1].name
    assert audited in repository.names()
    assert beside.made[0].name not in repository.names()  # as nobody read that one
    repository.check_unread(5)


def test_compactions_run_and_end_while_a_restore_reads(kafka, tmp_path, table, beside):
    ctx, engine = reading(kafka, tmp_path, "fold", beside)
    before = ctx.repository(table).manifest(ctx.repository(table).current().name)
    at = token(table, ends(ctx, table))
    made = restore(ctx, table.name, at, f"{table.name}-fork")
    assert engine.acted == 1
    assert sum(part.entries for part in made.manifest.parts.values()) == sum(p.entries for p in before.parts.values())
    assert before.name in ctx.repository(table).names()
    ctx.repository(table).check_unread(5)
