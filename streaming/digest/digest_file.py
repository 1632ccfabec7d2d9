"""Digest file: digests of a partition at its newest cuts, beside its generations, where a restart finds them."""

from pathlib import Path
from typing import NamedTuple

import orjson

from logstore.model.safe_path import below
from logstore.process.durable import write_whole
from logstore.view import paths
from logstore.view.feed.adoption_records import DigestRecord

AT_MOST = 8


class FiledDigest(NamedTuple):
    """The digest of a partition at one cut: 32 hex digits, and how many live entries.

    `root`: what the fold began with ("": offset 0, else a snapshot), `how`: pin or refold.
    """

    cut: int
    digest: str
    entries: int
    root: str
    how: str

    def record(self) -> DigestRecord:
        """The digest as readers are told of it."""
        return DigestRecord(self.cut, self.digest, self.entries)


def path_in(directory: Path) -> Path:
    """Path of a partition's digest file. `directory`: `paths.partition_dir`."""
    return below(directory, paths.DIGESTS)


def load(directory: Path) -> list[FiledDigest]:
    """The newest digests, newest last.

    None can be trusted in a file that cannot be read: it is as if there were none.
    """
    try:
        return [FiledDigest(*found) for found in orjson.loads(path_in(directory).read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def add(directory: Path, found: FiledDigest) -> list[FiledDigest]:
    """Keep one more digest, atomically; returns the newest. Raises OSError when the disk is full."""
    newest = sorted([*(known for known in load(directory) if known.cut != found.cut), found])[-AT_MOST:]
    write_whole(path_in(directory), orjson.dumps([list(one) for one in newest]))
    return newest
