"""Verify: read a snapshot back through RocksDB, with checksums, and compare it with its manifest."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import TOMBSTONE, Entry
from logstore.model.hard_rows.decisions import decisions_digest
from logstore.model.safe_path import below
from logstore.snapshot import decisions
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
        self._levels, self._decisions = levels_of(manifest.files_of(partition)), manifest.decisions_of(partition)
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
            rows = total if len(self._levels) < 2 else self._merged(here)
            if self._decisions is not None or self._facts.decisions:
                rows = self._with_decisions(rows, below(Path(scratch), "decisions.sst"), on_bytes)
            self._compare(rows)
        return self._found

    def _with_decisions(self, rows: Digest, local: Path, on_bytes: Callable[[int], None]) -> Digest:
        """The digest with outcomes and ids; the rows' own is looked at here, for the next delta is reckoned from it."""
        if rows != self._facts.rows:
            self._found.append(
                f"partition {self._partition}: {rows.hex} of its rows alone, the manifest has {self._facts.rows.hex}"
            )
        decided = Digest()
        if self._decisions is not None and self._fetched(self._decisions, local, on_bytes):
            decided = self._decided(self._decisions, local)
        if decided.entries != self._facts.decisions:
            self._found.append(
                f"partition {self._partition}: {decided.entries:,} outcomes and ids, the manifest has "
                f"{self._facts.decisions:,}"
            )
        return rows.plus(Digest(decided.value))

    def _decided(self, file: FileFacts, local: Path) -> Digest:
        seen = _SeenEntries()
        try:
            with decisions.stored(local) as items:
                total = decisions_digest(seen.passing(items))
        except Corrupted as error:
            self._say(file, str(error))
            return Digest()
        self._compare_seen(file, seen)
        return total

    def _check_order(self, level: list[FileFacts]) -> None:
        last = b""
        for file in level:
            if file.first_key <= last:
                self._say(file, f"key {file.first_key[:80]!r} does not come after {last[:80]!r} of the file before")
            last = file.last_key

    def _file(self, file: FileFacts, local: Path, on_bytes: Callable[[int], None]) -> Digest:
        return self._entries(file, local) if self._fetched(file, local, on_bytes) else Digest()

    def _fetched(self, file: FileFacts, local: Path, on_bytes: Callable[[int], None]) -> bool:
        """Fetch a file and compare it with the manifest; False where it is missing."""
        try:
            self._storage.download(f"{self._root}/{file.path}", local, on_bytes=on_bytes)
        except FileNotFoundError:
            self._say(file, "the file is missing")
            return False
        if (size := local.stat().st_size) != file.size_bytes:
            self._say(file, f"{size:,} bytes, the manifest has {file.size_bytes:,}")
        if checksum(local) != file.checksum:
            self._say(file, "its bytes are not those of the manifest (checksum)")
        return True

    def _entries(self, file: FileFacts, local: Path) -> Digest:
        total, seen = Digest(), _SeenEntries()
        try:
            with opened([[local]]) as reader:
                total = digest(self._checked(file, reader.stored(), seen))
        except Corrupted as error:
            self._say(file, str(error))
            return total
        self._compare_seen(file, seen)
        return total

    def _compare_seen(self, file: FileFacts, seen: "_SeenEntries") -> None:
        if (seen.entries, seen.first, seen.last) != (file.entries, file.first_key, file.last_key):
            self._say(
                file,
                f"{seen.entries:,} entries of keys {[seen.first, seen.last]!r}, not {file.entries:,} as the manifest "
                "has it",
            )

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
            seen.saw(key)
            if raw:  # an empty one has been named
                yield key, raw

    def _wrong(self, file: FileFacts, key: bytes, raw: bytes, last: bytes) -> str | None:
        try:
            entry = Entry.decode(raw)
        except Corrupted as error:
            return str(error)
        if key <= last:
            return f"out of order, after {last[:80]!r}"
        if entry.kind == TOMBSTONE and not file.level:
            return "a tombstone has no place in the base of a snapshot"
        if entry.version >= self._facts.cut:
            return f"its version {entry.version:,} is not below the cut {self._facts.cut:,}"
        if (right := self._manifest.partitioning.of(key)) != file.partition:
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

    def saw(self, key: bytes) -> None:
        """Count an entry."""
        self.entries, self.first, self.last = self.entries + 1, self.first or key, key

    def passing(self, pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """The pairs, each one counted; raises Corrupted where their keys do not rise."""
        for key, value in pairs:
            if key <= self.last:
                raise Corrupted(f"the key {key.hex()} does not come after {self.last.hex()}")
            self.saw(key)
            yield key, value
