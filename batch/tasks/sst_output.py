"""SST output: sorted entries become files of some 256 MiB, through a local folder, under names of this very attempt."""

import secrets
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batch.tasks.sst_files import SstTarget
from logstore.model.folding.digest import Digest
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.manifest import FileFacts

TABLE_BYTES = 256 << 20  # an SSTable is closed at this size: small enough to fetch again, large enough to be few


class MadeFile(NamedTuple):
    """SSTable that is written, and not uploaded yet."""

    path: Path
    facts: sst.SstFacts


class SstOutput(NamedTuple):
    """Output of one partition: SSTables written as the table wants them, through the folder `scratch`."""

    table: Table
    partition: int
    where: SstTarget
    scratch: Path

    def base(self, entries: Iterable[tuple[bytes, bytes]]) -> tuple[list[FileFacts], Digest]:
        """Write a base and upload it, a file at a time. Requires: entries in key order, none a tombstone."""
        files, total = list[FileFacts](), Digest()
        for one in self._made(entries):
            files += self.uploaded([one], 0)
            total = total.plus(one.facts.digest)
        return files, total

    def written(self, entries: Iterable[tuple[bytes, bytes]]) -> list[MadeFile]:
        """Write files, and leave them here. Requires: entries in key order."""
        return list(self._made(entries))

    def uploaded(self, made: Iterable[MadeFile], level: int) -> list[FileFacts]:
        """Move files to the storage, as those of a level."""
        files = list[FileFacts]()
        for one in made:
            file = self.named(one, level)
            self.where.storage.upload(one.path, f"{self.where.root}/{file.path}")
            one.path.unlink()
            files.append(file)
        return files

    def named(self, made: MadeFile, level: int) -> FileFacts:
        """Facts of a file in the storage, to which it is moved, as one of a level."""
        path, facts = f"{self.where.name}/p{self.partition:05d}-{made.path.stem}.sst", made.facts
        return FileFacts(
            self.partition, path, facts.entries, facts.size_bytes, facts.first_key, facts.last_key, facts.checksum,
            level,
        )  # fmt: skip

    def begun(self) -> tuple[sst.SstWriter, Path]:
        """A file that is written piece by piece, and the place where it is then."""
        local = below(self.scratch, f"00000-{secrets.token_hex(4)}.sst")
        return self._writer(local), local

    def _writer(self, local: Path) -> sst.SstWriter:
        return sst.SstWriter(local, compression=self.table.compression, block_bytes=self.table.block_bytes)

    def _made(self, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[MadeFile]:
        attempt, source, number, more = secrets.token_hex(4), iter(entries), 0, True
        at_once = max(1, min(1_024, TABLE_BYTES // self.table.max_value_bytes))
        while more:
            local = below(self.scratch, f"{number:05d}-{attempt}.sst")
            writer = self._writer(local)
            more = _fill(writer, source, at_once)
            facts = writer.close()
            if facts is not None:
                yield MadeFile(local, facts)
            number += 1


def _fill(writer: sst.SstWriter, source: Iterator[tuple[bytes, bytes]], at_once: int) -> bool:
    """Put entries until the table is full, looking after so many; False when there are no more."""
    while (before := writer.size_bytes) < TABLE_BYTES:
        writer.put_many(islice(source, at_once))
        if writer.size_bytes == before:
            return False
    return True
