"""Partition figures: every partition of every table, as a reader of the node sees it, healthy only where it is.

A partition is in one of STATES. `unreachable` is one that is served here and does not advance: its log does not answer
(Kafka is away, the partition has no leader, an ACL lacks), or no worker of this node speaks of it any more. Its lag,
and that of one that has stopped or is served elsewhere or by nobody, is not known: NaN, which no comparison holds for,
and never 0. Alerts look at the state.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from time import time
from typing import NamedTuple

from logstore.model.errors import LogStoreError
from logstore.model.table import Table
from logstore.process.figures import UNKNOWN, Family, counter, gauge
from logstore.serve.snapshot_page import standing
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import ELSEWHERE, UNSERVED, ServedPartition
from logstore.view.feed.adoption_records import REFUSED
from logstore.view.feed.view_records import CATCHING_UP, LIVE, STOPPED
from logstore.view.layout import State

UNREACHABLE = "unreachable"
STATES = (LIVE, CATCHING_UP, STOPPED, UNREACHABLE, ELSEWHERE, UNSERVED)
PROOFS = ("proved", "unproved", "refused")
_ADVANCING = (LIVE, CATCHING_UP)

Where = tuple[str, str]  # table, partition
Labels = Mapping[str, str]


class _Seen(NamedTuple):
    """A partition as it is now. `stands`: None where no view can be read."""

    labels: Labels
    served: ServedPartition | None
    state: str
    stands: State | None

    @property
    def advances(self) -> bool:
        """True where lag says something."""
        return self.state in _ADVANCING and self.stands is not None


class PartitionFigures:
    """Figures of the partitions that a reader knows of."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._sizes: dict[str, int] = {}  # of snapshots, whose files never change

    def families(self, lag_seconds: Mapping[Where, float]) -> Iterable[Family]:
        """Families of them; `lag_seconds` as the workers have measured it, who see when a view was at the log's end."""
        tables = (self._catalog.tables or {}).values()
        seen = [self._see(table, partition) for table in tables for partition in range(table.partitions)]
        yield _states(seen)
        yield from _positions(seen, lag_seconds)
        yield from self._views([(one.labels, one.served) for one in seen if one.served is not None])
        yield from self._snapshots(seen)

    def _see(self, table: Table, partition: int) -> _Seen:
        labels = {"table": table.name, "partition": str(partition)}
        served = self._catalog.served.get((table.epoch, partition))
        if served is None:
            elsewhere = self._catalog.live_elsewhere(partition) is not None
            return _Seen(labels, None, ELSEWHERE if elsewhere else UNSERVED, None)
        state, stands = actual(served)
        heard = self._catalog.is_heard((table.epoch, partition))
        return _Seen(labels, served, state if heard or state == STOPPED else UNREACHABLE, stands)

    def _views(self, served: list[tuple[Labels, ServedPartition]]) -> Iterable[Family]:
        readers = [(labels, one.reader) for labels, one in served if one.reader is not None]
        pages = [(labels, reader.free_pages()) for labels, reader in readers]
        yield gauge("logstore_view_bytes", "Bytes of the view in use.", [(la, r.size_bytes()) for la, r in readers])
        yield gauge(
            "logstore_view_map_bytes", "Address space of the view's map.", [(la, r.map_bytes()) for la, r in readers]
        )
        yield gauge(
            "logstore_view_reader_slots", "The most reader slots in use at once, of 1,024.",
            [(la, r.slots()) for la, r in readers],
        )  # fmt: skip
        yield gauge(
            "logstore_view_free_pages", "Pages of the view, of 4,096 bytes, that are free to be used again.",
            [(labels, free) for labels, free in pages if free is not None],
        )  # fmt: skip
        skipped = [
            ({**labels, "reason": reason}, count) for labels, one in served for reason, count in _skipped(one).items()
        ]
        yield counter("logstore_quarantined", "Records that changed nothing: not right, or not to be done.", skipped)

    def _snapshots(self, seen: list[_Seen]) -> Iterable[Family]:
        mine = [(one.labels, one.served, one.stands) for one in seen if one.served is not None]
        stand = [(labels, standing(self._catalog, served)) for labels, served, _ in mine]
        bases = [(labels, served.base, stands) for labels, served, stands in mine if served.base is not None]
        yield gauge(
            "logstore_snapshot_cut", "First offset that the base of the view does not cover.",
            [(labels, base.cut) for labels, base, _ in bases],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_distance_records", "Records of the view above its snapshot's cut.",
            [(labels, stands.next_offset - base.cut) for labels, base, stands in bases if stands is not None],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_age_seconds", "Seconds since the last record below the view; NaN where it covers none.",
            [
                (labels, _age_s(served.base_record.log_time_ms))
                for labels, served, _ in mine
                if served.base is not None and served.base_record is not None
            ],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_bytes", "Bytes of the local snapshots of the partition.",
            [(labels, self._bytes_of(served)) for labels, served, _ in mine],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_adopted", "1 when the view stands on a snapshot.",
            [(labels, served.base is not None) for labels, served, _ in mine],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_refused", "1 while a snapshot is refused; /v1/snapshots says why.",
            [(labels, record.state == REFUSED) for labels, record in stand],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_proof", "1 for the standing of what the view's fold began with.",
            [({**labels, "proof": proof}, record.proof == proof) for labels, record in stand for proof in PROOFS],
        )  # fmt: skip
        yield gauge(
            "logstore_snapshot_fetched_bytes", "Bytes of the candidate brought so far.",
            [(labels, record.fetched_bytes) for labels, record in stand],
        )  # fmt: skip

    def _bytes_of(self, served: ServedPartition) -> int:
        paths = served.paths()
        for path in paths - self._sizes.keys():
            self._sizes[path] = sum(one.stat().st_size for one in _files(Path(path)))
        return sum(self._sizes[path] for path in paths)


