"""Mutation: the meaning of one record of the log.

The byte map is in `docs/log_format.md`; the rules are checked here and nowhere else.

    record (key, value, headers)  ->  Put | Delete          changes a row
                                      Control               steps over: takes an offset, changes nothing
                                      Quarantined(reason)   cannot be right: skipped the same way by everybody
                                      Refused(why)          stops the partition: only a later build can fold it

Order of the checks, the same on every engine: 1 the format version, 2 what can never be right, 3 what this build does
not fold yet, 4 the operation itself. So a record that every build must skip never stops a partition, and a record that
a later build would fold is never skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgpack

from logstore.model.folding.terms import Condition, parse_seen
from logstore.model.key import MAX_KEY_BYTES

FORMAT_VERSION = b"\x01"
RESERVED = "ls."

PUT, DELETE = "put", "delete"
RULES = "rules"
CONTROLS = frozenset({"barrier", "cut", "base", "fence", RULES})
LATER = frozenset({"incr", "append", "edit"})
OPERATIONS = frozenset({PUT, DELETE}) | CONTROLS | LATER
MAX_TTL_MS = 2**63 - 1

# The fixed list of reasons: metrics carry them as a label.
NULL_KEY = "null-key"
EMPTY_KEY = "empty-key"
LONG_KEY = "long-key"
WRONG_PARTITION = "wrong-partition"
UNKNOWN_OPERATION = "unknown-operation"
UNKNOWN_HEADER = "unknown-header"
REPEATED_HEADER = "repeated-header"
NULL_HEADER = "null-header"
MALFORMED_HEADER = "malformed-header"
NULL_PUT = "null-put"
BAD_TTL = "bad-ttl"
LONG_VALUE = "long-value"
BAD_MSGPACK = "bad-msgpack"
KEYED_CONTROL = "keyed-control"
REASONS = (
    NULL_KEY, EMPTY_KEY, LONG_KEY, WRONG_PARTITION, UNKNOWN_OPERATION, UNKNOWN_HEADER, REPEATED_HEADER, NULL_HEADER,
    MALFORMED_HEADER,
    NULL_PUT, BAD_TTL, LONG_VALUE, BAD_MSGPACK, KEYED_CONTROL,
)  # fmt: skip

Headers = Sequence[tuple[str, bytes | None]]


class Put(NamedTuple):
    """Mutation that sets a row's value."""

    key: bytes
    value: bytes


class Delete(NamedTuple):
    """A mutation that removes a row."""

    key: bytes


class Control(NamedTuple):
    """A record of the store's own; its operation and msgpack value are for later readers."""

    operation: str


class Quarantined(NamedTuple):
    """Skipped and listed; `reason` is one of REASONS."""

    reason: str


class Refused(NamedTuple):
    """Record that stops its partition; `why` is a sentence. `is_later`: a later build can fold it."""

    why: str
    is_later: bool = True

    def advice(self, table: str, partition: int, offset: int) -> str:
        """Message for people: the record at `offset` cannot be folded, and the ways out."""
        upgrade = "upgrade logstore, or " if self.is_later else ""
        return (
            f"the record at offset {offset:,} of {table}/{partition} cannot be folded: {self.why}; {upgrade}"
            f"give the record up: `logstore table repair {table} --partition {partition} --skip {offset} --force`"
        )


class KeyedRecord(NamedTuple):
    """A record with a key that is right in every respect but, perhaps, for what its table's rules say."""

    operation: str  # put, delete, incr, append, edit
    key: bytes
    value: bytes | None
    headers: Mapping[str, bytes]  # the reserved ones


Mutation = Put | Delete | Control | Quarantined | Refused


def parse(
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    max_value_bytes: int,
    right_partition: Callable[[bytes], bool],
) -> Mutation:
    """Parse a record; `right_partition` tells whether the key belongs to the partition the record stands in."""
    record = sort_out(key, value, headers, max_value_bytes=max_value_bytes, right_partition=right_partition)
    if isinstance(record, KeyedRecord):
        return _plain(record)
    if record == Control(RULES):
        return Refused(f"the operation {RULES!r} needs a later build")
    return record


