"""FollowedPartition: one partition on its way from log to view.

Decides what a batch, a gap or an end of the log means; no Kafka in here.

opening -> catching-up -> live            the end of the log was reached once
               └──────────┴──> stopped    and says why; a new definition or a restart tries again

A view that is damaged is removed, and begins again from its bootstrap: the log is the truth, a view is a fold of it and
nothing else.
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from logstore.model import skips
from logstore.model.errors import Corrupted, LogTruncated, LogUnreachable, NotYet
from logstore.model.folding.fold import Folded, FoldRules, Records, fold_batch
from logstore.model.folding.mutation import Control, parse
from logstore.model.hard_rows.rules import Rules, rules_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.record_identity import AppliedPosition, RecordIdentity, identify
from logstore.view import generation, paths
from logstore.view.conditional.state_before import ViewState
from logstore.view.environment import Sync
from logstore.view.feed.view_records import LocalSnapshotRecord, ViewRecord
from logstore.view.layout import Stop
from logstore.view.view import View
from streaming.lane import stop_reasons
from streaming.lane.change_buffer import ChangeBuffer
from streaming.lane.counts import TableCounts
from streaming.lane.disk import local_snapshots
from streaming.lane.disk.base_rows import BaseDamaged, BaseRows
from streaming.lane.disk.opened_view import Bootstrap, open_view
from streaming.lane.lineage import LineageProof
from streaming.lane.target import Target

log = logging.getLogger(__name__)

Phase = Literal["catching-up", "live", "stopped"]


class FollowedPartition:
    """A view and what its partition's log has shown so far."""

    def __init__(
        self,
        target: Target,
        data_dir: Path,
        *,
        sync: Sync = "none",
        bootstrapper: Callable[[Target], Bootstrap] = lambda _: Bootstrap(),
        outlived: AppliedPosition | None = None,
    ) -> None:
        """Open the view; where there is none, begin one with what `bootstrapper` says.

        `outlived`: how far this node had followed the log, whatever became of its view since.

        Raises Overloaded while another process of this node still writes it, DiskFull, NotYet, OSError, and as
        `bootstrapper` does.
        """
        table, partition = target.table, target.partition
        self.owner = paths.Owner(paths.partition_dir(data_dir, table.name, table.epoch, partition))
        try:
            self.view = open_view(target, data_dir, sync, bootstrapper)
        except BaseException:
            self.owner.release()
            raise
        self.target, self.sync = target, sync
        self.undigested: dict[int, str] = {}  # cuts without a digest, and why
        self.older: tuple[LocalSnapshotRecord, ...] = ()  # older local snapshots
        self.base_dir: Path | None = None  # the RocksDB directory of the view's base; None: no base, or it is not here
        self.is_base_damaged = False  # as the lane has found
        self.find_base(paths.snapshot_dir(data_dir, table.name, table.epoch, partition))
        self.change_buffer: ChangeBuffer | None = None
        self.place = FoldRules.of(table, partition)
        self._ruled, self._rules = table, _rules_of(target)
        self._base_rows = BaseRows()
        self.proof = LineageProof(outlived)
        self.counts = TableCounts()  # the lane's own of this table, once it follows
        self.end = self.view.next_offset  # of the log, as last heard
        self.reached_end = False  # by this run
        self.was_at_end = paths.has_reached(self.directory)  # by any: what was there then is here
        self._end_reached_at = -1  # where the log last had nothing more to hand over
        self._held_up_at = -1
        self.open_transaction = False
        self.held: str | None = None  # what it waits for before it can go on
        self.discarded: str | None = None  # why the view is to be thrown away, and begun again

    @property
    def next_offset(self) -> int:
        """The offset of the record that is applied next."""
        return self.view.next_offset

    @property
    def root(self) -> str:
        """Root of the view, with which its fold began: "" is offset 0, else a snapshot."""
        return self.view.base.root if self.view.base else ""

    @property
    def directory(self) -> Path:
        """The folder of the partition's generations."""
        return self.view.path.parent

    def find_base(self, directory: Path) -> None:
        """Look for the view's base among the local snapshots in `directory`."""
        base = self.view.base
        local = local_snapshots.find(directory, base.snapshot) if base else None
        self.base_dir, self.is_base_damaged = local and local.path, False
        older = local_snapshots.others(directory, base)[-local_snapshots.AT_MOST + 1 :] if base else []
        self.older = tuple(local.record() for local in older)

    def record(self) -> ViewRecord:
        """Feed record of the partition."""
        base = self.view.base
        return ViewRecord(
            str(self.view.path), self.target.slot, self.phase, self.reason or "",
            local_snapshots.record_of(base, self.base_dir) if base else None, self.older, self.was_at_end,
        )  # fmt: skip

    @property
    def stop(self) -> Stop | None:
        """The reason why the partition answers nothing, if it does not."""
        return self.view.state.stop

    @property
    def phase(self) -> Phase:
        """State's name in `/v1/partitions`."""
        if self.stop:
            return "stopped"
        return "live" if self.reached_end and (self.view.base is None or self.base_dir) else "catching-up"

    @property
    def reason(self) -> str | None:
        """Reason for a person: the stop, or the cause of a delay."""
        if self.stop:
            return self.stop.detail
        if self.held:
            return self.held
        if self.view.base and self.base_dir is None:
            return f"the snapshot {self.view.base.snapshot}, on which the view stands, is not here: it is fetched again"
        return (
            "a transaction is open in the log: its records are served once it is committed"
            if self.open_transaction
            else None
        )

    def take(self, records: Records, leader_epoch: int) -> bool:
        """Fold and commit a batch; False when the partition stopped on the way.

        Raises DiskFull, NotYet, OSError: nothing has changed then, or all is committed before a record that waits for
        a newer definition, and the same records must be handed over again; Corrupted when the view is damaged.
        """
        records, hole = self._upto_hole(self._without_applied(records))
        left = self._without_skipped(records)
        begun_s = time.perf_counter()
        folded = self._fold(left)
        folded_s = time.perf_counter()
        if left is not records and folded.refused is None and folded.awaited is None:
            folded = folded._replace(next_offset=records.offsets[-1] + 1)
        stop = stop_reasons.refused(self.target, folded) or (
            None if hole is None or folded.awaited else stop_reasons.gap(self.target, hole.start, hole.stop)
        )
        if (records.offsets and folded.next_offset > self.next_offset) or stop:
            self._commit(folded, leader_epoch, stop, _last(records, folded.next_offset))
        self._count(len(records.offsets), folded_s - begun_s, time.perf_counter() - folded_s)
        self.end = max(self.end, self.next_offset)
        if folded.awaited is not None:
            raise NotYet(self._waits(folded.awaited))
        return stop is None

    def _waits(self, why: str) -> str:
        table, partition, at = self.target.table.name, self.target.partition, self.next_offset
        return (
            f"the record at offset {at:,} of {table}/{partition} waits for a newer definition: {why}; `logstore table "
            f"alter {table}`, given once more as it was, ends a change that was cut short; what another program wrote "
            f"there is given up by `logstore table repair {table} --partition {partition} --skip {at} --force`"
        )

    def upto_foreign_time(self, records: Records, by_writers: Sequence[int]) -> tuple[Records, Stop | None]:
        """Records before the first to which its writer's clock gave the time, and the stop there."""
        left = [offset for offset in by_writers if offset >= self.next_offset]
        stop = stop_reasons.foreign_time(self.target, left)
        return (records, None) if stop is None else (records.slice(0, bisect_left(records.offsets, stop.offset)), stop)

    def _fold(self, records: Records) -> Folded:
        log_time_ms = self.view.state.log_time_ms
        if self._ruled is not self.target.table:  # its rules may have been altered
            self._ruled, self._rules = self.target.table, _rules_of(self.target)
        if self._rules is None:
            return fold_batch(records, self.place, self.next_offset, log_time_ms)
        start = StretchStart(self.next_offset, log_time_ms, self.view.counter, self.view.revision)
        before = ViewState(self.view.reader(), lambda: self._base_rows.at(self.view.base, self.base_dir))
        try:
            return fold_stretch(records, self._rules, start, before)
        except BaseDamaged:
            self.is_base_damaged = True
            raise

    def _count(self, records: int, fold_s: float, commit_s: float) -> None:
        counts = self.counts
        counts.records += records
        counts.batches += 1
        counts.fold_s += fold_s
        counts.commit_s += commit_s

    def cut_in(self, records: Records) -> int | None:
        """The index of the newest `cut` control record that is not applied yet: it supersedes those before it."""
        if None not in records.keys:
            return None
        for i in range(len(records.offsets) - 1, -1, -1):
            offset, key, value, headers = (
                records.offsets[i], records.keys[i], records.values[i], records.headers[i],
            )  # fmt: skip
            if key is None and headers and offset >= self.next_offset:
                found = parse(
                    key, value, headers, max_value_bytes=self.place.max_value_bytes, right_partition=lambda _: True
                )
                if found == Control("cut"):
                    return i
        return None

    def reaches(self, offset: int) -> bool:
        """True when everything below `offset` is applied, but for what a repair steps over."""
        return skips.first_missing(range(self.next_offset, offset), self._skips) is None

    def at_end(self, offset: int) -> bool:
        """The log has nothing more below `offset`; False when that shows a gap, and the partition stopped."""
        if offset > self.next_offset:
            missing = skips.first_missing(range(self.next_offset, offset), self._skips)
            if missing is not None:
                self.view.stop(stop_reasons.gap(self.target, missing, offset))
                return False
            self._commit(
                Folded(offset, self.view.state.log_time_ms, {}, [], None)
            )  # repaired: all of it is stepped over
        elif self.stop:  # whatever it was, the log goes on from here
            self.view.resume()
        self.end, self.reached_end, self._end_reached_at = max(self.end, offset), True, offset
        if not self.was_at_end:
            paths.mark_reached(self.directory, reached=True)
            self.was_at_end = True
        return True

    def look(self, end: int) -> None:
        """Compare with the end of the log, once in a while.

        All that is committed applied, and still more there, twice in a row: a transaction is open.
        """
        self.end = max(self.end, end)
        held_up = self._end_reached_at == self.next_offset < self.end
        self.open_transaction = held_up and self._held_up_at == self.next_offset
        self._held_up_at = self.next_offset if held_up else -1

    def halt(self, stop: Stop) -> None:
        """Stop for a reason that the records do not show."""
        if self.stop != stop:
            self.view.stop(stop)

    # whether this still is the log that was followed (`lineage`)

    @property
    def applied(self) -> AppliedPosition | None:
        """Position to which the log was followed, by the view; None while no record below it is known."""
        state = self.view.state
        return state.last and AppliedPosition(state.next_offset, state.leader_epoch, state.last)

    @property
    def proved(self) -> AppliedPosition | None:
        """The record that was applied last (`applied`), once the log has shown that it holds it."""
        return self.applied if self.proof.wanted is None and not self.is_cut_back else None

    @property
    def is_cut_back(self) -> bool:
        """True when the log is not, or not any more, the one that was followed."""
        return self.stop is not None and self.stop.word == LogTruncated.word

    def start(self) -> tuple[int, int] | None:
        """Offset and leader epoch to follow the log from: at a record that it must still hold, if one is known.

        None: nothing can show that the log still is the one that was followed, and the partition stays stopped.
        """
        if self.is_cut_back:
            self._step_over_skipped()
        wanted = self.proof.begin(self.applied, self.next_offset)
        if wanted is not None:
            return wanted.last.offset, wanted.leader_epoch
        if self.is_cut_back and self.next_offset > 0:
            return None
        return self.next_offset, self.view.state.leader_epoch

    def prove(self, records: Records) -> bool:
        """Compare what the log hands over first with what it must hold; False when nothing of it may be applied now.

        Raises Corrupted when it shows that the view holds what was lost, and the loss was accepted.
        """
        wanted = self.proof.wanted
        if wanted is None:
            return True
        first = _last(records, records.offsets[0] + 1)
        if first != wanted.last:
            self._lost(wanted, f"the next record that it holds is another one, at offset {records.offsets[0]:,}")
            return False
        self._held()
        return not self.proof.again

    def prove_end(self, end: int) -> None:
        """The log, which ends at `end`, did not hand over what it must hold.

        Raises as `prove`, NotYet when it still may.
        """
        wanted = self.proof.wanted
        assert wanted is not None, "something was to be proved"
        if end > wanted.last.offset:
            raise LogUnreachable(
                f"the log of {self.target.table.name}/{self.target.partition} ends at {end:,} and does not hand over "
                f"the record at offset {wanted.last.offset:,} yet"
            )
        self._lost(wanted, f"it ends at {end:,}")

    def out_of_range(self, start: int, end: int, detail: str) -> None:
        """The log, which holds offsets `[start, end)`, cannot be followed from where it was. Raises as `prove`."""
        wanted, applied = self.proof.wanted, self.applied
        where = f"it holds offsets {start:,} to {end:,}: {detail}"
        if wanted is not None and wanted.last.offset < start:
            self.proof.trimmed(start)
        elif wanted is not None:
            self._lost(wanted, where)
        elif self.next_offset < start:
            if not self._step_over_skipped():
                self.halt(stop_reasons.cut_back(self.target, self.next_offset, f"it begins at {start:,}"))
        elif applied is not None and applied.last.offset >= start:
            self.proof.again = True  # has it lost its end, or only a leader?
        elif self.next_offset == 0:  # the answer to a question about the topic that had this name before, perhaps
            raise LogUnreachable(
                f"the log of {self.target.table.name}/{self.target.partition} cannot be read yet: {where}"
            )
        else:
            self.halt(stop_reasons.cut_back(self.target, self.next_offset, where))

    def _held(self) -> None:
        """The log holds what it must hold: a stop that said otherwise is over."""
        self.proof.held()
        if self.is_cut_back:
            self.view.resume()

    def _lost(self, wanted: AppliedPosition, detail: str) -> None:
        table, partition = self.target.table, self.target.partition
        if not table.is_void(partition, wanted.next_offset, wanted.leader_epoch):
            self.proof.wanted = None
            self.halt(stop_reasons.lost_end(self.target, wanted, self.next_offset, detail))
        elif wanted == self.applied:
            raise Corrupted(
                f"the view holds records that the log of {table.name}/{partition} lost, and the loss was accepted: it "
                "begins again"
            )
        else:
            self._held()

    def _step_over_skipped(self) -> bool:
        """Go behind the offsets that a repair gave up, if they are the next ones; True when there were some."""
        at = self.next_offset
        while (skipped := next((last for first, last in self._skips if first <= at <= last), None)) is not None:
            at = skipped + 1
        if at == self.next_offset:
            return False
        self._commit(Folded(at, self.view.state.log_time_ms, {}, [], None))
        self.proof.again = True
        return True

    def replace(self, view: View, snapshots: Path) -> View:
        """Go on with another generation; returns the one before, still open. `snapshots`: the partition's local ones.

        Requires: it stands where this one stands, or later.
        """
        assert view.next_offset >= self.next_offset, "a position never goes back"
        self.reached_end = self.reached_end and view.next_offset == self.next_offset
        self.end = max(self.end, view.next_offset)
        before, self.view, self.change_buffer = self.view, view, None
        self._base_rows.close()
        self.find_base(snapshots)
        return before

    def close(self) -> None:
        """Flush and close the view.

        One that cannot be flushed is removed. Raises DiskFull, NotYet, OSError; it is closed then.
        """
        self._base_rows.close()
        try:
            self.view.close()
        except Corrupted as error:  # a disk that has failed once says well the next time, whatever it holds
            log.warning("%s; it is removed", error)
            generation.remove(self.view.path)
        finally:
            self.owner.release()

    def discard(self) -> None:
        """Close the view and remove it: it is damaged. Raises OSError; it is closed then."""
        self._base_rows.close()
        try:
            self.view.close(flush=False)
            generation.remove(self.view.path)
        finally:
            self.owner.release()

    def _commit(
        self,
        folded: Folded,
        leader_epoch: int | None = None,
        stop: Stop | None = None,
        last: RecordIdentity | None = None,
    ) -> None:
        self.view.apply(folded, leader_epoch, stop, last)
        if self.change_buffer is not None:
            self.change_buffer.add(folded)

    def _without_applied(self, records: Records) -> Records:
        """Leave out what is applied: after a seek the same records may come twice."""
        applied = (
            sum(1 for offset in records.offsets if offset < self.next_offset)
            if records.offsets[0] < self.next_offset
            else 0
        )
        return records.slice(applied) if applied else records

    def _upto_hole(self, records: Records) -> tuple[Records, range | None]:
        """Records before the first hole that no repair covers, and that hole from its first offset that none covers."""
        offsets = records.offsets
        if not offsets or (offsets[0] == self.next_offset and offsets[-1] - offsets[0] == len(offsets) - 1):
            return records, None
        following = self.next_offset
        for i, offset in enumerate(offsets):
            missing = skips.first_missing(range(following, offset), self._skips)
            if missing is not None:
                return records.slice(0, i), range(missing, offset)
            following = offset + 1
        return records, None

    @property
    def _skips(self) -> skips.Skips:
        return self.target.table.skips.get(self.target.partition, ())

    def _without_skipped(self, records: Records) -> Records:
        """Leave out the records that a repair gave up although the log holds them."""
        left = skips.remaining(records.offsets, self._skips)
        return records if left is None else records.pick(left)


def _rules_of(target: Target) -> Rules | None:
    return rules_of(target.table, target.partition) if target.table.conditional else None


def _last(records: Records, next_offset: int) -> RecordIdentity | None:
    """The identity of the newest of these records below `next_offset`."""
    at = bisect_left(records.offsets, next_offset) - 1
    if at < 0:
        return None
    return identify(records.offsets[at], records.timestamps_ms[at], records.keys[at], records.values[at])
