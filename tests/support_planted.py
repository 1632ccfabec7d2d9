"""Bugs that tests plant into the batch fold, to see that the checks catch them. The product knows none of them."""

import pyarrow as pa
from support_jobs import InProcess

from batch.tasks import fold
from logstore.model.folding.digest import TOMBSTONES


def drop_tombstones(monkeypatch):
    """A row that the tail deletes stays as the base snapshot has it."""
    right = fold.Fold.items
    monkeypatch.setattr(fold.Fold, "items", lambda self: (item for item in right(self) if item[1][0] not in TOMBSTONES))


def sort_by_key_only(monkeypatch):
    """Of a key's mutations in one buffer the first is kept, not the last."""
    right = fold._Keyed.newest

    def wrong(keyed):
        backwards = pa.array(range(keyed.rows.num_rows - 1, -1, -1))
        return right(fold._Keyed(keyed.rows.take(backwards).combine_chunks()))

    monkeypatch.setattr(fold._Keyed, "newest", wrong)


BUGS = {"drop-tombstones": drop_tombstones, "sort-by-key-only": sort_by_key_only}


def run_with(monkeypatch, ctx, bug, job):
    """The job's result where tasks run in this process, with the bug planted for so long."""
    with monkeypatch.context() as planted:
        BUGS[bug](planted)
        planted.setattr(ctx.engines, "made", {name: InProcess() for name in ctx.engines.made})
        return job()