def sort_out(
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    max_value_bytes: int,
    right_partition: Callable[[bytes], bool],
) -> KeyedRecord | Control | Quarantined | Refused:
    """Check what is checked of every record, whatever its table: the first two steps, and the form of the operation."""
    own = [(name, content) for name, content in headers if name.startswith(RESERVED)]
    refused = _version(own)
    if refused is not None:
        return refused
    reason = _bad_headers(own)
    if reason is not None:
        return Quarantined(reason)
    named = {name: content for name, content in own if content is not None}
    operation = named["ls.op"].decode() if "ls.op" in named else DELETE if value is None else PUT
    if operation in CONTROLS:
        return _control(operation, key, value)
    reason = _bad_key(key, right_partition) or _bad_value(operation, value, max_value_bytes)
    if reason is not None or key is None:
        return Quarantined(reason or NULL_KEY)
    return KeyedRecord(operation, key, value, named)


def _plain(record: KeyedRecord) -> Mutation:
    """Mutation that this build folds: one whose row needs no state before it."""
    if "ls.seen" in record.headers:  # for tables that keep siblings
        return Quarantined(MALFORMED_HEADER)
    if record.operation == "edit":
        return _not_plain("the operation 'edit'", "wide")
    if record.operation in LATER:
        return _not_plain(f"the operation {record.operation!r}", "conditional")
    for name, flag in (("ls.id", "conditional"), ("ls.if", "conditional"), ("ls.ttl", "expiring")):
        if name in record.headers:
            return _not_plain(f"the header {name}", flag)
    if record.operation == DELETE or record.value is None:
        return Delete(record.key)
    return Put(record.key, record.value)


def _not_plain(what: str, flag: str) -> Refused:
    """Refusal of what a table takes that was made for it, and this one was not."""
    return Refused(f"{what} is for tables made with `table create --{flag}`, and this one is plain", is_later=False)


def _version(own: Headers) -> Refused | None:
    for name, content in own:
        if name == "ls.v" and content is not None and content != FORMAT_VERSION:
            return Refused(f"the format version is {content[:8].hex() or 'empty'}, this build knows 01")
    return None


def _bad_headers(own: Headers) -> str | None:
    names = [name for name, _ in own]
    if len(set(names)) != len(names):
        return REPEATED_HEADER
    for name, content in own:
        check = _HEADERS.get(name)
        reason = UNKNOWN_HEADER if check is None else NULL_HEADER if content is None else check(content)
        if reason is not None:
            return reason
    return None


def _control(operation: str, key: bytes | None, value: bytes | None) -> Control | Quarantined:
    if key is not None:
        return Quarantined(KEYED_CONTROL)
    return Control(operation) if _is_msgpack(value) else Quarantined(BAD_MSGPACK)


def _bad_key(key: bytes | None, right_partition: Callable[[bytes], bool]) -> str | None:
    if key is None:
        return NULL_KEY
    if not key:
        return EMPTY_KEY
    if len(key) > MAX_KEY_BYTES:
        return LONG_KEY
    return None if right_partition(key) else WRONG_PARTITION


def _bad_value(operation: str, value: bytes | None, max_value_bytes: int) -> str | None:
    if operation == DELETE:  # a delete ignores its value, whatever its length
        return None
    if value is None:
        return NULL_PUT if operation == PUT else BAD_MSGPACK if operation == "edit" else None
    if len(value) > max_value_bytes:
        return LONG_VALUE
    return BAD_MSGPACK if operation == "edit" and not _is_msgpack(value) else None


def _is_msgpack(value: bytes | None) -> bool:
    """True for exactly one well-formed object, nested 1,024 deep at most."""
    if value is None:
        return False
    # walked over, never built: objects take up to 80 times the bytes of the value, and whoever may write chooses them
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(value), 1))
    unpacker.feed(value)
    try:
        unpacker.skip()
    except (ValueError, msgpack.UnpackException):
        return False
    return bool(unpacker.tell() == len(value))


def _operation(content: bytes) -> str | None:
    return None if content.isascii() and content.decode() in OPERATIONS else UNKNOWN_OPERATION


def _condition(content: bytes) -> str | None:
    return MALFORMED_HEADER if Condition.parse(content) is None else None


def _seen(content: bytes) -> str | None:
    return MALFORMED_HEADER if parse_seen(content) is None else None


def _ttl(content: bytes) -> str | None:
    return None if len(content) == 8 and content[0] < 0x80 else BAD_TTL


_HEADERS: dict[str, Callable[[bytes], str | None]] = {
    "ls.v": lambda _: None,  # looked at before anything else
    "ls.op": _operation,
    "ls.id": lambda content: None if len(content) == 16 else MALFORMED_HEADER,
    "ls.if": _condition,
    "ls.ttl": _ttl,
    "ls.seen": _seen,
}
