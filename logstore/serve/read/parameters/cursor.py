"""Cursor: the point at which a scan goes on. Opaque to clients, the same on every reader, without state anywhere.

base64url of msgpack `[last key, digest]`: the last key that the page has examined (exclusive), and xxh3-64 of the
query, so that a cursor of another query is refused instead of giving an answer that looks right.
"""

from typing import Any

import msgpack
import xxhash

from logstore.model.errors import UsageError
from logstore.model.key import MAX_KEY_BYTES, from_base64url, to_base64url
from logstore.serve.wire.problems import Problem


def query_digest(*parts: Any) -> bytes:
    """Eight bytes that stand for a query."""
    return xxhash.xxh3_64_digest(msgpack.packb(parts))


def encode(last_key: bytes, digest: bytes) -> str:
    """The cursor behind `last_key`."""
    return to_base64url(msgpack.packb([last_key, digest]))


def decode(cursor: str) -> tuple[bytes, bytes]:
    """Last key and digest that a cursor holds; raises Problem when it is none."""
    try:
        match msgpack.unpackb(from_base64url(cursor)):
            case [bytes(last_key), bytes(digest)] if 0 < len(last_key) <= MAX_KEY_BYTES and len(digest) == 8:
                return last_key, digest
    except (UsageError, ValueError, TypeError, msgpack.UnpackException):
        pass  # refused below, whatever it was
    raise Problem("bad-cursor", "not a cursor; take it as it stands in the page before, or begin without one")


def read(cursor: str, digest: bytes) -> bytes:
    """The last key of a cursor; raises Problem when it belongs to another query."""
    last_key, theirs = decode(cursor)
    if theirs != digest:
        raise Problem(
            "bad-cursor",
            "the cursor belongs to another query; repeat the query it came from, or begin without a cursor",
        )
    return last_key
