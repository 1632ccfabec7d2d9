"""Splits: the split points of an ordered table, as its definition keeps them. Fixed at creation."""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from itertools import pairwise

from logstore.model.errors import BadDefinition
from logstore.model.key import MAX_KEY_BYTES, to_bytes

MAX_SPLITS_BYTES = 65_536  # of all together: a definition is one record that everybody reads


def check_splits(splits: Sequence[bytes], partitions: int) -> None:
    """Raise BadDefinition when these split points do not make that many partitions. No split points: a hash table."""
    if not splits:
        return
    if not all(isinstance(split, bytes) for split in splits):
        raise BadDefinition(f"splits are a sequence of keys as bytes, not {splits!r:.100}")
    if partitions != len(splits) + 1:
        raise BadDefinition(
            f"{len(splits):,} split points make {len(splits) + 1:,} partitions, not {partitions:,}; leave the number "
            "of partitions away"
        )
    if not all(0 < len(split) <= MAX_KEY_BYTES for split in splits):
        raise BadDefinition(
            f"a split point is a key of 1 to {MAX_KEY_BYTES:,} bytes, at which a partition begins; what is below the "
            "first one needs none"
        )
    for before, split in pairwise(splits):
        if split <= before:
            raise BadDefinition(
                f"split points rise strictly, but {split[:60]!r} comes after {before[:60]!r}; sort them as bytes, and "
                "name each once"
            )
    if (size := sum(map(len, splits))) > MAX_SPLITS_BYTES:
        raise BadDefinition(
            f"split points have at most {MAX_SPLITS_BYTES:,} bytes in all, these have {size:,}; a short prefix of each "
            "key splits as well"
        )


def splits_of(given: Iterable[str | bytes]) -> tuple[bytes, ...]:
    """Split points as a definition holds them, of keys as text or bytes. Raises UsageError, BadDefinition."""
    if isinstance(given, str | bytes):
        raise BadDefinition(f"splits is a list of keys, such as [{given!r:.60}], not one key")
    return tuple(map(to_bytes, given))


def to_text(splits: Iterable[bytes]) -> list[str]:
    """The split points in base64, as JSON takes them."""
    return [b64encode(split).decode() for split in splits]


def from_text(texts: Iterable[str]) -> tuple[bytes, ...]:
    """Read `to_text`; raises ValueError, TypeError for what is none."""
    return tuple(b64decode(text, validate=True) for text in texts)
