"""Sources of a key's history: the archive where it reaches, the log for what is not archived yet."""

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

from logstore.client.history.span import KeyPlace, Scanned, Span
from logstore.log.control import check_epoch
from logstore.log.kafka import clients, offsets
from logstore.log.read.key_records import KeyReader
from logstore.log.read.leader_epochs import records_from
from logstore.model.errors import LogTruncated
from logstore.model.history.logged import LoggedRecord, newest_first
from logstore.model.record_identity import RecordIdentity
from logstore.model.skips import first_missing

if TYPE_CHECKING:
    from logstore.snapshot.archive.index import ArchiveIndex


class Sources:
    """Log and archive of one partition, as they reach now. `archive`: None where there is none, or it is not wanted."""

    def __init__(self, place: KeyPlace, archive: "ArchiveIndex | None") -> None:
        """Ask both how far they reach.

        Raises EpochChanged, LogUnreachable, Corrupted, StorageUnreachable, LogTruncated for a log that lost its end.
        """
        self.place, self._archive = place, archive
        table, partition = place.table, place.partition
        check_epoch(place.bootstrap, table)
        reach = archive.next_offsets().get(partition, 0) if archive is not None else 0
        client = clients.admin(place.bootstrap)
        log = offsets.bounds(client, table.topic, [partition], committed=True)[partition]
        if archive is not None and reach:
            _check_same(place, archive.lasts().get(partition, ""), log)
        self.log, self.reach = log, reach
        self.end = max(log.end, reach)

    def spans(self, start: int, end: int) -> list[Span]:
        """Spans of `[start, end)`, in order: what is there of it."""
        found = [Span(0, self.reach, True), Span(max(self.reach, self.log.start), self.log.end, False)]
        inside = [Span(max(one.start, start), min(one.end, end), one.archived) for one in found]
        return [one for one in inside if one.start < one.end]

    @property
    def missing(self) -> tuple[int, int] | None:
        """Offsets first..last that neither log nor archive has, and that no repair gave up; None: there are none."""
        first = first_missing(range(self.reach, self.log.start), self.place.table.skips.get(self.place.partition, ()))
        return None if first is None else (first, self.log.start - 1)

    @property
    def known_from(self) -> int:
        """The offset from which on everything is there."""
        return 0 if self.missing is None else self.log.start

    def timestamp_of_first(self) -> int | None:
        """Timestamp of the record from which on everything is there; None: nothing is missing, or none is there."""
        if self.known_from == 0 or self.log.start >= self.log.end:
            return None
        bootstrap, table, partition, key = self.place
        with closing(KeyReader(bootstrap, table, partition, key)) as reader:
            return reader.timestamp_at(self.log.start)

    def records(self, span: Span, *, newest: bool, scanned: Scanned) -> Generator[LoggedRecord, None, None]:
        """Records of the key in a span, in the order of the log or against it."""
        if span.archived:
            yield from self._archived(span, newest=newest, scanned=scanned)
            return
        bootstrap, table, partition, key = self.place
        with closing(KeyReader(bootstrap, table, partition, key, scanned)) as reader:
            yield from newest_first(reader.read, *span[:2]) if newest else reader.read(*span[:2])

    def first_later(self, time_ms: int) -> int:
        """The first offset whose timestamp is later than a time; the end where there is none yet.

        Raises LogTruncated where a hole may hold it.
        """
        client, table, partition = clients.admin(self.place.bootstrap), self.place.table, self.place.partition
        archived = self._first_archived_later(time_ms)
        logged = offsets.first_from(client, table.topic, [partition], time_ms + 1)[partition]
        found = min([self.end, *(one for one in (archived, logged) if one is not None)])
        if self.missing is not None and found == self.log.start:
            raise LogTruncated(
                f"where that time lies in {table.name}/{partition} is not known: offsets {self.missing[0]:,} to "
                f"{self.missing[1]:,} are neither archived nor in the log any more; give a token instead"
            )
        return found

    def _first_archived_later(self, time_ms: int) -> int | None:
        """The archive's answer, where the log cannot name it: its beginning was trimmed."""
        if self._archive is None or self.reach == 0 or self.log.start == 0:
            return None
        from logstore.snapshot.archive.times import first_archived_later, may_hold_later  # noqa: PLC0415 - loads Arrow

        segments = may_hold_later(self._archive.covering(self.place.partition, 0, self.reach), time_ms)
        return first_archived_later(segments, time_ms, self._archive.storage)

    def _archived(self, span: Span, *, newest: bool, scanned: Scanned) -> Generator[LoggedRecord, None, None]:
        from logstore.snapshot.archive.key_records import records_of_key  # noqa: PLC0415 - loads Arrow

        assert self._archive is not None, "a span is archived"
        segments = self._archive.covering(self.place.partition, span.start, span.end)
        for segment in reversed(segments) if newest else segments:
            found = records_of_key(
                segment, self._archive.storage, self.place.key, carried=self.place.table.multi_row,
                newest_first=newest, scanned=scanned,
            )  # fmt: skip
            yield from (record for record in found if span.start <= record.offset < span.end)


def _check_same(place: KeyPlace, last: str, log: offsets.Bounds) -> None:
    """Raise LogTruncated where the log does not have the record that was archived last."""
    archived = RecordIdentity.parse(last)
    if archived is None or archived.offset < log.start:
        return
    table, partition = place.table, place.partition
    found = records_from(place.bootstrap, table.topic, {partition: archived.offset}).get(partition)
    if found is None or found.identity != archived:
        raise LogTruncated(
            f"the record at offset {archived.offset:,} of {table.name}/{partition} is not the one that was archived: "
            "the log lost its end after that, so log and archive tell two histories; without the archive the log tells "
            f"its own, and `logstore table repair {table.name} --partition {partition} --accept-loss` settles it"
        )
