"""View digest: the digest of a partition at a cut, from a reading of its view that was begun exactly there."""

from collections.abc import Callable, Iterable, Iterator

from logstore.model.folding.difference import LookUp, StateBelow, digest_upon, ended
from logstore.model.folding.digest import Digest, digest
from logstore.model.hard_rows.decisions import decisions_digest
from logstore.snapshot.sst import SstReader
from logstore.view.layout import Base
from logstore.view.reader import Reading

Saw = Callable[[int], None]  # so many entries more were gone through
SAID_EACH = 1_000  # entries: some milliseconds of work

Item = tuple[bytes, bytes]


def nobody(_entries: int) -> None:
    """Progress that nobody hears of."""


def digest_of(reading: Reading, base: Base | None, base_reader: SstReader | None, saw: Saw = nobody) -> Digest:
    """The digest of what the view and its base hold together; it counts rows. `saw` hears how it goes on.

    Raises Corrupted. Requires: a base is given with its reader.
    """
    rows, decisions = _rows(reading, base, base_reader, saw), reading.decisions
    if decisions is None:
        return rows
    return rows.plus(Digest(decisions_digest(counted(decisions.items(), saw)).value))


def _rows(reading: Reading, base: Base | None, base_reader: SstReader | None, saw: Saw) -> Digest:
    own = counted(reading.scan(), saw)
    log_time_ms = reading.state.log_time_ms if reading.expiring else None
    if base is None:
        return digest(own if log_time_ms is None else ended(own, log_time_ms))
    assert base_reader is not None, "a base comes with its reader"
    below = StateBelow(_Counted(base_reader, saw), base.rows, base.entries, log_time_ms)
    return digest_upon(own, reading.count(), below)


def counted(items: Iterable[Item], saw: Saw) -> Iterator[Item]:
    """The items; `saw` hears of each SAID_EACH of them, and of the rest."""
    count = 0
    for item in items:
        yield item
        count += 1
        if count == SAID_EACH:
            saw(count)
            count = 0
    if count:
        saw(count)


class _Counted:
    """State below a view; walks along it are heard: nothing may lie over most of what they meet."""

    def __init__(self, below: LookUp, saw: Saw) -> None:
        self._below, self._saw = below, saw
        self.get = below.get

    def scan(self, start: bytes = b"", end: bytes | None = None) -> Iterator[Item]:
        """Live entries with start <= key < end, in key order."""
        return counted(self._below.scan(start, end), self._saw)
