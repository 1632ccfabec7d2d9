"""History: known parts of a table's past, for states that may be older than everything that is served.

The archive comes first: it outlives the log, whose beginning is trimmed and whose end, or all of it, a disaster may
take. The log is read for what is not archived yet.
"""

import time
from functools import partial

from batch.base_lookup import base_state, bases_of, offsets_of
from batch.context import Context
from batch.jobs import job_size
from logstore.log import topics
from logstore.log.kafka import clients, offsets
from logstore.log.read.ranges import first_later
from logstore.model.errors import LogTruncated, UsageError
from logstore.model.point_in_time import read_moment
from logstore.model.position import Position
from logstore.model.skips import first_missing
from logstore.model.table import Table
from logstore.snapshot.archive.times import first_archived_later, may_hold_later
from logstore.snapshot.work import LogStretch, RestoreOrder


class History:
    """History of one table.

    `current`: whether the table's topic is still the one of its definition; otherwise only the archive tells.
    """

    def __init__(self, ctx: Context, table: Table) -> None:
        """Read archive and log bounds. Raises LogUnreachable, Corrupted, StorageUnreachable."""
        self.ctx, self.table = ctx, table
        self.repository, self.index = ctx.repository(table), ctx.archive(table)
        self.archived = dict.fromkeys(range(table.partitions), 0) | self.index.next_offsets()
        client = clients.admin(ctx.bootstrap)
        self.current = topics.epoch_of(client, table.topic) == table.epoch
        self.log = offsets.bounds(client, table.topic, list(self.archived), committed=True) if self.current else {}
        self.ends = {p: max(reach, self.log[p].end) if self.current else reach for p, reach in self.archived.items()}

    def locate(self, text: str) -> dict[int, int]:
        """Partition -> offset, of a token or a time.

        A time means, by partition, the first offset whose log time is later.

        Raises BadToken, UsageError for what is no point of this history, EpochChanged for a token of an earlier topic.
        """
        moment = read_moment(text)
        return offsets_of(moment, self.table, self.ends) if isinstance(moment, Position) else self._at(text, moment)

    def parts(self, upto: dict[int, int]) -> list[RestoreOrder]:
        """Parts to read for the state at a position, by partition. Raises LogTruncated, NotRetained."""
        found: list[RestoreOrder] = []
        bases = bases_of(self.repository, self.table, upto, upto, self._is_whole)
        for partition, end in sorted(upto.items()):
            base = bases.get(partition)
            since = base.parts[partition].cut if base else 0
            files = base.files_of(partition) if base else []
            log_time_ms = base.parts[partition].log_time_ms if base else 0
            stretch, state = self._stretch(partition, since, end), base_state(base, partition)
            found.append(RestoreOrder(stretch, list(files), log_time_ms, state))
        return found

    def _at(self, text: str, time_ms: int) -> dict[int, int]:
        if time_ms > time.time_ns() // 1_000_000:
            raise UsageError(f"{text} is still to come; what a table will hold then is not known yet")
        archived = self._archived_later(time_ms)
        logged = first_later(self.ctx.bootstrap, self.table, time_ms) if self.current else {}
        firsts = {p: [offset for offset in (archived.get(p), logged.get(p)) if offset is not None] for p in self.ends}
        found = {partition: min([end, *firsts[partition]]) for partition, end in self.ends.items()}
        for partition, offset in found.items():
            self._check_known(partition, offset, text)
        return found

    def _check_known(self, partition: int, offset: int, text: str) -> None:
        """Raise LogTruncated when a hole ends at `offset`: an earlier record that is late enough may be in it."""
        if not self.current or offset != self.log[partition].start:
            return
        missing = first_missing(range(self.archived[partition], offset), self.table.skips.get(partition, ()))
        if missing is not None:
            raise LogTruncated(
                f"where {text} lies in {self.table.name}/{partition} is not known: offsets {missing:,} to "
                f"{offset - 1:,} are neither "
                "archived nor in the log any more; give a token instead"
            )

    def _archived_later(self, time_ms: int) -> dict[int, int | None]:
        """First later offsets that the log cannot name: its beginning was trimmed, or its end is lost."""
        unknown = [
            partition for partition, reach in self.archived.items() if reach and not self._in_the_log(partition, reach)
        ]
        work = [may_hold_later(self.index.covering(p, 0, self.archived[p]), time_ms) for p in unknown]
        self.ctx.start(job_size.of_segments([segment for those in work for segment in those]))
        found = self.ctx.run(
            "look up the time", partial(first_archived_later, time_ms=time_ms, storage=self.ctx.storage), work
        )
        return dict(zip(unknown, found, strict=True))

    def _is_whole(self, partition: int) -> bool:
        """True when log and archive hold the partition from offset 0 on."""
        return self.archived[partition] >= (self.log[partition].start if self.current else 1)

    def _in_the_log(self, partition: int, reach: int) -> bool:
        """True when the log holds everything below `reach`."""
        return self.current and self.log[partition].start == 0 and self.log[partition].end >= reach

    def _stretch(self, partition: int, start: int, end: int) -> LogStretch:
        reach = min(max(self.archived[partition], start), end)
        if reach < end and not self.current:
            raise LogTruncated(
                f"offsets {reach:,} to {end - 1:,} of {self.table.name}/{partition} are not archived, and its topic is "
                "gone"
            )
        return LogStretch(partition, start, end, self.index.covering(partition, start, reach), reach)
