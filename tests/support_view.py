"""Views without a lane: records of one partition, folded and applied."""

from pathlib import Path

from logstore.model.fold import Folded, Place, Records, fold_batch
from logstore.view.view import Identity, View

PLACE = Place(partition=0, partitions=1, max_value_bytes=1_000_000)
IDENTITY = Identity("t", "e" * 32, 0, 1, 1_000_000)


def records(rows: dict[bytes, bytes | None] | list[tuple[bytes | None, bytes | None]], first: int = 0) -> Records:
    """One record per row, offsets from `first` on, timestamp 1."""
    pairs = list(rows.items()) if isinstance(rows, dict) else rows
    count = len(pairs)
    return Records(range(first, first + count), [k for k, _ in pairs], [v for _, v in pairs], [1] * count, [None] * count)


def put(view: View, rows: dict[bytes, bytes | None]) -> Folded:
    """Apply these rows behind what the view holds; returns what was folded."""
    folded = fold_batch(records(rows, view.next_offset), PLACE, view.next_offset, view.state.log_time_ms)
    view.apply(folded)
    return folded


def open_view(path: Path, **more) -> View:
    """The view of the only partition of table t."""
    return View(path, IDENTITY, **more)


def mixed(first: int, behind: int) -> Records:
    """Records `[first, behind)` of one endless log: plain and long keys that come again and again, deletes, and garbage."""
    rows = [_mixed(offset) for offset in range(first, behind)]
    return records(rows, first)._replace(timestamps_ms=[offset * 31 % 1_000 for offset in range(first, behind)])


def _mixed(offset: int) -> tuple[bytes | None, bytes | None]:
    scattered = offset * 2_654_435_761 % 2**32
    if scattered % 11 == 0:
        return None, b"garbage"
    key = b"%d" % (scattered % 900)
    return (b"k" * 600 + key if scattered % 5 == 0 else key), (None if scattered % 7 == 0 else b"%d" % offset * (scattered % 40))
