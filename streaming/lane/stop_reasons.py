"""Stop reasons: causes for which a partition answers nothing, each with the command that helps."""

from collections.abc import Sequence

from logstore.log.read.foreign_time import foreign_time as find_foreign_time
from logstore.log.tables import repairs
from logstore.model.errors import EpochChanged, LogGap, LogTruncated, TopicMisconfigured, Unsupported
from logstore.model.folding.fold import Folded
from logstore.model.record_identity import AppliedPosition
from logstore.model.table import Table
from logstore.view.layout import Stop
from streaming.lane.target import Target


def gap(target: Target, first: int, behind: int) -> Stop:
    """Offsets `[first, behind)` are missing."""
    table, partition = target.table.name, target.partition
    return Stop(
        LogGap.word,
        f"offsets {first:,} to {behind - 1:,} are missing from the log of {table}/{partition}: a transactional "
        "writer's markers, or loss. "
        f"`logstore table repair {table} --partition {partition} --skip {first}..{behind - 1}` steps over them",
        first,
    )


def refused(target: Target, folded: Folded) -> Stop | None:
    """The record behind what was folded cannot be folded by this build; None when it can."""
    if folded.refused is None:
        return None
    offset = folded.next_offset
    return Stop(Unsupported.word, folded.refused.advice(target.table.name, target.partition, offset), offset)


def cut_back(target: Target, position: int, detail: str) -> Stop:
    """The log begins later than the view's position."""
    table, partition = target.table.name, target.partition
    lost = f"the log of {table}/{partition} does not hold offset {position:,}, which this view needs next: {detail}"
    way = f"where the archive holds it `logstore batch compact {table}` makes a snapshot that this view goes on from"
    return Stop(
        LogTruncated.word,
        f"{lost}; {way}; `logstore table repair {table} --partition {partition}` shows what is missing",
        position,
    )


def lost_end(target: Target, applied: AppliedPosition, position: int, detail: str) -> Stop:
    """The log does not hold a record that was applied here: it lost its end after it."""
    table, partition = target.table.name, target.partition
    return Stop(
        LogTruncated.word,
        f"the log of {table}/{partition} lost its end: this node has applied everything below offset "
        f"{applied.next_offset:,}, up to leader epoch {applied.leader_epoch}, and the log does not hold its last "
        f"record at offset {applied.last.offset:,} any more: {detail}; acknowledged writes are gone from the log; "
        f"`logstore table repair {table} --partition {partition} --accept-loss` shows what still holds them, and asks "
        "whether to go on with the log as it is",
        position,
    )


def epoch_changed(table: Table, actual: str | None) -> Stop:
    """The stop for a topic that is not the one of the definition."""
    what = f"has another id ({actual}): it was deleted and created again" if actual else "is gone"
    return Stop(
        EpochChanged.word,
        f"the topic {table.topic} of table {table.name} {what}; "
        + (
            f"`logstore table repair {table.name} --new-epoch` begins anew with it"
            if actual
            else repairs.when_gone(table)
        ),
        0,
    )


def foreign_time(target: Target, by_writers: Sequence[int]) -> Stop | None:
    """The first of these records has the time of its writer, and the table lives by the broker's; None: all can be."""
    found = find_foreign_time(target.table, target.partition, by_writers)
    if found is None:
        return None
    return Stop(TopicMisconfigured.word, found.detail(target.table, target.partition), found.first)


def misconfigured(table: Table, detail: str) -> Stop:
    """The stop for a topic whose settings contradict the definition."""
    return Stop(TopicMisconfigured.word, f"the topic {table.topic} of table {table.name}: {detail}", 0)
