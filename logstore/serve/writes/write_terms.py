"""Write terms: what the headers of a write say, read strictly.

    If-None-Match: *        only where there is no row
    If-Match: *             only where there is one
    If-Match: "<ETag>"      only where the row is the one that was read: the ETag of an answer, as it stands
    LS-Id                   32 hexadecimal digits: the same write sent again has effect once
    LS-Ttl                  milliseconds after which the row is gone
    LS-Write-Level          what has the write when it is answered (`write_level`)
    LS-Seen                 LS-Version of the row as it was read, or -1: newer values stay beside this one

An ETag names epoch, partition and version of a row. If-Match compares strongly (RFC 9110, section 13.1.1): a weak ETag
is never that of the row. One of another epoch is a mistake about the table, not about the row, so it is judged as a
token of that epoch: `epoch-changed` for a former one, and one that is not known here yet is waited for.
"""

import re
from typing import NamedTuple

from logstore.model.folding.terms import Condition
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.read.consistency import SESSION, Consistency, read_level
from logstore.serve.read.outcomes import read_mutation_id
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request, integer
from logstore.serve.writes.row_record import MAX_TTL_MS, PUT, check_seen
from logstore.serve.writes.write_level import PARAM as WRITE_LEVEL
from logstore.serve.writes.write_level import read_write_level

PARAMS = frozenset({"token", "deadline_ms", "key_encoding", WRITE_LEVEL})
_ETAG = re.compile(r'"([0-9a-f]{32})-(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,18})(?:-(?:[0-9]+|-))?"', re.ASCII)
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')
_OF_READS = (b"ls-consistency", b"ls-max-lag", b"ls-as-of")
_DATES = (b"if-unmodified-since", b"if-modified-since")
_MAX_NUMBER = (1 << 63) - 1
_ONE = "a write has one condition: If-None-Match: *, If-Match: *, or If-Match with one ETag of the row"


class RowTag(NamedTuple):
    """The row version that an ETag names."""

    epoch: str
    partition: int
    version: int

    def condition(self, table: Table, partition: int) -> Condition:
        """The condition that the row is at this version. Raises Problem when no version of it can be."""
        if (self.epoch, self.partition) != (table.epoch, partition):
            raise Problem(
                "condition-failed", "the ETag is that of another row: take the one that a read of this row answers",
                table=table.name, partition=partition,
            )  # fmt: skip
        return Condition("version", self.version)


class WriteTerms(NamedTuple):
    """Terms of a write. `tag`: of If-Match, to become a condition once the table is known."""

    level: Consistency
    condition: Condition | None
    tag: RowTag | None
    id: bytes | None
    ttl_ms: int | None
    seen: int | None = None
    write_level: str | None = None

    @property
    def known_by(self) -> Consistency:
        """The level at which the table must be known: epochs of token and ETag are of its past, or awaited."""
        if self.tag is None:
            return self.level
        named = Position({(self.tag.epoch, self.tag.partition): 0})
        return self.level._replace(name=SESSION, token=self.level.token | named)


def read_terms(request: Request, params: dict[str, bytes], *, of_row: bool = True) -> WriteTerms:
    """Terms of a request, `of_row`: of one row. Raises Problem for what is not understood, or means something else."""
    for name in _OF_READS:
        if request.header(name) is not None:
            raise Problem("bad-request", f"a write has no {name.decode()}: it is in the log before it is answered")
    level, write_level = read_level(request, params), read_write_level(request, params)
    if not of_row:
        return WriteTerms(level, None, None, None, None, write_level=write_level)
    condition, tag = _condition(request)
    mutation_id, ttl_ms = _id(request.header(b"ls-id")), _ttl(request.header(b"ls-ttl"))
    seen = _seen(request.header(b"ls-seen"))
    check_seen(seen, PUT, condition or tag)
    return WriteTerms(level, condition, tag, mutation_id, ttl_ms, seen, write_level)


def _id(text: str | None) -> bytes | None:
    return None if text is None else read_mutation_id(text.strip())


def _ttl(text: str | None) -> int | None:
    return None if text is None else integer(text.strip(), "ls-ttl", 1, MAX_TTL_MS)


def _seen(text: str | None) -> int | None:
    if text is None or text.strip() == "-1":
        return None if text is None else -1
    return integer(text.strip(), "ls-seen", 0, _MAX_NUMBER)


def _condition(request: Request) -> tuple[Condition | None, RowTag | None]:
    if any(request.header(name) is not None for name in _DATES):
        raise Problem("bad-request", f"rows have versions and no dates; {_ONE}")
    match, none_match = request.header(b"if-match"), request.header(b"if-none-match")
    if match is not None and none_match is not None:
        raise Problem("bad-request", _ONE)
    if none_match is not None:
        if none_match.strip() != "*":
            raise Problem("bad-request", f"If-None-Match of a write is *, and no ETag; {_ONE}")
        return Condition("absent"), None
    if match is None:
        return None, None
    return (Condition("present"), None) if match.strip() == "*" else (None, _tag(match.strip()))


def _tag(text: str) -> RowTag:
    if _ENTITY_TAG.fullmatch(text) is None:
        raise Problem("bad-request", f"not one ETag: {text[:80]!r}; {_ONE}")
    if text.startswith("W/"):
        raise Problem(
            "condition-failed", "If-Match compares strongly, and a weak ETag is none of a row: take the one that a "
            "read of the row answers, as it stands",
        )  # fmt: skip
    found = _ETAG.fullmatch(text)
    if found is None or int(found[3]) > _MAX_NUMBER or int(found[2]) >= 1 << 31:
        raise Problem(
            "bad-request", f"not the ETag of a row: {text[:80]!r}; take the one that a read of the row answers, as it "
            "stands", parameter="if-match",
        )  # fmt: skip
    return RowTag(found[1], int(found[2]), int(found[3]))
