"""Decision items: outcomes and ids in the form in which snapshots hold them, views count them, and both are compared.

    outcome   key 04 | offset (8)                           value: the outcome
    id        key 03 | xxh3-128(row key) (16) | id (16)     value: bucket of row key | id -> the id's value

The values are those of `logstore.model.hard_rows.encoding`. In a view each kind is a database of its own, and the kind
byte is left out.
"""

from collections.abc import Iterable, Iterator

from xxhash import xxh3_128_intdigest

from logstore.model.errors import Corrupted
from logstore.model.folding.bucket import unpack_bucket
from logstore.model.folding.digest import Digest

ID_KIND, OUTCOME_KIND = b"\x03", b"\x04"
_MASK = (1 << 128) - 1

DecisionItem = tuple[bytes, bytes]  # kind byte | key, value


def decisions_digest(items: Iterable[DecisionItem]) -> Digest:
    """The digest of outcomes and ids, each counted once. The items are streamed. Raises Corrupted.

    Sum modulo 2^128 of xxh3-128( kind byte | key length, 4 bytes | whole key | value ).
    """
    total = count = 0
    for kind, key, value in _whole(items):
        total += xxh3_128_intdigest(kind + len(key).to_bytes(4) + key + value)
        count += 1
    return Digest(total & _MASK, count)


def _whole(items: Iterable[DecisionItem]) -> Iterator[tuple[bytes, bytes, bytes]]:
    for key, value in items:
        kind = key[:1]
        if kind == OUTCOME_KIND:
            yield kind, key[1:], value
        elif kind == ID_KIND:
            for whole, one in unpack_bucket(value):
                yield kind, whole, one
        else:
            raise Corrupted(
                f"a decision item is of kind {kind.hex() or 'none'}: a later build wrote it, or it is damaged"
            )
