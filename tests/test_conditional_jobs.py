"""Batch jobs on conditional tables: what they make of them, and which do not work on them yet."""

import pytest
from support_jobs import context, make_table

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
    "compact": compact,
    "rebuild": rebuild,
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
