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
from logstore.snapshot.sst import checksum, opened
from logstore.snapshot.storage import Storage

_LISTED = 100  # problems of one file


def problems(storage: Storage, root: str, manifest: Manifest, on_bytes: Callable[[int], None]) -> list[str]:
    """Problems of a snapshot, all of them. Raises StorageUnreachable."""
    return [
        problem
        for partition in sorted(manifest.parts)
        for problem in _PartitionCheck(storage, root, manifest, partition).run(on_bytes)
    ]


class _PartitionCheck:
    """A partition that is read back, and what was found of it."""

    def __init__(self, storage: Storage, root: str, manifest: Manifest, partition: int) -> None:
        self._storage, self._root, self._manifest = storage, root, manifest
        self._partition, self._facts = partition, manifest.parts[partition]
        self._levels = levels_of(manifest.files_of(partition))
        self._found: list[str] = []

    def run(self, on_bytes: Callable[[int], None]) -> list[str]:
        """Look at its files one by one; they stay here only where deltas lie upon them."""
        total, here = Digest(), list[list[Path]]()
        with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
            for level in self._levels:
                self._check_order(level)
                here.append([])
                for file in level:
                    local = below(Path(scratch), f"{file.level}-{len(here[-1]):05d}.sst")
                    total = total.plus(self._file(file, local, on_bytes))
                    if len(self._levels) == 1:
                        local.unlink(missing_ok=True)
                    elif local.exists():
                        here[-1].append(local)
            self._compare(total if len(self._levels) < 2 else self._merged(here))
        return self._found

    def _check_order(self, level: list[FileFacts]) -> None:
        last = b""
        for file in level:
            if file.first_key <= last:
                self._say(file, f"key {file.first_key[:80]!r} does not come after {last[:80]!r} of the file before")
            last = file.last_key

    def _file(self, file: FileFacts, local: Path, on_bytes: Callable[[int], None]) -> Digest:
        try:
            self._storage.download(f"{self._root}/{file.path}", local, on_bytes=on_bytes)
        except FileNotFoundError:
            self._say(file, "the file is missing")
            return Digest()
        if (size := local.stat().st_size) != file.size_bytes:
            self._say(file, f"{size:,} bytes, the manifest has {file.size_bytes:,}")
        if checksum(local) != file.checksum:
            self._say(file, "its bytes are not those of the manifest (checksum)")
        return self._entries(file, local)

    def _entries(self, file: FileFacts, local: Path) -> Digest:
        total, seen = Digest(), _SeenEntries()
        try:
            with opened([[local]]) as reader:
                total = digest(self._checked(file, reader.stored(), seen))
        except Corrupted as error:
            self._say(file, str(error))
            return total
        if (seen.entries, seen.first, seen.last) != (file.entries, file.first_key, file.last_key):
            self._say(
                file,
                f"{seen.entries:,} entries of keys {[seen.first, seen.last]!r}, not {file.entries:,} as the manifest "
                "has it",
            )
        return total

    def _checked(
        self, file: FileFacts, pairs: Iterator[tuple[bytes, bytes]], seen: "_SeenEntries"
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pass the pairs on, and count them in `seen`."""
        room = _LISTED
        for key, raw in pairs:
            wrong = self._wrong(file, key, raw, seen.last)
            if wrong and room:
                self._say(file, f"key {key[:80]!r}: {wrong}")
                room -= 1
            seen.entries, seen.first, seen.last = seen.entries + 1, seen.first or key, key
            if raw:  # an empty one has been named
                yield key, raw

    def _wrong(self, file: FileFacts, key: bytes, raw: bytes, last: bytes) -> str | None:
        try:
            entry = Entry.decode(raw)
        except Corrupted as error:
            return str(error)
        if key <= last:
            return f"out of order, after {last[:80]!r}"
        if entry.kind != VALUE and not file.level:
            return "a tombstone has no place in the base of a snapshot"
        if entry.version >= self._facts.cut:
            return f"its version {entry.version:,} is not below the cut {self._facts.cut:,}"
        if (right := partition_of(key, self._manifest.partitions)) != file.partition:
            return f"it belongs to partition {right}"
        return None

    def _merged(self, here: list[list[Path]]) -> Digest:
        """The digest of all levels together; of none where they cannot be opened."""
        try:
            with opened(here) as reader:
                return digest(reader.scan())
        except Corrupted as error:
            self._found.append(str(error))
            return Digest()

    def _compare(self, total: Digest) -> None:
        if (total.hex, total.entries) != (self._facts.digest, self._facts.entries):
            self._found.append(
                f"partition {self._partition}: {total.hex} of {total.entries:,} entries, the manifest has "
                f"{self._facts.digest} of {self._facts.entries:,}"
            )

    def _say(self, file: FileFacts, problem: str) -> None:
        self._found.append(f"{file.path} (partition {file.partition}): {problem}")


@dataclass
class _SeenEntries:
    """Entries seen in a file, the empty ones too."""

    entries: int = 0
    first: bytes = b""
    last: bytes = b""
