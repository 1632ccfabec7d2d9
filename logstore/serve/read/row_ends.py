"""Row ends: when what a reader shows of a row ends, for the pages that say so."""

from logstore.model.folding.entry import Entry
from logstore.model.folding.sibling import Ends
from logstore.model.hard_rows.packed import sibling_ends
from logstore.model.wide.cell import RowCells
from logstore.serve.read.encoding import Held
from logstore.serve.state.partition import Cell


def row_ends(held: Held, cell: Cell, raw: bytes) -> Ends:
    """Ends of what is shown of a row, `raw` as it is stored: of its value, or of each sibling or cell."""
    if isinstance(held, RowCells):
        return held.ends
    if cell.expires_ms is None:
        return ()
    return sibling_ends(Entry.decode(raw), cell.seen_ms) if isinstance(held, tuple) else (cell.expires_ms,)
