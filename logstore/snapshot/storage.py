"""Storage: the place of archive and snapshots, an fsspec URL.

`create` is exclusive, and a file is there whole or not at all.

file://   written beside its place, synced, then linked to it (link(2) fails when the name is taken); then the folder is
          synced
others    one conditional put (`pipe_file(mode="create")`)
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import fsspec  # type: ignore[import-untyped]  # untyped library

from logstore.model.errors import LogStoreError, StorageUnreachable
from logstore.model.safe_path import below, relative
from logstore.model.storage_url import check_storage_url
from logstore.process.durable import flush

_PIECE = 1 << 20
_ABANDONED_S = 3_600
_MOST_AT_ONCE = 16


_T = TypeVar("_T")
_R = TypeVar("_R")


def storage_url(flag: str | None, definitions_storage: str | None, data_dir: Path) -> str:
    """The flag (or LOGSTORE_STORAGE), else what the definitions say, else a folder below `data_dir`.

    Raises UsageError for no URL.
    """
    return check_storage_url(flag or definitions_storage or f"file://{data_dir.absolute()}/storage", _schemes())


def _schemes() -> tuple[str, ...]:
    from logstore import settings  # noqa: PLC0415 - executors, which only unpickle a storage, have none

    return settings.load().storage_schemes


class Storage:
    """Files below a URL.

    Paths are relative to it and joined by "/"; one that leads upwards is Corrupted. Raises StorageUnreachable for
    trouble; can be pickled.
    """

    def __init__(self, url: str) -> None:
        """`url`: file:///directory, s3://bucket/prefix. Raises UsageError for one of another kind."""
        self.url = check_storage_url(url, _schemes()).rstrip("/")
        self._connect()

    def _connect(self) -> None:
        with self._translating(""):
            self._fs: Any
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        self._disk = Path(self._root) if self.url.startswith("file:") else None

    def __getstate__(self) -> str:
        """The URL, which has been checked here; connections are made anew on the other side."""
        return self.url

    def __setstate__(self, url: str) -> None:
        self.url = url
        self._connect()

    def read(self, path: str) -> bytes:
        """A file's bytes; raises FileNotFoundError."""
        with self._translating(path):
            return bytes(self._fs.cat_file(self._full(path)))

    def looks(self, ask: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """Answers to small questions, in order: many at once, but on a disk, which answers sooner than a thread begins.

        Raises what a question raised.
        """
        return _at_once(ask, items) if self.local("_") is None else [ask(item) for item in items]

    def list(self, path: str) -> list[str]:
        """The names in a folder, in order; none when it is absent."""
        with self._translating(path):
            try:
                children = self._fs.ls(self._full(path), detail=False)
            except FileNotFoundError:
                return []
            names = {child.rstrip("/").rsplit("/", 1)[-1] for child in children}
            return sorted(name for name in names if not name.startswith("."))

    def tree(self, path: str) -> dict[str, int]:
        """The files below a folder, however deep, by their path in it, and their bytes; none when it is absent."""
        with self._translating(path):
            if self._disk is not None:
                found = dict(_walked(below(self._disk, *path.split("/")), ""))
            else:
                root = self._full(path)
                try:
                    files = self._fs.find(root, detail=True)
                except FileNotFoundError:
                    return {}
                found = {name.split(root, 1)[-1].strip("/"): int(info["size"]) for name, info in files.items()}
            return {name: size for name, size in found.items() if not f"/{name}".count("/.")}

    def size(self, path: str) -> int:
        """A file's bytes; raises FileNotFoundError."""
        with self._translating(path):
            return int(self._fs.info(self._full(path))["size"])

    def age_s(self, path: str) -> float:
        """Seconds since a file was last written, by the clocks of this machine and of the storage.

        Raises FileNotFoundError.
        """
        with self._translating(path):
            return time.time() - float(self._fs.modified(self._full(path)).timestamp())

    def create(self, path: str, data: bytes) -> None:
        """Write a file that is not there; raises FileExistsError. Of many at once exactly one succeeds."""
        with self._translating(path):
            if self._disk is None:
                self._fs.pipe_file(self._full(path), data, mode="create")
                return
            with self._beside(path) as (part, target):
                part.write_bytes(data)
                flush(part)
                os.link(part, target)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, over the one that may be there."""
        with self._translating(path):
            if self._disk is None:
                self._fs.pipe_file(self._full(path), data)
                return
            with self._beside(path) as (part, target):
                part.write_bytes(data)
                flush(part)
                part.replace(target)

    def upload(self, local: Path, path: str) -> None:
        """Copy a local file here."""
        with self._translating(path):
            if self._disk is None:
                self._fs.put_file(str(local), self._full(path))
                return
            self._place(local, path)
            flush(below(self._disk, *path.split("/")).parent)

    def upload_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """Copy local files here, many at once: a disk has one sync for several of them, and one for each folder."""
        if self._disk is None:
            _at_once(lambda one: self.upload(*one), files)
        elif files:
            folders = {below(self._disk, *path.split("/")).parent for _, path in files}
            with self._translating(files[0][1]), ThreadPoolExecutor(min(_MOST_AT_ONCE, len(files)), "storage") as pool:
                list(pool.map(self._place, *zip(*files, strict=True)))
                list(pool.map(flush, sorted(folders)))

    def download(
        self, path: str, local: Path, *, bytes_per_s: int | None = None, on_bytes: Callable[[int], None] | None = None
    ) -> None:  # fmt: skip
        """Copy a file to `local`, going on where an earlier try stopped.

        `on_bytes` hears of every piece. Raises FileNotFoundError.
        """
        part = local.with_name(local.name + ".part")
        size = self.size(path)
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._translating(path), self._fs.open(self._full(path), "rb") as source, part.open("ab") as target:
            source.seek(target.tell())
            _copy(source, target, bytes_per_s, on_bytes or (lambda _: None))
            if target.tell() != size:
                raise StorageUnreachable(
                    f"{self.url}/{path} ended after {target.tell():,} of {size:,} bytes; try again"
                )
        flush(part)
        part.replace(local)
        flush(local.parent)

    def fetch(
        self, path: str, local: Path, *, bytes_per_s: int | None = None, on_bytes: Callable[[int], None] | None = None
    ) -> None:  # fmt: skip
        """Download a file, by a hard link where the storage is a disk on the same filesystem."""
        here = self.local(path)
        if here is not None:
            local.parent.mkdir(parents=True, exist_ok=True)
            local.unlink(missing_ok=True)
            try:
                os.link(here, local)
            except FileNotFoundError:
                raise
            except OSError:  # another filesystem, or one without links
                self.download(path, local, bytes_per_s=bytes_per_s, on_bytes=on_bytes)
                return
            if on_bytes is not None:
                on_bytes(local.stat().st_size)
            return
        self.download(path, local, bytes_per_s=bytes_per_s, on_bytes=on_bytes)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens when it is absent."""
        with self._translating(path):
            try:
                self._fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove files; nothing happens to those that are absent. An object store is asked once for many."""
        if not paths:
            return
        with self._translating(paths[0]):
            if self._disk is None:
                with suppress(FileNotFoundError):  # a store that minds: then one by one
                    self._fs.rm([self._full(path) for path in paths])
                    return
            for path in paths:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._full(path))

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all in it; nothing happens when it is absent."""
        with self._translating(path):
            try:
                self._fs.rm(self._full(path), recursive=True)
            except FileNotFoundError:
                return

    def tidy(self, path: str) -> None:
        """Remove what killed writers left half-written an hour ago or longer, and the folder once it is empty."""
        if self._disk is None:
            return
        with self._translating(path):
            folder = below(self._disk, *path.split("/"))
            for part in folder.glob(".*.part"):
                with suppress(FileNotFoundError):
                    if part.stat().st_mtime < time.time() - _ABANDONED_S:
                        part.unlink()
            with suppress(OSError):  # not empty, or not there
                folder.rmdir()

    def local(self, path: str) -> Path | None:
        """Path of the file on this machine's disk; None when the storage is no disk."""
        return None if self._disk is None else below(self._disk, *path.split("/"))

    def _full(self, path: str) -> str:
        return f"{self._root}/{relative(path)}" if path else str(self._root)

    def _place(self, local: Path, path: str) -> None:
        """Copy a file to its place on a disk; its folder is to be synced yet."""
        with self._beside(path, sync=False) as (part, target):
            shutil.copyfile(local, part)
            flush(part)
            part.replace(target)

    @contextmanager
    def _beside(self, path: str, *, sync: bool = True) -> Iterator[tuple[Path, Path]]:
        assert self._disk is not None, "only on a disk"
        target = below(self._disk, *path.split("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            yield part, target
        finally:
            part.unlink(missing_ok=True)
        if sync:
            flush(target.parent)

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError, LogStoreError):
            raise
        except Exception as error:  # every fsspec driver has its own
            raise StorageUnreachable(
                f"the storage {self.url}/{path} does not answer: {error}; check --storage, its credentials and its "
                "space, then try again"
            ) from error


def _at_once(ask: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Answers, in order: many small questions take as long as the slowest of every sixteen."""
    if len(items) < 2:
        return [ask(item) for item in items]
    with ThreadPoolExecutor(min(_MOST_AT_ONCE, len(items)), "storage") as pool:
        return list(pool.map(ask, items))


def _walked(folder: Path, before: str) -> Iterator[tuple[str, int]]:
    """Files of a folder on a disk; what goes meanwhile was not there."""
    with suppress(FileNotFoundError), os.scandir(folder) as children:
        for child in children:
            if child.is_dir(follow_symlinks=False):
                yield from _walked(Path(child.path), f"{before}{child.name}/")
            else:
                with suppress(FileNotFoundError):
                    yield f"{before}{child.name}", child.stat().st_size


def _copy(source: Any, target: Any, bytes_per_s: int | None, on_bytes: Callable[[int], None]) -> None:
    begun_s, copied = time.monotonic(), 0
    while piece := source.read(_PIECE):
        target.write(piece)
        copied += len(piece)
        on_bytes(len(piece))
        if bytes_per_s:
            time.sleep(max(0.0, copied / bytes_per_s - (time.monotonic() - begun_s)))
