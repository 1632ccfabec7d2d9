"""Levels of a partition's SSTables: a base, and deltas upon it, each of the rows that one compaction changed.

    newest mutation of every key ─> a delta; merged with all that is below it once the deltas are too large a share of
                                    the base, or with the deltas alone where it would be one level too many

So a compaction writes about what has changed: the minor and the major compaction of Bigtable (Chang et al. 2006).
What a delta deletes stays in it as a tombstone, and goes with the base.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest
from logstore.snapshot.manifest import FileFacts, levels_of

AT_MOST = 4  # levels: each is one more place where a row may lie

Merging = Literal["nothing", "deltas", "all"]


class Shares(NamedTuple):
    """Bytes of a partition's base, and of the deltas upon it."""

    base: int
    deltas: int


def shares_of(files: Iterable[FileFacts]) -> Shares:
    """Shares of one partition's files."""
    shares = [0, 0]
    for file in files:
        shares[file.level > 0] += file.size_bytes
    return Shares(*shares)


def merging(files: list[FileFacts], delta_bytes: int, merge_share: float) -> Merging:
    """Levels that are merged when a delta of so many bytes is laid upon these files of a partition."""
    shares = shares_of(files)
    if shares.deltas + delta_bytes > merge_share * shares.base:
        return "all"
    return "deltas" if len(levels_of(files)) >= AT_MOST else "nothing"


def check_merged(partition: int, found: Digest, claimed: Digest, table: str) -> None:
    """Requires that levels merged to what the differences led to. Raises Corrupted."""
    if found != claimed:
        raise Corrupted(
            f"partition {partition}: its levels merge to {found.hex} of {found.entries:,} entries, and the difference "
            f"to the snapshot before makes it {claimed.hex} of {claimed.entries:,}; `logstore batch rebuild {table}` "
            "makes a snapshot from the archive instead"
        )
