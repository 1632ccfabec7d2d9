"""SST files: those of a repository, brought to where a task reads them, and compared with the manifest."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import Corrupted
from logstore.model.folding.difference import EVERY_KEY, KeyRange, StateBelow
from logstore.model.folding.digest import Digest
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts, levels_of
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import FileOrder

_KEYS, _LOOKED_UP_BYTES = 64, 16 << 20  # that are looked up at once


class SstTarget(NamedTuple):
    """Target of a job's SSTables: `root` is the repository's folder in the storage, `name` the snapshot's."""

    storage: Storage
    root: str
    name: str


class NoFiles:
    """No files at all, which hold no entries."""

    def get(self, _key: bytes) -> bytes | None:
        """There is none."""
        return None

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """There are none."""
        return [None] * len(keys)

    def scan(self, _start: bytes = b"", _end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """There are none."""
        return iter(())

    stored = scan


def state_of(
    reader: sst.SstReader | NoFiles, digest: Digest, entries: int, table: Table, log_time_ms: int | None = None
) -> StateBelow:
    """State of a table's partition that newer entries lie over, with look-ups of as many keys at once as fit."""
    at_once = max(1, min(_KEYS, _LOOKED_UP_BYTES // table.max_value_bytes))
    return StateBelow(reader, digest, entries, log_time_ms, reader.get_many, at_once)


@contextmanager
def scanned(
    where: SstTarget, files: list[FileFacts], scratch: Path, keys: KeyRange = EVERY_KEY
) -> Iterator[Iterator[tuple[bytes, bytes]]]:
    """Entries of these SSTables in key order."""
    with readable(where, files, scratch) as reader:
        yield iter(()) if reader is None else reader.scan(*keys)


@contextmanager
def levels_opened(paths: sst.Levels, *, several: bool = False) -> Iterator[sst.SstReader | NoFiles]:
    """A reader over levels that are here; there may be none of them. `several`: as of `sst.opened`."""
    if not paths:
        yield NoFiles()
        return
    with sst.opened(paths, several=several) as reader:
        yield reader


@contextmanager
def readable(where: SstTarget, files: list[FileFacts], scratch: Path) -> Iterator[sst.SstReader | None]:
    """A reader over these SSTables, fetched to `scratch` and compared with the manifest.

    None where there are none. Raises Corrupted.
    """
    with ExitStack() as stack:
        local = _placed(levels_of(files), scratch, partial(fetched, where))
        yield stack.enter_context(sst.opened(local)) if local else None


def linked(where: SstTarget, files: list[FileFacts], scratch: Path) -> list[list[Path]]:
    """The files by level, for look-ups.

    Those on a disk stay where they are and are not read whole: each of their blocks has a checksum.
    """
    near = where.storage.local(where.root) is not None
    return _placed(levels_of(files), scratch, partial(_pointed if near else fetched, where))


def fetched(where: SstTarget, file: FileFacts, local: Path) -> Path:
    """A file of the repository, here; raises Corrupted when it is not the one of the manifest."""
    try:
        where.storage.fetch(f"{where.root}/{file.path}", local)
    except FileNotFoundError as error:
        raise _gone(file) from error
    if local.stat().st_size != file.size_bytes or sst.checksum(local) != file.checksum:
        raise _damaged(file)
    return local


def decisions_here(where: SstTarget, file: FileFacts | None, scratch: Path) -> Path | None:
    """The file of a base's outcomes and ids, in `scratch`; None where it has none. Raises Corrupted."""
    return None if file is None else fetched(where, file, below(scratch, "before.sst"))


def seen(where: SstTarget, file: FileFacts, local: Path) -> Path:
    """A file of the repository, as `fetched`; one on a disk is read where it is, and `local` points there."""
    if where.storage.local(where.root) is None:
        return fetched(where, file, local)
    if sst.checksum(_pointed(where, file, local)) != file.checksum:
        raise _damaged(file)
    return local


def check_files(order: FileOrder, where: SstTarget) -> int:
    """Read files whole and compare them with the manifest; returns their bytes. Raises Corrupted."""
    with tempfile.TemporaryDirectory(prefix="logstore-verify-") as scratch:
        for file in order.files:
            fetched(where, file, Path(scratch, "whole.sst")).unlink()
    return sum(file.size_bytes for file in order.files)


def check_sizes(order: FileOrder, where: SstTarget) -> int:
    """Look whether files are there, in the size they were verified in when they were made; returns their bytes.

    Raises Corrupted.
    """

    def size(file: FileFacts) -> int:
        try:
            return where.storage.size(f"{where.root}/{file.path}")
        except FileNotFoundError as error:
            raise _gone(file) from error

    for file, found in zip(order.files, where.storage.looks(size, order.files), strict=True):
        if found != file.size_bytes:
            raise _damaged(file)
    return sum(file.size_bytes for file in order.files)


def check_order(files: list[FileFacts]) -> None:
    """Requires that the files of each level of a partition follow each other. Raises Corrupted."""
    for level in levels_of(files):
        for one, after in pairwise(level):
            if after.first_key <= one.last_key:
                raise Corrupted(f"{after.path} begins at or before the last key of {one.path}")


def _placed(
    by_level: list[list[FileFacts]], scratch: Path, bring: Callable[[FileFacts, Path], Path]
) -> list[list[Path]]:
    """The files by level, each brought to a name of its own in `scratch`."""
    return [
        [bring(file, below(scratch, f"level-{level}-{at:05d}.sst")) for at, file in enumerate(files)]
        for level, files in enumerate(by_level)
    ]


def _pointed(where: SstTarget, file: FileFacts, local: Path) -> Path:
    """A file of the repository on a disk; raises Corrupted when it has not the manifest's size."""
    here = where.storage.local(f"{where.root}/{file.path}")
    assert here is not None, "the storage is a disk"
    if not here.exists():
        raise _gone(file)
    if here.stat().st_size != file.size_bytes:
        raise _damaged(file)
    local.symlink_to(here)
    return local


def _gone(file: FileFacts) -> Corrupted:
    return Corrupted(f"{file.path} is gone; `logstore snapshot verify` shows what else is")


def _damaged(file: FileFacts) -> Corrupted:
    return Corrupted(
        f"{file.path} of partition {file.partition} is damaged: its size or checksum is not that of the manifest; "
        "`logstore batch rebuild` makes a snapshot from the archive instead"
    )
