"""Siblings: values whose writers did not know of each other, side by side until a writer has seen them.

After Dynamo (DeCandia et al. 2007) and Riak; since one log orders the partition, one offset says exactly what a writer
had seen, and no vector clock is needed.
"""

from logstore.model.folding.entry import VALUE, Entry
from logstore.model.hard_rows.changes.draft import Stamp
from logstore.model.hard_rows.changes.edits import Infeasible
from logstore.model.hard_rows.row import ABSENT, PLAIN_COLUMN, CellState, RowState
from logstore.model.hard_rows.rules import DEFAULT_GROUP, Rules

MAX_SIBLINGS = 32


def write(row: RowState, payload: bytes | None, seen: int | None, stamp: Stamp, rules: Rules) -> RowState:
    """The row after a put, or (`payload` None) a delete, whose writer had read the row version `seen`.

    It takes the place of the members that it had seen, of all when it does not say, and stands beside the newer ones.
    Raises Infeasible.
    """
    if seen is not None and seen >= stamp.offset:
        raise Infeasible("bad-seen")
    cell = row.cells.get(PLAIN_COLUMN)
    unseen = [one for one in cell.members if one.version > seen] if cell is not None and seen is not None else []
    if payload is not None:
        added = Entry(VALUE, stamp.offset, max(stamp.timestamp_ms, 0), payload, stamp.end(stamp.ttl_ms))
        unseen += [] if added.expired(stamp.log_time_ms) else [added]
    if not unseen:
        return ABSENT
    if len(unseen) > MAX_SIBLINGS or sum(len(one.payload) for one in unseen) > rules.place.max_value_bytes:
        raise Infeasible("too-many-siblings")
    return RowState({PLAIN_COLUMN: CellState(stamp.offset, tuple(unseen))}, {DEFAULT_GROUP: stamp.offset})
