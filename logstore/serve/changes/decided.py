"""Decided changes: what records of a conditional table did, as the state that has applied them says.

    the row has the record's version       the change, with the row as it is and the ends of what it holds
    a higher one                           nothing: the row has changed again since, and that change follows
    a lower one                            nothing: the record was refused, or repeated another one
    the row is not there                   a delete, unless the outcome says that the record did nothing

So a consumer that keeps the higher version has the state, as with a plain table; of a row that changes quickly it may
not see each value. The state is asked once for a chunk, and may stand further than the chunk reaches. What has ended
by the log's time there is a delete.
"""

from logstore.model.changes.before import before_of, several_versions
from logstore.model.changes.held import held_at
from logstore.model.changes.row_change import RowChange
from logstore.model.folding.entry import Entry
from logstore.model.hard_rows.outcomes import AppliedOutcome
from logstore.model.table import Table
from logstore.serve.changes.chunk import CUT_BYTES, Chunk, bytes_of
from logstore.serve.read.merged_read import FellBehind, Floor, MergedRead, merged
from logstore.serve.state.partition import ServedPartition
from logstore.serve.wire.problems import Problem
from logstore.view.conditional.decisions import DecisionReading


def decided(chunk: Chunk, table: Table, served: ServedPartition) -> Chunk:
    """The chunk with its changes decided, or a first part of it: rows may be large, and are known only now.

    Raises Problem while the partition does not answer so far.
    """
    if all(change.is_decided for change in chunk.changes):
        return chunk
    try:
        with merged(served, None, Floor({chunk.partition: chunk.following})) as state:
            return _first_part(chunk, state, several_versions(table))
    except FellBehind as error:
        raise Problem("starting", str(error), table=served.table, partition=chunk.partition) from error


def _first_part(chunk: Chunk, state: MergedRead, several: dict[str, int]) -> Chunk:
    found, size, before = list[RowChange](), 0, chunk.start
    for change in chunk.changes:
        if size > CUT_BYTES and change.version != before:
            return Chunk(chunk.partition, chunk.start, change.version, found)
        before, now = change.version, _now(change, state, several)
        if now is not None:
            found.append(now)
            size += bytes_of(now)
    return Chunk(chunk.partition, chunk.start, chunk.following, found)


def _now(change: RowChange, state: MergedRead, several: dict[str, int]) -> RowChange | None:
    if change.is_decided:
        return change
    raw, _ = state.entry(change.key)
    if raw is None:
        return None if _did_nothing(change.version, state.decisions) else change._replace(is_decided=True)
    entry = Entry.decode(raw)
    if entry.version != change.version:
        return None
    held, ends = held_at(entry, state.now_ms)
    before = before_of(entry, several, state.now_ms)
    return change._replace(value=held, ends=ends, is_decided=True, before=before)


def _did_nothing(offset: int, decisions: DecisionReading | None) -> bool:
    """True when the outcome of the record at `offset` is remembered, and is another than that it was applied."""
    remembered = None if decisions is None else decisions.outcome(offset)
    return remembered is not None and not isinstance(remembered.outcome, AppliedOutcome)
