"""Decided changes: what records of a conditional table did, as the state that has applied them says.

    the row has the record's version       the change, with the row as it is
    a higher one                           nothing: the row has changed again since, and that change follows
    a lower one                            nothing: the record was refused, or repeated another one
    the row is not there                   a delete, unless the outcome says that the record did nothing

So a consumer that keeps the higher version has the state, as with a plain table; of a row that changes quickly it may
not see each value. The state is asked once for a chunk, and may stand further than the chunk reaches.
"""

from logstore.model.changes.row_change import RowChange
from logstore.model.hard_rows.outcomes import AppliedOutcome
from logstore.serve.changes.chunk import Chunk
from logstore.serve.read.merged_read import FellBehind, Floor, MergedRead, merged
from logstore.serve.state.partition import ServedPartition
from logstore.serve.wire.problems import Problem
from logstore.view.decisions import DecisionReading


def decided(chunk: Chunk, served: ServedPartition) -> Chunk:
    """The chunk with its changes decided. Raises Problem while the partition does not answer so far."""
    if all(change.is_decided for change in chunk.changes):
        return chunk
    try:
        with merged(served, None, Floor({chunk.partition: chunk.following})) as state:
            changes = [now for change in chunk.changes if (now := _now(change, state)) is not None]
    except FellBehind as error:
        raise Problem("starting", str(error), table=served.table, partition=chunk.partition) from error
    return Chunk(chunk.partition, chunk.start, chunk.following, changes)


def _now(change: RowChange, state: MergedRead) -> RowChange | None:
    if change.is_decided:
        return change
    cell = state.cell(change.key)
    if cell.version is None:
        return None if _did_nothing(change.version, state.decisions) else change._replace(is_decided=True)
    if cell.version != change.version:
        return None
    return change._replace(value=cell.payload, is_decided=True)


def _did_nothing(offset: int, decisions: DecisionReading | None) -> bool:
    """True when the outcome of the record at `offset` is remembered, and is another than that it was applied."""
    remembered = None if decisions is None else decisions.outcome(offset)
    return remembered is not None and not isinstance(remembered.outcome, AppliedOutcome)
