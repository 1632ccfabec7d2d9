"""Fork: a row as the table that begins with it has it: written by the base record, at offset 0, whatever wrote it.

Versions that its source knew are of no log that the fork has. So they all become that of the base record: of the row,
its groups, its cells and siblings; older values stay with the source. What ends does so by as much later.
"""

from logstore.model.folding.entry import LATEST_MS, SIBLINGS, Entry, ends_later
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.row import CellState, RowState

_BEGUN = 0  # offset of the base record


def forked(raw: bytes, later_ms: int) -> bytes:
    """The encoded entry as a fork begins with it; its timestamps stay. Raises Corrupted."""
    entry = Entry.decode(raw)
    if entry.kind < SIBLINGS:
        return raw[:1] + _BEGUN.to_bytes(8) + ends_later(raw, later_ms)[9:]
    row = unpack_row(entry)
    cells = {
        column: CellState(_BEGUN, tuple(_begun(one, later_ms) for one in cell.members))
        for column, cell in row.cells.items()
    }
    begun = RowState(cells, dict.fromkeys(row.versions, _BEGUN))
    return pack_row(begun, _BEGUN, entry.timestamp_ms, wide=entry.kind > SIBLINGS).encode()


def _begun(one: Entry, later_ms: int) -> Entry:
    end = None if one.expires_ms is None else min(one.expires_ms + later_ms, LATEST_MS)
    return one._replace(version=_BEGUN, expires_ms=end)
