"""Terms of a mutation: what its reserved headers ask for beyond the operation."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from xxhash import xxh3_128_digest

Column = tuple[str, bytes]  # family, qualifier

_CONDITION = re.compile(
    rb"(?P<kind>absent|present)|version:(?P<version>[0-9]{1,19})(@(?P<family>[^:]*):(?P<qualifier>.*))?|"
    rb"value:(?P<digest>.{16})",
    re.DOTALL,
)
_SEEN = re.compile(rb"-1|[0-9]{1,19}")


class Condition(NamedTuple):
    """A condition on a row or a cell (`ls.if`), decided by what stands below the record in the log."""

    kind: Literal["absent", "present", "version", "value"]
    version: int = -1  # of the row, or of the cell in `column`
    digest: bytes = b""  # xxh3-128 of the value
    column: Column | None = None

    @classmethod
    def of_value(cls, payload: bytes) -> "Condition":
        """The condition that a row has this value."""
        return cls("value", digest=xxh3_128_digest(payload))

    def encode(self) -> bytes:
        """The header that says it. Requires: a version >= 0 where it is one of a version."""
        if self.kind == "version":
            named = b"" if self.column is None else b"@%b:%b" % (self.column[0].encode("latin-1"), self.column[1])
            return b"version:%d%b" % (self.version, named)
        return b"value:" + self.digest if self.kind == "value" else self.kind.encode()

    @classmethod
    def parse(cls, raw: bytes) -> "Condition | None":
        """The condition of a header; None when it is none."""
        found = _CONDITION.fullmatch(raw)
        if found is None:
            return None
        if found["kind"]:
            return cls("absent" if found["kind"] == b"absent" else "present")
        if found["digest"]:
            return cls("value", digest=found["digest"])
        named = found["family"] is not None  # a family that is no ASCII is none: no cell of it is ever there
        column = (found["family"].decode("latin-1"), found["qualifier"]) if named else None
        return cls("version", int(found["version"]), column=column)


class Terms(NamedTuple):
    """Terms of one mutation; None where its record does not say."""

    id: bytes | None = None  # 16 bytes: the same one for the same row has effect once
    condition: Condition | None = None
    ttl_ms: int | None = None
    seen: int | None = None  # the row version that the writer had read, -1: none

    @property
    def decided(self) -> bool:
        """True when the mutation's outcome is remembered, whatever its operation."""
        return self.id is not None or self.condition is not None or self.seen is not None

    @classmethod
    def of(cls, headers: Mapping[str, bytes]) -> "Terms":
        """Terms in the reserved headers of a record. Requires: each is well formed."""
        condition, ttl, seen = headers.get("ls.if"), headers.get("ls.ttl"), headers.get("ls.seen")
        return cls(
            headers.get("ls.id"),
            None if condition is None else Condition.parse(condition),
            None if ttl is None else int.from_bytes(ttl, signed=True),
            None if seen is None else int(seen),
        )


def parse_seen(raw: bytes) -> int | None:
    """The row version of an `ls.seen` header; None when it is none."""
    return int(raw) if _SEEN.fullmatch(raw) else None


def content_digest(operation: str, headers: Mapping[str, bytes], value: bytes | None) -> bytes:
    """The xxh3-128 of what a mutation says, 16 bytes: two records of one id that differ in it are not the same.

    Each of operation, `ls.if`, `ls.ttl`, `ls.seen` and value (of a delete: empty) as 4 bytes length and its bytes;
    ffffffff where absent.
    """
    get = headers.get
    said = b"" if operation == "delete" else value
    parts = (
        _sized(operation.encode()),
        _sized(get("ls.if")),
        _sized(get("ls.ttl")),
        _sized(get("ls.seen")),
        _sized(said),
    )
    return xxh3_128_digest(b"".join(parts))


def short_content_digest(operation: str, condition: bytes | None, value: bytes) -> bytes:
    """The `content_digest` of a mutation with a value and without `ls.ttl` and `ls.seen`, in a third of the time."""
    said = b"%b%b\xff\xff\xff\xff\xff\xff\xff\xff%b%b" % (
        _operation_part(operation), _condition_part(condition), len(value).to_bytes(4), value,
    )  # fmt: skip
    return xxh3_128_digest(said)


@lru_cache(maxsize=16)
def _operation_part(operation: str) -> bytes:
    return _sized(operation.encode())


@lru_cache(maxsize=1_024)
def _condition_part(condition: bytes | None) -> bytes:
    return _sized(condition)


def _sized(part: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if part is None else len(part).to_bytes(4) + part
