"""Restore: a table of another one's rows at any position of its history. The other one is not touched.

    1 topic      the fork's own, empty
    2 fold       the source's newest snapshot at or before the position, and its history since; entries get version 0
    3 verify     read every SSTable back
    4 publish    the manifest, then the pointer
    5 announce   a `base` record at offset 0 of every partition, which stands for all those entries, then the definition

Before the definition there is no table: a restore that dies leaves nothing that can be read, and may be asked for
again.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import logstore
from batch import failpoints
from batch.context import Clock, Context, new_id
from batch.datasource import read
from batch.datasource.key_filter import Keys
from batch.jobs import job_size
from batch.jobs.history import History
from batch.tasks import read_back, sst_files
from batch.tasks.sst_output import SstOutput
from logstore.log import topics
from logstore.log.tables import change, claims, forks
from logstore.model.hard_rows.changes.fork import forked
from logstore.model.position import Position
from logstore.model.rules.rules_revision import families_at
from logstore.model.table import Table, check_name
from logstore.snapshot.manifest import Manifest, PartFacts
from logstore.snapshot.work import FoldResult, RestoreOrder, StateOrder

CUT = 1  # the snapshot stands for the base record at offset 0
_SHORT = 40  # of a token in a description


@dataclass
class Restored:
    """Result of a restore; `table` is there now."""

    table: Table
    source: Table
    position: Position  # of the source
    manifest: Manifest
    records: int  # that were folded, beside the snapshots they follow
    seconds: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """JSON document of the run."""
        manifest = self.manifest
        return {
            "table": self.table.name, "epoch": self.table.epoch, "source": self.source.name,
            "position": self.position.token,
            "snapshot": manifest.name, "entries": sum(part.entries for part in manifest.parts.values()),
            "size_bytes": sum(file.size_bytes for file in manifest.files), "records": self.records,
            "digests": {str(p): part.digest for p, part in sorted(manifest.parts.items())},
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }  # fmt: skip


def restore(ctx: Context, source: str, at: str, name: str) -> Restored:
    """Make the table `name` of what `source` held at a token or a time.

    Raises NoSuchTable, UsageError and BadToken for what is no point of its history, NotRetained, TableExists,
    BadDefinition, JobRunning while another job works on either table, EpochChanged, LogTruncated, LogGap, Unsupported,
    Corrupted, StorageUnreachable, LogUnreachable.
    """
    table = ctx.registry.table(source)
    check_name(name)
    claims.free(ctx.registry, name)
    job = new_id()
    repository = ctx.repository(table)
    with ExitStack() as reading:
        with repository.lease(job, "restore", ctx.lease_s):
            reading.enter_context(repository.reading("restore", job, table.base_snapshot, ctx.lease_s))
            history = History(ctx, table)
            run = _RestoreRun(ctx, table, history, history.locate(at), job)
        return run.run(name, f"{source} as of {at if len(at) <= _SHORT else at[:_SHORT] + '...'}")


class _RestoreRun:
    """A restore whose parts are known, and stay as long as it reads; the source may be written and compacted."""

    def __init__(self, ctx: Context, source: Table, history: History, upto: dict[int, int], job: str) -> None:
        self.ctx, self.source, self.job = ctx, source, job
        self.parts = history.parts(upto)
        self.position = Position({(source.epoch, partition): offset for partition, offset in upto.items()})
        self.clock = Clock()
        self.created_ms = time.time_ns() // 1_000_000
        self.name = f"{self.created_ms:014d}-{job}"

    def run(self, name: str, description: str) -> Restored:
        """Restore in five steps."""
        with self.clock.step("start"):
            self.ctx.start(job_size.of_history(self.parts))
        with self.clock.step("topic"):
            fork, made = forks.begin(self.ctx.registry, self.source, name)  # 1
            fork = replace(fork, description=description, base={"snapshot": self.name}, origin=self._origin)
        failpoints.crash("restore:1")
        with self.ctx.repository(fork).lease(self.job, "restore", self.ctx.lease_s), self._undone(fork, made=made):
            manifest, records, revision = self._snapshot(fork)  # 2, 3, 4
            fork = replace(fork, families=families_at(self.source.revisions, revision))
        failpoints.crash("restore:4")
        with self.clock.step("announce"):
            forks.announce(self.ctx.bootstrap, fork, {"snapshot": self.name, **self._origin})  # 5
            failpoints.crash("restore:5")
            written = change.write(self.ctx.registry, fork, [])
        return Restored(written.table, self.source, self.position, manifest, records, self.clock.seconds)

    @property
    def _origin(self) -> dict[str, str]:
        return {"table": self.source.name, "epoch": self.source.epoch, "position": self.position.token}

    def _snapshot(self, fork: Table) -> tuple[Manifest, int, int]:
        """The fork's first snapshot, how many records were folded, and the newest revision of rules among them."""
        repository = self.ctx.repository(fork)
        target = sst_files.SstTarget(self.ctx.storage, repository.root, self.name)
        with self.clock.step("fold"):
            where = read.TableSource(self.ctx.bootstrap, self.source, self.ctx.storage)
            task = partial(restore_partition, where=where, fork=fork, target=target, made_ms=self.created_ms)
            done = self.ctx.run("fold", task, self.parts)
        failpoints.crash("restore:2")
        failpoints.crash("restore:3")
        manifest = Manifest(
            name=self.name, table=fork.name, topic=fork.topic, epoch=fork.epoch, partitions=fork.partitions,
            max_value_bytes=fork.max_value_bytes, kind="restore", parent=None, created_ms=self.created_ms,
            verified_ms=time.time_ns() // 1_000_000, job=self.job, build=logstore.__version__,
            parts={partition: part.facts for partition, part in enumerate(done)},
            files=[file for part in done for file in part.files], splits=fork.splits,
        )  # fmt: skip
        with self.clock.step("publish"):
            repository.publish(manifest)
            repository.move(repository.current(), self.name, f"restore {self.job}")
            repository.gc(1)
        return manifest, sum(part.records for part in done), max(part.rules for part in done)

    @contextmanager
    def _undone(self, fork: Table, *, made: bool) -> Iterator[None]:
        """Clean up behind a failure."""
        try:
            yield
        except BaseException:
            self.ctx.storage.remove_tree(f"{self.ctx.repository(fork).root}/{self.name}")
            if made:
                topics.delete(self.ctx.registry.admin, fork.topic)
            raise


