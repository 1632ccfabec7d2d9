"""A log that lost its end, as the batch jobs see it: archive and snapshots hold what was lost."""

import os

import pytest
from support_audit import whole
from support_log import produce
from support_store import cli
from support_wait import until

from batch.jobs.archive import archive, repair_archive
from batch.jobs.audit import audit
from batch.jobs.compact import compact
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogTruncated

KEPT = 80


def test_after_an_accepted_loss_archive_and_snapshots_go_on_with_the_log(tmp_path):
    with whole(tmp_path / "data") as store:
        table = store.create("lossy", "--partitions", "1")
        ctx = store.context()
        produce(ctx.bootstrap, table.topic, [(b"k%03d" % n, b"k") for n in range(KEPT)])
        first = compact(ctx, table).manifest
        store.adopted(table, first.name)
        log = store.data / "kafka" / "log" / f"{table.topic}-0" / f"{0:020d}.log"
        size = log.stat().st_size
        produce(ctx.bootstrap, table.topic, [(b"lost%03d" % n, b"lost") for n in range(50)])
        lossy = compact(ctx, table).manifest
        store.adopted(table, lossy.name)
        store.stop()
        os.truncate(log, size)
        store.start()
        ctx = store.context()
        produce(ctx.bootstrap, table.topic, [(b"new%03d" % n, b"new") for n in range(200)])
        with pytest.raises(LogTruncated, match=r"--accept-loss.*archive lossy --repair"):
            archive(ctx, table)
        repair = ("table", "repair", "lossy", "--partition", "0")
        data = ("--data-dir", str(store.data))
        until("it stops", lambda: "lost its end" in cli(*repair, "--json", *data, check=False).stdout)
        done = cli(*repair, "--accept-loss", "--yes", *data)
        assert f"snapshot {lossy.name} holds what was lost: it is refused" in done.stderr
        assert "`logstore batch archive lossy --repair`" in done.stderr
        ctx, table = store.context(), Registry(ctx.bootstrap).table("lossy")
        assert ctx.repository(table).verdicts().proof(first.name, 0).word == "proved"
        assert ctx.repository(table).verdicts().proof(lossy.name, 0).word == "refused"
        mended = repair_archive(ctx, table)
        assert (mended.replaced, mended.upto[0]) == (True, first.parts[0].cut)
        made = compact(ctx, table)
        assert made.manifest.parent == first.name
        expected = {f"k{n:03}" for n in range(KEPT)} | {f"new{n:03}" for n in range(200)}
        until("it is served", lambda: store.base(table) == {made.manifest.name})
        assert set(store.rows(table)) == expected
        assert audit(ctx, table).verdict() == "agree"
        assert repair_archive(ctx, table).replaced is False
