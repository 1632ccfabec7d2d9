"""Views without a lane: records of one partition, folded and applied."""

import resource
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from logstore.model.folding.fold import Folded, FoldRules, Records, fold_batch
from logstore.view.view import View, ViewIdentity

PLACE = FoldRules(partition=0, partitions=1, max_value_bytes=1_000_000)
IDENTITY = ViewIdentity("t", "e" * 32, 0, 1, 1_000_000)


def records(rows: dict[bytes, bytes | None] | list[tuple[bytes | None, bytes | None]], first: int = 0) -> Records:
    """One record per row, offsets from `first` on, timestamp 1."""
    pairs = list(rows.items()) if isinstance(rows, dict) else rows
    count = len(pairs)
    return Records(
        range(first, first + count), [k for k, _ in pairs], [v for _, v in pairs], [1] * count, [None] * count
    )


def put(view: View, rows: dict[bytes, bytes | None]) -> Folded:
    """Apply these rows behind what the view holds; returns what was folded."""
    folded = fold_batch(records(rows, view.next_offset), PLACE, view.next_offset, view.state.log_time_ms)
    view.apply(folded)
    return folded


def open_view(path: Path, **more) -> View:
    """The view of the only partition of table t."""
    return View(path, IDENTITY, **more)


def mixed(first: int, behind: int) -> Records:
    """Records `[first, behind)` of one endless log.

    Plain and long keys that come again and again, deletes, and garbage.
    """
    rows = [_mixed(offset) for offset in range(first, behind)]
    return records(rows, first)._replace(timestamps_ms=[offset * 31 % 1_000 for offset in range(first, behind)])


def _mixed(offset: int) -> tuple[bytes | None, bytes | None]:
    scattered = offset * 2_654_435_761 % 2**32
    if scattered % 11 == 0:
        return None, b"garbage"
    key = b"%d" % (scattered % 900)
    return (b"k" * 600 + key if scattered % 5 == 0 else key), (
        None if scattered % 7 == 0 else b"%d" % offset * (scattered % 40)
    )


PAGE = 4_096


def used_bytes(path: Path) -> int:
    """How far the view's file is in use, by the newer of its two meta pages."""
    with (path / "data.mdb").open("rb") as file:
        metas = [_meta(file, number) for number in (0, 1)]
    return (max(metas)[1] + 1) * PAGE


def copy(path: Path, to: Path) -> None:
    """A copy of the view: its file is as long as the largest it may become, nearly all of it a hole, and stays so."""
    subprocess.run(["cp", "--recursive", "--sparse=always", path, to], check=True, timeout=60)


def truncate(path: Path, size_bytes: int) -> None:
    """Cut the view's file off, as a broken copy or a lost extent does."""
    with (path / "data.mdb").open("r+b") as file:
        file.truncate(size_bytes)


def zero_root(path: Path) -> None:
    """Zero the page that names the view's databases."""
    with (path / "data.mdb").open("r+b") as file:
        root = max(_meta(file, number) for number in (0, 1))[2]
        file.seek(root * PAGE)
        file.write(bytes(PAGE))


def zero_pages(path: Path) -> None:
    """Zero every page but the two that say where the others are."""
    used = used_bytes(path)
    with (path / "data.mdb").open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(bytes(used - 2 * PAGE))


def _meta(file: BinaryIO, number: int) -> tuple[int, int, int]:
    """(transaction, last page in use, page of the main database's root) of a meta page, by LMDB's mdb.c."""
    file.seek(number * PAGE + 40)
    raw = file.read(112)
    (root,) = struct.unpack_from("<Q", raw, 88)
    last_page, transaction = struct.unpack_from("<QQ", raw, 96)
    return transaction, last_page, root


@contextmanager
def descriptors(spare: int) -> Iterator[None]:
    """As if this process had so many descriptors left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as probe:
        first = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
