"""Work of batch jobs: orders that a driver gives to executors, one to a task, and results that come back.

Executors know `logstore` and not `batch`, whose code reaches them by value. So what is passed is of classes that both
sides import: those of this module, and those they are made of.

    order             task                                          result
    OffsetRange       archive a stretch of the log                  [Segment]
    FoldOrder         fold a partition into SSTables                FoldResult
    SampleOrder       sample the keys of a large partition          [KeySample]
    MergeOrder        merge levels in a range of keys               FoldResult
    RestoreOrder      fold a partition into a fork's SSTables       FoldResult
    DigestOrder       fold a partition once, and keep nothing       a PartDigest at each cut
    SnapshotOrder     compare that fold with a snapshot's files     Comparison
    ServedOrder       compare that fold with what a node serves     Comparison
    DiffOrder         compare the rows of two states              RowDiff
    FileOrder         read SSTables for Spark, or to compare them   rows, or their bytes
    StateOrder        read a partition as of a position for Spark   rows
    LogStretch        read changes for Spark                        rows
"""

from typing import NamedTuple

from logstore.model.folding.difference import EVERY_KEY, KeyRange
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.manifest import FileFacts, PartFacts


class OffsetRange(NamedTuple):
    """Offsets `[start, end)` of a partition's log.

    `after`: the last record archived before them, as `Segment.last` has it.
    """

    partition: int
    start: int
    end: int
    after: str = ""


class LogStretch(NamedTuple):
    """Records `[start, end)` of a partition: those of the segments, then from `log_start` on those of the log."""

    partition: int
    start: int
    end: int
    segments: list[Segment]
    log_start: int


class FoldOrder(NamedTuple):
    """Fold the records `[since, cut)` of a partition, which the segments hold, over a base that ends at `since`.

    `base` None: there is none, and then there are no files of it. `full`: its levels are merged, whatever their sizes.
    `keys`: the mutations of these alone, in a task that is one of several.
    `decisions`: the base's outcomes and ids, of a conditional table, which is folded in one task.
    """

    partition: int
    since: int
    cut: int
    segments: list[Segment]
    base_files: list[FileFacts]
    base: PartFacts | None = None
    full: bool = False
    keys: KeyRange = EVERY_KEY
    decisions: FileFacts | None = None


class PartDigest(NamedTuple):
    """Digest of a partition's live entries, 32 hex digits, and how many those are."""

    digest: str
    entries: int


class MergeOrder(NamedTuple):
    """Merge levels of a partition in a range of its keys: all of them into a base, else the deltas.

    `new` is the delta that was laid upon the files of the snapshot before, `difference` what it makes there.
    """

    fold: FoldOrder
    new: list[FileFacts]
    into_base: bool
    difference: PartDigest


class SampleOrder(NamedTuple):
    """Sample the keys of a fold that is to be divided into so many ranges."""

    fold: FoldOrder
    ranges: int


class KeySample(NamedTuple):
    """Key of a sample, and the bytes that it stands for."""

    key: bytes
    size_bytes: int


class DigestOrder(NamedTuple):
    """Digests of a fold on its way: at each of these cuts, which rise; the last one is the fold's."""

    fold: FoldOrder
    cuts: list[int]


class BaseState(NamedTuple):
    """State of a base beside its rows, which the fold of a conditional table goes on from.

    `facts` of its partition (None: there is no base), and its file of outcomes and ids (None: it has none).
    """

    facts: PartFacts | None = None
    decisions: FileFacts | None = None


NO_BASE = BaseState()


class RestoreOrder(NamedTuple):
    """Fold a stretch of the source's log over the files of a base whose log time is `log_time_ms`."""

    stretch: LogStretch
    base_files: list[FileFacts]
    log_time_ms: int
    base: BaseState = NO_BASE


class FoldResult(NamedTuple):
    """SSTables of one partition. `linked`: they are the base's, for nothing changed; `records`: how many were read.

    Of a range of its keys: its share of them, and of the digest; `linked`: nothing changed in it. `rules`: revision of
    the source's rules behind what was read for a fork.
    """

    facts: PartFacts
    files: list[FileFacts]
    linked: bool
    records: int
    rules: int = 0


class SnapshotOrder(NamedTuple):
    """Compare a fold with the files of a snapshot at the same cut."""

    fold: FoldOrder
    files: list[FileFacts]


class ServedOrder(NamedTuple):
    """Compare a fold with what the node at `url` serves of the partition."""

    fold: FoldOrder
    url: str
    timeout_s: float


class SeenValue(NamedTuple):
    """Version and length of a row's value, as one side of a comparison has it."""

    version: int
    size_bytes: int


class GuiltyCell(NamedTuple):
    """Cell `family:qualifier` in which two sides of a wide row differ; None: that side has no such cell."""

    name: str
    expected: SeenValue | None
    found: SeenValue | None


class GuiltyKey(NamedTuple):
    """Key in which two sides differ; None: that side has no such row. `cells`: the first that differ, of a wide row."""

    key: bytes
    expected: SeenValue | None
    found: SeenValue | None
    cells: tuple[GuiltyCell, ...] = ()


class Comparison(NamedTuple):
    """Counts of differing keys by kind (missing, extra, different), and the first of them.

    `why`: the reason why it ended early, or nothing.
    """

    counts: dict[str, int]
    guilty: list[GuiltyKey]
    why: str


class FileOrder(NamedTuple):
    """Read SSTables of a partition: one of a base, or all of those that deltas lie upon."""

    partition: int
    files: list[FileFacts]


class StateOrder(NamedTuple):
    """Read a partition: a base's files, and the stretch of the log behind them."""

    stretch: LogStretch
    base_files: list[FileFacts]
    base: BaseState = NO_BASE


class DiffOrder(NamedTuple):
    """Compare two states in those partitions of each that can hold the same keys; list at most so many."""

    left: list[StateOrder]
    right: list[StateOrder]
    listed: int


class DiffKey(NamedTuple):
    """Key of a row that differs. `cells`: the first `family:qualifier` with different values, of a wide row."""

    kind: str  # only_left, only_right, different
    key: bytes
    cells: tuple[str, ...] = ()


class RowDiff(NamedTuple):
    """Rows by kind (only_left, only_right, different, same), and the first of those that differ."""

    counts: dict[str, int]
    keys: list[DiffKey]


ReadOrder = FileOrder | StateOrder | LogStretch
