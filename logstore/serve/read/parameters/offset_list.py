"""Offset list: the body of a page of outcomes, `{"partition": p, "offsets": [...]}` in JSON or msgpack.

A body is bounded before it is parsed: a thousand offsets take twenty thousand bytes at most.
"""

from typing import Any, NamedTuple

import msgpack
import orjson

from logstore.serve.settings import MAX_PAGE_ROWS
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request

MAX_OFFSET = (1 << 63) - 2
_MAX_BYTES = 64 * 1024
_SHAPE = 'the body is {"partition": 0, "offsets": [17, 18]}'


class OffsetList(NamedTuple):
    """Offsets of records of one partition, in the order in which they are asked for."""

    partition: int
    offsets: list[int]


async def read_offsets(request: Request) -> OffsetList:
    """The offsets of the body, 1 to MAX_PAGE_ROWS of them. Raises Problem."""
    kind = (request.header(b"content-type") or media_types.JSON).partition(";")[0].strip().lower()
    if kind not in (media_types.JSON, media_types.MSGPACK):
        raise Problem("unsupported-media-type", f"offsets come as JSON or msgpack, not {kind[:60]!r}")
    body = await request.body(_MAX_BYTES)
    try:
        found: Any = orjson.loads(body) if kind == media_types.JSON else msgpack.unpackb(body)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Problem("bad-request", f"the body is not {kind}: {str(error)[:200]}; {_SHAPE}") from error
    match found:
        case {"partition": partition, "offsets": list(offsets), **rest} if not rest and type(partition) is int:
            return OffsetList(partition, _checked(offsets))
    raise Problem("bad-request", _SHAPE)


def _checked(offsets: list[Any]) -> list[int]:
    if not 1 <= len(offsets) <= MAX_PAGE_ROWS:
        raise Problem("bad-request", f"a request has 1 to {MAX_PAGE_ROWS:,} offsets, this one has {len(offsets):,}")
    if {*map(type, offsets)} != {int} or min(offsets) < 0 or max(offsets) > MAX_OFFSET:
        raise Problem("bad-request", f"an offset is a whole number from 0 to {MAX_OFFSET:,}", parameter="offsets")
    return offsets
