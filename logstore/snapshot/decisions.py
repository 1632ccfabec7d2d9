"""Decisions file: the outcomes and ids of one partition at a cut, all of them in one SSTable.

Its keys and values are decision items (`logstore.model.hard_rows.decisions`); it is no level of the rows, and no reader
of rows opens it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from logstore.model.hard_rows.decisions import DecisionItem
from logstore.snapshot.sst import SstFacts, SstWriter, opened

_CACHE_BYTES = 1 << 20  # it is read once, from end to end


def write(path: Path, items: Iterable[DecisionItem], *, compression: str) -> SstFacts | None:
    """Write decision items, in key order, as a file; None, and no file, where there are none. Raises Corrupted."""
    writer = SstWriter(path, compression=compression)
    try:
        writer.put_many(items)
    except BaseException:
        writer.abort()
        raise
    return writer.close()


@contextmanager
def stored(path: Path) -> Iterator[Iterator[DecisionItem]]:
    """The decision items of a file, in key order. Raises Corrupted."""
    with opened([[path]], _CACHE_BYTES) as reader:
        yield reader.stored()
