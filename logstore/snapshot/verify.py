"""Verify: read a snapshot back through RocksDB, with checksums, and compare it with its manifest."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.partitioner import partition_of
from logstore.model.safe_path import below
from logstore.snapshot.manifest import FileFacts, Manifest, levels_of
from logstore.snapshot.sst import Levels, checksum, opened
from logstore.snapshot.storage import Storage


def problems(storage: Storage, root: str, manifest: Manifest, on_bytes: Callable[[int], None]) -> list[str]:
    """Problems of a snapshot, all of them. Raises StorageUnreachable."""
    found: list[str] = []
    for partition, part in sorted(manifest.parts.items()):
        with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
            total = _partition(storage, root, manifest, manifest.files_of(partition), on_bytes, found, Path(scratch))
        if (total.hex, total.entries) != (part.digest, part.entries):
            found.append(
                f"partition {partition}: {total.hex} of {total.entries:,} entries, the manifest has {part.digest} of "
                f"{part.entries:,}"
            )
    return found


def _partition(
    storage: Storage, root: str, manifest: Manifest, files: list[FileFacts], on_bytes: Callable[[int], None],
    found: list[str], scratch: Path,
) -> Digest:  # fmt: skip
    """The digest of a partition; its files are looked at one by one, and stay here only where deltas lie upon them."""
    total, here, by_level = Digest(), list[list[Path]](), levels_of(files)
    for level in by_level:
        last = b""
        here.append([])
        for file in level:
            if file.first_key <= last:
                found.append(
                    f"{_where(file)}: key {file.first_key[:80]!r} does not come after {last[:80]!r} of the file before"
                )
            last = file.last_key
            local = below(scratch, f"{file.level}-{len(here[-1]):05d}.sst")
            total = total.plus(_file(storage, root, manifest, file, on_bytes, found, local))
            if len(by_level) == 1:
                local.unlink(missing_ok=True)
            elif local.exists():
                here[-1].append(local)
    return total if len(by_level) < 2 else _merged(here, found)


def _merged(levels: Levels, found: list[str]) -> Digest:
    try:
        with opened(levels) as reader:
            return digest(reader.scan())
    except Corrupted as error:
        found.append(str(error))
        return Digest()


def _file(
    storage: Storage, root: str, manifest: Manifest, file: FileFacts, on_bytes: Callable[[int], None],
    found: list[str], local: Path,
) -> Digest:  # fmt: skip
    try:
        storage.download(f"{root}/{file.path}", local, on_bytes=on_bytes)
    except FileNotFoundError:
        found.append(f"{_where(file)}: the file is missing")
        return Digest()
    if (size := local.stat().st_size) != file.size_bytes:
        found.append(f"{_where(file)}: {size:,} bytes, the manifest has {file.size_bytes:,}")
    if checksum(local) != file.checksum:
        found.append(f"{_where(file)}: its bytes are not those of the manifest (checksum)")
    return _entries(local, manifest, file, found)


def _entries(local: Path, manifest: Manifest, file: FileFacts, found: list[str]) -> Digest:
    total, seen = Digest(), _SeenEntries()
    try:
        with opened([[local]]) as reader:
            total = digest(_checked(reader.stored(), manifest, file, found, seen))
    except Corrupted as error:
        found.append(f"{_where(file)}: {error}")
        return total
    if (seen.entries, seen.first, seen.last) != (file.entries, file.first_key, file.last_key):
        found.append(
            f"{_where(file)}: {seen.entries:,} entries of keys {[seen.first, seen.last]!r}, not {file.entries:,} as "
            "the manifest has it"
        )
    return total


@dataclass
class _SeenEntries:
    """Entries seen in a file, the empty ones too."""

    entries: int = 0
    first: bytes = b""
    last: bytes = b""


def _checked(
    pairs: Iterator[tuple[bytes, bytes]], manifest: Manifest, file: FileFacts, found: list[str], seen: _SeenEntries
) -> Iterator[tuple[bytes, bytes]]:  # fmt: skip
    """Pass the pairs on, and count them in `seen`. At most 100 problems of one file are listed."""
    room, cut = 100, manifest.parts[file.partition].cut
    for key, raw in pairs:
        wrong = _wrong(key, raw, seen.last, cut, manifest.partitions, file)
        if wrong and room:
            found.append(f"{_where(file)}: key {key[:80]!r}: {wrong}")
            room -= 1
        seen.entries, seen.first, seen.last = seen.entries + 1, seen.first or key, key
        if raw:  # an empty one has been named
            yield key, raw


def _wrong(key: bytes, raw: bytes, last: bytes, cut: int, partitions: int, file: FileFacts) -> str | None:
    try:
        entry = Entry.decode(raw)
    except Corrupted as error:
        return str(error)
    if key <= last:
        return f"out of order, after {last[:80]!r}"
    if entry.kind != VALUE and not file.level:
        return "a tombstone has no place in the base of a snapshot"
    if entry.version >= cut:
        return f"its version {entry.version:,} is not below the cut {cut:,}"
    if (right := partition_of(key, partitions)) != file.partition:
        return f"it belongs to partition {right}"
    return None


def _where(file: FileFacts) -> str:
    return f"{file.path} (partition {file.partition})"