def restore_partition(
    order: RestoreOrder, where: read.TableSource, fork: Table, target: sst_files.SstTarget, made_ms: int
) -> FoldResult:
    """Write one partition of the fork's first snapshot, made at `made_ms`. Raises as `read.rows_as_of`.

    Rows that expire live on as much longer as they were alive at the position. Outcomes and ids stay with the source:
    they are told by offsets of a log that the fork does not have.
    """
    examined = [0]

    def saw(count: int) -> None:
        examined[0] += count

    with (
        tempfile.TemporaryDirectory(prefix="logstore-restore-") as scratch,
        read.state_as_of(where, StateOrder(order.stretch, order.base_files, order.base), Keys(), saw) as (
            fold,
            entries,
        ),
    ):
        records = examined[0]
        log_time_ms = max(order.log_time_ms, fold.log_time_ms)
        begun = _as_begun(entries, max(made_ms - log_time_ms, 0))
        written, total = SstOutput(fork, order.stretch.partition, target, Path(scratch)).base(begun)
        read_back.prove(target, written, CUT, total, Path(scratch))
        facts = PartFacts(CUT, log_time_ms, total.entries, total.hex, {}, [])
        return FoldResult(facts, written, False, records, fold.revision)


def _as_begun(entries: Iterable[tuple[bytes, bytes]], later_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries with the version of the base record, which wrote them all in the fork; their timestamps stay.

    Those that expire do so by `later_ms` later.
    """
    for key, raw in entries:
        yield key, forked(raw, later_ms)
