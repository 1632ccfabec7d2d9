"""View digest: the digest of a partition at a cut, from a reading of its view that was begun exactly there.

    no base        the digest of all live entries
    a base         its digest, minus the base's entries of the keys in the view, plus the view's live entries

The old entries are looked up one by one while the view is small beside its base, and found by walking along the base
otherwise.
"""

from collections.abc import Iterator

from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.sorted_merge import overlaid
from logstore.snapshot.sst import SstReader
from logstore.view.layout import Base
from logstore.view.reader import Reading

_WALK = 8  # a step along the base costs an eighth of a look-up

Pairs = Iterator[tuple[bytes, bytes]]


def digest_of(reading: Reading, base: Base | None, base_reader: SstReader | None) -> Digest:
    """The digest of what the view and its base hold together.

    Raises Corrupted. Requires: a base is given with its reader.
    """
    if base is None:
        return digest(reading.scan())
    assert base_reader is not None, "a base comes with its reader"
    walk = reading.count() * _WALK > base.entries
    replaced = overlaid(reading.scan(), base_reader.scan()) if walk else _looked_up(reading.scan(), base_reader)
    return Digest.from_hex(base.digest, base.entries).minus(digest(replaced)).plus(digest(reading.scan()))


def _looked_up(newer: Pairs, base_reader: SstReader) -> Pairs:
    for key, _ in newer:
        entry = base_reader.get(key)
        if entry is not None:
            yield key, entry
