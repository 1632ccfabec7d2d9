"""Verify: read a snapshot back through RocksDB, with checksums, and compare it with its manifest."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.partitioner import partition_of
from logstore.snapshot.manifest import FileFacts, Manifest
from logstore.snapshot.sst import checksum, opened
from logstore.snapshot.storage import Storage


def problems(storage: Storage, root: str, manifest: Manifest, on_bytes: Callable[[int], None]) -> list[str]:
    """Problems of a snapshot, all of them. Raises StorageUnreachable."""
    found: list[str] = []
    for partition, part in sorted(manifest.parts.items()):
        total, last = Digest(), b""
        for file in manifest.files_of(partition):
            if file.first_key <= last:
                found.append(
                    f"{_where(file)}: key {file.first_key[:80]!r} does not come after {last[:80]!r} of the file before"
                )
            last = file.last_key
            total = total.plus(_file(storage, root, manifest, file, on_bytes, found))
        if (total.hex, total.entries) != (part.digest, part.entries):
            found.append(
                f"partition {partition}: {total.hex} of {total.entries:,} entries, the manifest has {part.digest} of "
                f"{part.entries:,}"
            )
    return found


def _file(
    storage: Storage, root: str, manifest: Manifest, file: FileFacts, on_bytes: Callable[[int], None], found: list[str]
) -> Digest:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        local = Path(scratch) / "file.sst"
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
    total, keys = Digest(), list[bytes]()
    try:
        with opened([local]) as reader:
            total = digest(_checked(reader.scan(), manifest, file, found, keys))
    except Corrupted as error:
        found.append(f"{_where(file)}: {error}")
        return total
    if total.entries != file.entries or keys != [file.first_key, file.last_key]:
        found.append(
            f"{_where(file)}: {total.entries:,} entries of keys {keys!r}, not {file.entries:,} as the manifest has it"
        )
    return total


def _checked(
    pairs: Iterator[tuple[bytes, bytes]], manifest: Manifest, file: FileFacts, found: list[str], keys: list[bytes]
) -> Iterator[tuple[bytes, bytes]]:  # fmt: skip
    """Pass the pairs on; `keys` becomes the first and the last key. At most 100 problems of one file are listed."""
    first, last, room = b"", b"", 100
    cut = manifest.parts[file.partition].cut
    for key, raw in pairs:
        wrong = _wrong(key, raw, last, cut, manifest.partitions, file.partition)
        if wrong and room:
            found.append(f"{_where(file)}: key {key[:80]!r}: {wrong}")
            room -= 1
        first, last = first or key, key
        if raw:  # an empty one has been named
            yield key, raw
    keys[:] = [first, last]


def _wrong(key: bytes, raw: bytes, last: bytes, cut: int, partitions: int, partition: int) -> str | None:
    try:
        entry = Entry.decode(raw)
    except Corrupted as error:
        return str(error)
    if key <= last:
        return f"out of order, after {last[:80]!r}"
    if entry.kind != VALUE:
        return "a tombstone has no place in a snapshot"
    if entry.version >= cut:
        return f"its version {entry.version:,} is not below the cut {cut:,}"
    if (right := partition_of(key, partitions)) != partition:
        return f"it belongs to partition {right}"
    return None


def _where(file: FileFacts) -> str:
    return f"{file.path} (partition {file.partition})"
