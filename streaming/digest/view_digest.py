"""View digest: the digest of a partition at a cut, from a reading of its view that was begun exactly there."""

from logstore.model.folding.difference import StateBelow, digest_upon
from logstore.model.folding.digest import Digest, digest
from logstore.snapshot.sst import SstReader
from logstore.view.layout import Base
from logstore.view.reader import Reading


def digest_of(reading: Reading, base: Base | None, base_reader: SstReader | None) -> Digest:
    """The digest of what the view and its base hold together.

    Raises Corrupted. Requires: a base is given with its reader.
    """
    if base is None:
        return digest(reading.scan())
    assert base_reader is not None, "a base comes with its reader"
    below = StateBelow(base_reader, Digest.from_hex(base.digest, base.entries), base.entries)
    return digest_upon(reading.scan(), reading.count(), below)
