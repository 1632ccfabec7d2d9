"""Digest file: digests of a partition at its newest cuts, beside its generations, where a restart finds them."""

from pathlib import Path

import orjson

from logstore.view.feed_records import DigestRecord
from logstore.view.paths import write_whole

KEPT = 8


def path_in(directory: Path) -> Path:
    """Path of a partition's digest file. `directory`: `paths.partition_dir`."""
    return directory / "digests.json"


def load(directory: Path) -> list[DigestRecord]:
    """The newest digests, newest last.

    None can be trusted in a file that cannot be read: it is as if there were none.
    """
    try:
        return [DigestRecord(*found) for found in orjson.loads(path_in(directory).read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def add(directory: Path, found: DigestRecord) -> list[DigestRecord]:
    """Keep one more, atomically; returns the newest. Raises OSError when the disk is full."""
    kept = sorted([*(known for known in load(directory) if known.cut != found.cut), found])[-KEPT:]
    write_whole(path_in(directory), orjson.dumps([list(one) for one in kept]))
    return kept
