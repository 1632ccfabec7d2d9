"""BaseRows: rows of the snapshot that a view stands on, as the lane looks them up to fold hard records.

Opened when the first hard record asks for a row that the view does not have: most partitions never do.
"""

from pathlib import Path

from logstore.model.errors import Corrupted, NotYet
from logstore.snapshot.sst import SstReader
from logstore.view.layout import Base

_CACHE_BYTES = 8 << 20


class BaseDamaged(NotYet):
    """Snapshot that a view stands on cannot be read here: it is fetched again."""


class BaseRows:
    """Rows of one view's base; of a view without one, there are none."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._reader: SstReader | None = None

    def at(self, base: Base | None, directory: Path | None) -> "BaseRows":
        """Rows of `base`, which lies at `directory`; raises NotYet while it is not here."""
        if base is not None and directory is None:
            raise NotYet(
                f"the next record builds on the snapshot {base.snapshot}, which is not here: it is fetched again"
            )
        if directory != self._directory:
            self.close()
            self._directory = directory
        return self

    def get(self, key: bytes) -> bytes | None:
        """The encoded entry of a row; None where it has none. Raises BaseDamaged."""
        if self._directory is None:
            return None
        try:
            if self._reader is None:
                self._reader = SstReader.open(self._directory, cache_bytes=_CACHE_BYTES)
            return self._reader.get(key)
        except Corrupted as error:  # of the base, which is fetched again: nothing is wrong with the view
            self.close()
            raise BaseDamaged(f"the next record builds on a snapshot that is damaged: {error}") from error

    def close(self) -> None:
        """Close what was opened."""
        reader, self._reader, self._directory = self._reader, None, None
        if reader is not None:
            reader.close()