def actual(served: ServedPartition) -> tuple[str, State | None]:
    """The state that the partition is in, and where its view stands; one that cannot be read has stopped."""
    if served.reader is None:
        return served.state, None
    try:
        stands = served.reader.state()
    except LogStoreError:
        return STOPPED, None
    return STOPPED if stands.stop else served.state, stands


def _states(seen: list[_Seen]) -> Family:
    values = [({**one.labels, "state": state}, state == one.state) for one in seen for state in STATES]
    return gauge("logstore_partition_state", "1 for the state the partition is in.", values)


def _positions(seen: list[_Seen], lag_seconds: Mapping[Where, float]) -> Iterable[Family]:
    yield gauge(
        "logstore_applied_offset", "Next offset of the partition's view.",
        [(one.labels, one.stands.next_offset) for one in seen if one.stands is not None],
    )  # fmt: skip
    yield gauge(
        "logstore_lag_records", "Records behind the end of the log; NaN where it is not known.",
        [(one.labels, _lag(one)) for one in seen],
    )  # fmt: skip
    yield gauge(
        "logstore_lag_seconds", "Seconds since the view had all of the log; 0 while it has, NaN where it is not known.",
        [
            (one.labels, lag_seconds.get((one.labels["table"], one.labels["partition"]), UNKNOWN))
            if one.advances
            else (one.labels, UNKNOWN)
            for one in seen
        ],
    )  # fmt: skip


def _age_s(log_time_ms: int) -> float:
    """Seconds since a log time; that of a snapshot of no records is 0, and no time."""
    return max(time() - log_time_ms / 1000, 0.0) if log_time_ms > 0 else UNKNOWN


def _lag(one: _Seen) -> float:
    if not one.advances or one.served is None or one.stands is None:
        return UNKNOWN
    lag = one.served.lag(one.stands.next_offset)
    return UNKNOWN if lag is None else lag


def _skipped(served: ServedPartition) -> dict[str, int]:
    """Counts of skipped records, by reason; nothing of a view that cannot be read."""
    try:
        return served.reader.quarantine_counts() if served.reader is not None else {}
    except LogStoreError:
        return {}


def _files(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.is_file()]
    except OSError:  # swept meanwhile
        return []
