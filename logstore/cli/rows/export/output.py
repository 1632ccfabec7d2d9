"""Output: where exported bytes go. A file appears whole or not at all; stdout is what it is."""

import contextlib
import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from logstore.model.errors import LogStoreError, UsageError


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[IO[bytes]]:
    """A file to write to, compressed where its name says so (.gz, .zst); None is stdout. Raises UsageError."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file() and not path.is_dir():  # a pipe, /dev/null
        with _opened(path, path) as out:
            yield out
    else:
        with _whole(path.resolve()) as out, _compressed(out, path.suffix.lower()) as inner:
            yield inner


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file beside it, which takes its name at the end, or goes."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _opened(fresh, path) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
    except OSError as error:
        raise LogStoreError(f"cannot write {path}: {error.strerror or error}; the file was not made") from error
    finally:
        fresh.unlink(missing_ok=True)


def _opened(place: Path, path: Path) -> IO[bytes]:
    try:
        return place.open("wb")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def _compressed(out: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6) as inner:
            yield inner  # type: ignore[misc]  # a file all the same
    elif suffix == ".zst":
        import pyarrow as pa  # noqa: PLC0415 - heavy, and for such a file only

        with pa.CompressedOutputStream(pa.PythonFile(os.fdopen(os.dup(out.fileno()), "wb")), "zstd") as inner:
            yield inner  # it closes what it writes to
    else:
        yield out
