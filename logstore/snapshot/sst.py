"""SSTables of a snapshot, written and read with RocksDB. Key = row key, value = encoded `Entry`.

A partition's SSTables lie in levels: a base, and deltas upon it, oldest first. RocksDB itself merges them: of a key in
several levels the newest counts (ingested later, it has the higher sequence number), and Bloom filters spare look-ups.
Deltas hold tombstones, which hide what lies below them; a base holds none.

Block-based tables, format_version 5, a Bloom filter of 10 bits over whole keys, a checksum per block. Two files of
equal entries differ in bytes (RocksDB writes a random session id): compare digests, not files.
`docs/snapshot_format.md` draws the layout.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    ReadOptions,
    SstFileWriter,
)
from xxhash import xxh3_128, xxh3_128_intdigest

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import TOMBSTONES, Digest
from logstore.process.durable import flush

CACHE_BYTES = 64 << 20
_DELETED = frozenset(map(int.to_bytes, TOMBSTONES))  # first bytes of their entries
_COMPRESSIONS = {"lz4": DBCompressionType.lz4, "zstd": DBCompressionType.zstd, "none": DBCompressionType.none}
_MASK = (1 << 128) - 1
_PIECE = 1 << 20
_MEMORY, _MEMORY_BYTES = Path("/dev/shm"), 16 << 20  # where Linux keeps files in memory; what has to be free there

Levels = Sequence[Sequence[Path]]  # files of the base, then of each delta, oldest first


class SstFacts(NamedTuple):
    """Facts of a finished file."""

    entries: int
    size_bytes: int
    first_key: bytes
    last_key: bytes
    digest: Digest
    checksum: str  # xxh3-128 of the file, 32 hex digits


class SstWriter:
    """Writer of one SSTable. Not thread-safe."""

    def __init__(self, path: Path, *, compression: str = "lz4", block_bytes: int = 16_384) -> None:
        """`path` must not be there yet; `compression` is lz4, zstd or none; `block_bytes` before compression."""
        self.path = path
        self._writer = SstFileWriter(options=_options(compression=compression, block_bytes=block_bytes))
        self._writer.open(str(path))
        self._first, self._last = b"", b""
        self._sum = self._entries = self._raw_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes put so far, before compression.

        Never less than the file will have but for its index and filter.
        """
        return self._raw_bytes

    def put(self, key: bytes, entry: bytes) -> None:
        """Append one entry. Requires: keys rise strictly; raises Corrupted when they do not."""
        self.put_many(((key, entry),))

    def put_many(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Append a stream of (key, encoded entry). Requires and raises as `put`."""
        last, total, entries, raw = self._last, self._sum, self._entries, self._raw_bytes
        write, hashed = self._writer.__setitem__, xxh3_128_intdigest
        try:
            for key, entry in pairs:
                if key <= last:
                    raise Corrupted(
                        f"{self.path.name}: key {key[:80]!r} does not come after {last[:80]!r}; its source is not in "
                        "key order"
                    )
                write(key, entry)
                if not entries:
                    self._first = key
                last = key
                total += hashed(len(key).to_bytes(4) + key + entry)
                entries += 1
                raw += len(key) + len(entry)
        finally:
            self._last, self._sum, self._entries, self._raw_bytes = last, total & _MASK, entries, raw

    def close(self) -> SstFacts | None:
        """Finish the file and sync it; None, and no file, when nothing was put."""
        if not self._entries:
            self.abort()
            return None
        self._writer.finish()
        flush(self.path)
        digest = Digest(self._sum, self._entries)
        return SstFacts(self._entries, self.path.stat().st_size, self._first, self._last, digest, checksum(self.path))

    def abort(self) -> None:
        """Give up: no file is left."""
        del self._writer
        self.path.unlink(missing_ok=True)


class SstReader:
    """Reader of a directory that `prepare` made.

    Any number of processes may. `get` and `scan` raise Corrupted for what RocksDB refuses.
    """

    def __init__(self, db: Any, directory: Path) -> None:
        """Wrap an opened database; callers use `open`."""
        self._db, self._directory, self._get = db, directory, db.get
        self._reading = ReadOptions()
        self._reading.set_verify_checksums(True)

    @classmethod
    def open(cls, directory: Path, *, cache_bytes: int = CACHE_BYTES) -> "SstReader":
        """Open a folder of SSTables read-only.

        Raises Corrupted when a file is missing or broken. `cache_bytes` of uncompressed blocks are kept.
        """
        options = _options(cache_bytes=cache_bytes)
        try:
            # without column_families RocksDB keeps the block cache of its own defaults (8 MB)
            db = Rdict(
                str(directory),
                options,
                {"default": options},
                access_type=AccessType.read_only(error_if_log_file_exist=False),
            )
        except Exception as error:  # rocksdict raises bare Exception
            raise Corrupted(
                f"the SSTables in {directory} cannot be opened: {error}; `logstore snapshot verify` looks further"
            ) from error
        return cls(db, directory)

    def get(self, key: bytes) -> bytes | None:
        """The encoded entry, or None: there is none, or it was deleted."""
        try:
            entry: bytes | None = self._get(key)
        except Exception as error:  # rocksdict raises bare Exception
            raise self._broken(f"near key {key[:80]!r}", error) from error
        return None if entry is None or entry[:1] in _DELETED else entry

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Encoded entries, as `get` finds each; keys that lie together are found sooner at once."""
        try:
            found: list[bytes | None] = self._get(keys)
        except Exception as error:  # rocksdict raises bare Exception
            raise self._broken(f"near key {keys[0][:80]!r}", error) from error
        return [None if entry is None or entry[:1] in _DELETED else entry for entry in found]

    def scan(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Live pairs with start <= key < end in key order, or backwards. Close the iterator before `close`."""
        for pair in self.stored(start, end, reverse=reverse):
            if pair[1][:1] not in _DELETED:
                yield pair

    def stored(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of a range, tombstones included: of every key its newest entry. As `scan` otherwise."""
        at = start
        items = self._backwards(start, end) if reverse else self._forwards(start, end)
        try:
            for pair in items:
                at = pair[0]
                yield pair
        except Corrupted:
            raise
        except Exception as error:  # rocksdict raises bare Exception
            raise self._broken(f"after key {at[:80]!r}", error) from error

    def close(self) -> None:
        """Let the files go."""
        self._get = _closed
        self._db.close()

    def _forwards(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.iter(self._reading)
        cursor.seek(start) if start else cursor.seek_to_first()
        while cursor.valid() and (end is None or cursor.key() < end):
            yield cursor.key(), cursor.value()
            cursor.next()
        cursor.status()

    def _backwards(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.iter(self._reading)
        if end is None:
            cursor.seek_to_last()
        else:
            cursor.seek_for_prev(end)
            if cursor.valid() and cursor.key() >= end:
                cursor.prev()
        while cursor.valid() and cursor.key() >= start:
            yield cursor.key(), cursor.value()
            cursor.prev()
        cursor.status()

    def _broken(self, where: str, error: Exception) -> Corrupted:
        return Corrupted(
            f"the SSTables in {self._directory} are damaged {where}: {error}; `logstore snapshot verify` looks further"
        )


def prepare(directory: Path, levels: Levels) -> None:
    """Make a RocksDB directory over levels of SSTables (hard links, else copies): whole or not at all.

    Requires: key ranges within a level do not overlap. Raises Corrupted when RocksDB refuses a file.
    """
    part = directory.with_name(f"{directory.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _ingested(part, levels, _link).close()
        for child in part.iterdir():
            flush(child)
        flush(part)
        part.rename(directory)
        flush(directory.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def opened(levels: Levels, cache_bytes: int = CACHE_BYTES, *, several: bool = False) -> Iterator[SstReader]:
    """A reader over bare files, in a throwaway directory.

    `several`: files are of several partitions, so that those of a level overlap, and no key is in two partitions.

    That is in memory where this machine has a folder for it: RocksDB syncs what it writes there a dozen times, which on
    a disk takes longer than to read a small partition. Else it is beside the first of the files.
    """
    first = next((file for level in levels for file in level), None)
    memory = in_memory()
    with tempfile.TemporaryDirectory(prefix="sst-", dir=memory or (first.parent if first else None)) as scratch:
        directory = Path(scratch, "db")
        directory.mkdir()
        link = _symlink if memory else _link
        reader = SstReader(_ingested(directory, levels, link, cache_bytes=cache_bytes, several=several), directory)
        try:
            yield reader
        finally:
            reader.close()


def in_memory(size_bytes: int = _MEMORY_BYTES) -> Path | None:
    """The folder in memory, where it is there and has so much room, by default for what RocksDB notes of files."""
    try:
        roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= size_bytes
    except OSError:
        return None
    return _MEMORY if roomy else None


def checksum(path: Path) -> str:
    """The xxh3-128 of a file, 32 hex digits."""
    state = xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            state.update(piece)
    return state.hexdigest()


def _ingested(
    directory: Path,
    levels: Levels,
    link: Callable[[Path, Path], str],
    *,
    cache_bytes: int | None = None,
    several: bool = False,
) -> Any:
    """A database in an empty folder that has taken the files in, and is open."""
    incoming = directory / "incoming"
    incoming.mkdir()
    options = _options(cache_bytes=cache_bytes)
    options.create_if_missing(True)
    options.set_write_buffer_size(_PIECE)  # nothing is written, and room for a log of this size would be taken
    db = None
    try:
        db = Rdict(str(directory), options, {"default": options})
        for level, files in enumerate(levels):
            links = [link(file, incoming / f"{level}-{number:05d}.sst") for number, file in enumerate(files)]
            if links:
                db.ingest_external_file(links, _moving(over=level > 0 or several))
        incoming.rmdir()
    except Exception as error:  # rocksdict raises bare Exception
        if db is not None:
            db.close()
        names = ", ".join(file.name for level in levels for file in level[:5])
        raise Corrupted(f"RocksDB refuses {names}: {error}") from error
    return db


def _moving(*, over: bool) -> IngestExternalFileOptions:
    """Options of an ingestion by links; files that overlap what is there are refused unless they come `over` it."""
    moving = IngestExternalFileOptions()
    moving.set_move_files(True)
    moving.set_allow_global_seqno(over)
    return moving


def _link(file: Path, link: Path) -> str:
    try:
        os.link(file, link, follow_symlinks=False)  # a symbolic link is for who reads it here, on any filesystem
    except OSError:
        with suppress(FileNotFoundError):
            link.unlink()
        shutil.copyfile(file, link)
    return str(link)


def _symlink(file: Path, link: Path) -> str:
    link.symlink_to(file.absolute())
    return str(link)


def _options(*, compression: str = "lz4", block_bytes: int = 16_384, cache_bytes: int | None = None) -> Options:
    table = BlockBasedOptions()
    table.set_format_version(5)
    table.set_bloom_filter(10, False)
    table.set_block_size(block_bytes)
    if cache_bytes is not None:
        table.set_block_cache(Cache(cache_bytes))
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(_COMPRESSIONS[compression]())
    options.set_disable_auto_compactions(True)
    return options


def _closed(_key: bytes | list[bytes]) -> bytes | None:
    raise ValueError("the reader is closed")
