"""Scan query: keys, limit and fields that a scan asks for."""

from collections.abc import Mapping
from typing import NamedTuple

from logstore.model.key import MAX_KEY_BYTES, after_prefix
from logstore.model.wide.selection import CellSelection
from logstore.serve.read.consistency import PARAMS
from logstore.serve.read.parameters import cursor
from logstore.serve.read.parameters.cell_query import CELL_PARAMS, read_cell_query
from logstore.serve.read.parameters.row_key import encoded
from logstore.serve.settings import DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import boolean, integer, text

QUERY_PARAMS = (
    PARAMS
    | CELL_PARAMS
    | {
        "prefix",
        "start",
        "end",
        "limit",
        "reverse",
        "keys_only",
        "cursor",
        "key_encoding",
        "partitions",
        "ends",
    }
)


class Query(NamedTuple):
    """A scan of `[start, end)`; `end` None = no end. `partitions` None = all."""

    start: bytes
    end: bytes | None
    limit: int
    reverse: bool
    keys_only: bool
    partitions: tuple[int, ...] | None
    cells: CellSelection | None = None  # of a wide table
    ends: bool = False  # the answer says when rows end

    def digest(self, epoch: str, as_of: str | None = None) -> bytes:
        """Digest of the query that a cursor carries; the limit may change from page to page."""
        more: list[str | int] = [] if as_of is None else [as_of]
        if self.cells is not None:
            more += [self.cells.text, self.cells.versions]
        return cursor.query_digest(epoch, self.start, self.end, self.reverse, self.keys_only, self.partitions, *more)

    def behind(self, last_key: bytes) -> "Query":
        """The rest of this query."""
        return self._replace(end=last_key) if self.reverse else self._replace(start=last_key + b"\0")


def read_query(params: Mapping[str, bytes]) -> Query:
    """Query of a request; raises Problem for one that contradicts itself."""
    start, end = _bound(params, "start"), _bound(params, "end")
    prefix = _bound(params, "prefix")
    if prefix is not None:
        if start is not None or end is not None:
            raise Problem("bad-request", "a scan has a prefix, or a start and an end, not both", parameter="prefix")
        start, end = prefix, after_prefix(prefix)
    limit = (
        integer(text(params["limit"], "limit"), "limit", 1, MAX_PAGE_ROWS) if "limit" in params else DEFAULT_PAGE_ROWS
    )
    flags = boolean(params.get("reverse"), "reverse"), boolean(params.get("keys_only"), "keys_only")
    ends = boolean(params.get("ends"), "ends")
    return Query(start or b"", end, limit, *flags, listed_partitions(params), read_cell_query(params), ends)


def _bound(params: Mapping[str, bytes], name: str) -> bytes | None:
    if name not in params:
        return None
    bound = encoded(params[name], dict(params))
    if len(bound) > MAX_KEY_BYTES + 1:  # one more: the bound right behind the longest key
        raise Problem(
            "bad-key", f"{name} has at most {MAX_KEY_BYTES + 1:,} bytes, this one has {len(bound):,}", parameter=name
        )
    return bound


def listed_partitions(params: Mapping[str, bytes]) -> tuple[int, ...] | None:
    """Partitions that a request names, rising; None: all. Raises Problem."""
    if "partitions" not in params:
        return None
    listed = text(params["partitions"], "partitions").split(",")
    return tuple(sorted({integer(one, "partitions", 0, 2**31 - 1) for one in listed}))
