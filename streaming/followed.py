"""Followed: one partition on its way from log to view. Decides what a batch, a gap or an end of the log means; no Kafka in here.

opening -> catching-up -> live            the end of the log was reached once
               └──────────┴──> stopped    and says why; a new definition or a restart tries again
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from logstore.model.errors import EpochChanged, LogGap, LogTruncated, TopicMisconfigured, Unsupported
from logstore.model.fold import Folded, Place, Records, fold_batch
from logstore.model.table import Table
from logstore.view import home
from logstore.view.layout import Stop
from logstore.view.view import Identity, Sync, View, discard_if_torn

Phase = Literal["catching-up", "live", "stopped"]


class Target(NamedTuple):
    """A partition that a lane has to follow; `problem` is what is known to be wrong with its topic."""

    table: Table
    partition: int
    slot: int
    problem: Stop | None = None

    @property
    def key(self) -> tuple[str, int]:
        """(epoch, partition)."""
        return self.table.epoch, self.partition


class Followed:
    """A view and what its partition's log has shown so far."""

    def __init__(self, target: Target, data_dir: Path, *, sync: Sync = "none") -> None:
        """Open the view.

        Raises Overloaded while another process of this node still writes it, DiskFull, Corrupted when it cannot be read.
        """
        table, partition = target.table, target.partition
        self.owner = home.Owner(home.partition_dir(data_dir, table.name, table.epoch, partition))
        try:
            path = view_path(target, data_dir)
            discard_if_torn(path)
            identity = Identity(table.name, table.epoch, partition, table.partitions, table.max_value_bytes)
            self.view = View(path, identity, sync=sync)
        except BaseException:
            self.owner.release()
            raise
        self.target = target
        self.place = Place(partition, table.partitions, table.max_value_bytes)
        self.end = self.view.next_offset  # of the log, as last heard
        self.reached_end = False
        self._end_reached_at = -1  # where the log last had nothing more to hand over
        self._held_up_at = -1
        self.open_transaction = False
        self.held: str | None = None  # what it waits for before it can go on

    @property
    def next_offset(self) -> int:
        """The offset of the record that is applied next."""
        return self.view.next_offset

    @property
    def stop(self) -> Stop | None:
        """Why the partition answers nothing, if it does not."""
        return self.view.state.stop

    @property
    def phase(self) -> Phase:
        """What `/v1/partitions` calls the state."""
        return "stopped" if self.stop else "live" if self.reached_end else "catching-up"

    @property
    def reason(self) -> str | None:
        """What a person should know: the stop, or what holds the partition up."""
        if self.stop:
            return self.stop.detail
        if self.held:
            return self.held
        return "a transaction is open in the log: its records are served once it is committed" if self.open_transaction else None

    def take(self, records: Records, leader_epoch: int) -> bool:
        """Fold and commit a batch; False when the partition stopped on the way.

        Raises DiskFull: nothing has changed then, and the same records must be handed over again.
        """
        records, hole = self._upto_hole(self._without_applied(records))
        kept = self._without_skipped(records)
        folded = fold_batch(kept, self.place, self.next_offset, self.view.state.log_time_ms)
        if kept is not records and folded.refused is None:
            folded = folded._replace(next_offset=records.offsets[-1] + 1)
        stop = self._refused(folded) or (None if hole is None else self._gap(hole.start, hole.stop))
        if records.offsets or stop:
            self.view.apply(folded, leader_epoch, stop)
        self.end = max(self.end, self.next_offset)
        return stop is None

    def at_end(self, offset: int) -> bool:
        """The log has nothing more below `offset`; False when that shows a gap, and the partition stopped."""
        if offset > self.next_offset:
            missing = self._first_missing(range(self.next_offset, offset))
            if missing is not None:
                self.view.stop(self._gap(missing, offset))
                return False
            self.view.apply(Folded(offset, self.view.state.log_time_ms, {}, [], None))  # repaired: all of it is stepped over
        elif self.stop:  # whatever it was, the log goes on from here
            self.view.resume()
        self.end, self.reached_end, self._end_reached_at = max(self.end, offset), True, offset
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

    def cut_back(self, detail: str) -> None:
        """The log begins later or ends earlier than the view's position."""
        table, partition = self.target.table.name, self.target.partition
        lost = f"the log of {self._name} does not hold offset {self.next_offset:,}, which this view needs next: {detail}"
        self.halt(Stop(LogTruncated.word, f"{lost}; `logstore table repair {table} --partition {partition}` shows it", self.next_offset))

    def close(self) -> None:
        """Flush and close the view."""
        self.view.close()
        self.owner.release()

    @property
    def _name(self) -> str:
        return f"{self.target.table.name}/{self.target.partition}"

    def _without_applied(self, records: Records) -> Records:
        """After a seek the same records may come twice."""
        applied = sum(1 for offset in records.offsets if offset < self.next_offset) if records.offsets[0] < self.next_offset else 0
        return records.slice(applied) if applied else records

    def _upto_hole(self, records: Records) -> tuple[Records, range | None]:
        """The records before the first hole that no repair covers, and that hole from its first offset that none covers."""
        offsets = records.offsets
        if not offsets or (offsets[0] == self.next_offset and offsets[-1] - offsets[0] == len(offsets) - 1):
            return records, None
        following = self.next_offset
        for i, offset in enumerate(offsets):
            missing = self._first_missing(range(following, offset))
            if missing is not None:
                return records.slice(0, i), range(missing, offset)
            following = offset + 1
        return records, None

    @property
    def _skips(self) -> Sequence[tuple[int, int]]:
        return self.target.table.skips.get(self.target.partition, ())

    def _without_skipped(self, records: Records) -> Records:
        """What a repair gave up although the log holds it is not folded."""
        offsets = records.offsets
        if not any(first <= offsets[-1] and offsets[0] <= last for first, last in self._skips if offsets):
            return records
        kept = [i for i, offset in enumerate(offsets) if not any(first <= offset <= last for first, last in self._skips)]
        return records.pick(kept)

    def _first_missing(self, offsets: range) -> int | None:
        """The first of `offsets` that no repair steps over."""
        at = offsets.start
        for first, last in sorted(self._skips):
            if first <= at <= last:
                at = last + 1
        return at if at < offsets.stop else None

    def _gap(self, first: int, behind: int) -> Stop:
        table, partition = self.target.table.name, self.target.partition
        return Stop(
            LogGap.word,
            f"offsets {first:,} to {behind - 1:,} are missing from the log of {self._name}: a transactional writer's markers, or loss. "
            f"`logstore table repair {table} --partition {partition} --skip {first}..{behind - 1}` steps over them",
            first,
        )

    def _refused(self, folded: Folded) -> Stop | None:
        if folded.refused is None:
            return None
        table, partition, offset = self.target.table.name, self.target.partition, folded.next_offset
        detail = (
            f"the record at offset {offset:,} of {self._name} cannot be folded: {folded.refused.why}; upgrade logstore, or give the "
            f"record up: `logstore table repair {table} --partition {partition} --skip {offset} --force`"
        )
        return Stop(Unsupported.word, detail, offset)


def view_path(target: Target, data_dir: Path) -> Path:
    """Where the target's view lies, or will lie. Requires: the partition's folder is there."""
    directory = home.partition_dir(data_dir, target.table.name, target.table.epoch, target.partition)
    return directory / str(max(1, home.newest_generation(directory)))


def epoch_changed(table: Table, actual: str | None) -> Stop:
    """The stop for a topic that is not the one of the definition."""
    what = f"has another id ({actual}): it was deleted and created again" if actual else "is gone"
    return Stop(
        EpochChanged.word,
        f"the topic {table.topic} of table {table.name} {what}; "
        + (
            f"`logstore table repair {table.name} --new-epoch` begins anew with it"
            if actual
            else f"`logstore table drop {table.name}` forgets it"
        ),
        0,
    )


def misconfigured(table: Table, detail: str) -> Stop:
    """The stop for a topic whose settings contradict the definition."""
    return Stop(TopicMisconfigured.word, f"the topic {table.topic} of table {table.name}: {detail}", 0)
