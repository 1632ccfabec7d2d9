"""ViewState: the state of a conditional table's partition as its view and what lies below the view hold it.

What a fold of hard records asks (`logstore.model.hard_rows.stretch`): rows from the view, those that it does not have
from its base; ids and outcomes from the view alone, which has all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from logstore.model.folding.decided import RowId
from logstore.model.hard_rows.outcomes import RememberedId
from logstore.view.reader import ViewReader


class RowsBelow(Protocol):
    """Rows of what a view stands on."""

    def get(self, key: bytes) -> bytes | None:
        """The encoded entry of a row; None where it has none."""


class ViewState:
    """State before a stretch. `below`: rows of the view's base, asked for once one is needed."""

    def __init__(self, reader: ViewReader, below: Callable[[], RowsBelow | None]) -> None:
        self._reader, self._below = reader, below

    def entries(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The encoded entries of these rows. Raises Corrupted, NotYet, and as `below` does."""
        with self._reader.reading() as reading:
            found = {key: entry for key in keys if (entry := reading.get(key)) is not None}
        missing = [key for key in keys if key not in found]
        below = self._below() if missing else None
        if below is None:
            return found
        return found | {key: entry for key in missing if (entry := below.get(key)) is not None}

    def ids(self, names: Sequence[RowId]) -> Mapping[RowId, RememberedId]:
        """Ids among these that are remembered. Raises Corrupted, NotYet."""
        if not names:
            return {}
        with self._reader.reading() as reading:
            assert reading.decisions is not None, "the table is conditional"
            return reading.decisions.ids(names)
