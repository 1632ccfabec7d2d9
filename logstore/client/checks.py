"""Checks of a record before it goes to the log.

Types, lengths, header names. Afterwards nobody could take it back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from logstore.model.errors import NoSiblings, NotExpiring, UsageError, ValueTooLarge
from logstore.model.key import MAX_KEY_BYTES, check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.model.table import Table

_MAX_NAME = 1_000  # far beyond any; the exact rule is the definition's
_LEAST_TTL_S = 0.001
_LARGEST_OFFSET = (1 << 63) - 1
_MANY = 1e9  # librdkafka takes 32 bits of milliseconds
Text = bytes | str
Pair = tuple[Text, Text | None]
_NO_SEQUENCE = (str, bytes, bytearray, memoryview, set, frozenset)  # of pairs or keys: one text, or no order
_HEADER_BYTES = 16 * 1024 - 1024  # what RECORD_OVERHEAD_BYTES leaves to headers, less the framing


def check_table(name: str) -> str:
    """The name of a table. Raises UsageError for what cannot be one."""
    if type(name) is str and name and name.isprintable() and len(name) <= _MAX_NAME:
        return name
    raise UsageError(f"the name of a table is text, not {name!r:.80}")


def check_timeout(timeout_s: float | None) -> None:
    """Raise UsageError for what is no number of seconds."""
    if timeout_s is not None:
        check_number("timeout_s", timeout_s, 0)


def check_number(name: str, number: float, least: float, *, whole: bool = False) -> None:
    """Raise UsageError for what is no number, or less than `least`."""
    kinds = (int,) if whole else (int, float)
    if isinstance(number, bool) or not isinstance(number, kinds) or not least <= number < _MANY:
        raise UsageError(f"{name} is a {'whole ' if whole else ''}number from {least} on, not {number!r:.80}")


def check_kind(name: str, thing: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Raise UsageError for what is neither None nor of one of these kinds."""
    if thing is not None and not isinstance(thing, kinds):
        raise UsageError(f"{name} is {what}, not {type(thing).__name__}")


def check_value(value: Text | None, limit: int) -> bytes | None:
    """The value's bytes; None stays None. Raises UsageError, ValueTooLarge."""
    if value is None:
        return None
    raw = to_bytes(value)
    if len(raw) > limit:
        raise ValueTooLarge(len(raw), limit)
    return raw


def check_headers(headers: Mapping[str, Text] | None) -> list[tuple[str, bytes]] | None:
    """The writer's own headers.

    Raises UsageError for reserved names and for more than fits beside a key and a value of full length.
    """
    check_kind("headers", headers, Mapping, "a mapping of names to bytes")
    if not headers:
        return None
    from logstore.model.folding.mutation import RESERVED  # noqa: PLC0415 - who gives no headers does without

    pairs = [(name, to_bytes(content)) for name, content in headers.items()]
    for name, _ in pairs:
        if not isinstance(name, str) or name.startswith(RESERVED):
            raise UsageError(f"header names that begin with {RESERVED!r} are the store's own; rename {name!r}")
    size = sum(len(name.encode()) + len(content) + 10 for name, content in pairs)
    if size > _HEADER_BYTES:
        raise UsageError(f"the headers of a record have at most {_HEADER_BYTES:,} bytes, these have {size:,}")
    return pairs


def ttl_header(ttl_s: float | None) -> list[tuple[str, bytes]]:
    """The reserved header of a TTL in seconds; none without one. Raises UsageError."""
    if ttl_s is None:
        return []
    check_number("ttl_s", ttl_s, _LEAST_TTL_S)
    return [("ls.ttl", round(ttl_s * 1000).to_bytes(8))]


def seen_header(seen: int | None) -> list[tuple[str, bytes]]:
    """The reserved header of what a writer had seen, a row version or -1; none without one. Raises UsageError."""
    if seen is None:
        return []
    if type(seen) is not int or not -1 <= seen <= _LARGEST_OFFSET:
        raise UsageError(f"seen is the version of the row as it was read, or -1 where there was none, not {seen!r:.80}")
    return [("ls.seen", b"%d" % seen)]


def check_seen(seen: int | None, position: Position) -> None:
    """Raise UsageError for a write that says to have seen what was not there yet: the fold refuses it."""
    if seen is not None and seen >= position.offset:
        raise unseen_version(seen, position)


def unseen_version(seen: int, position: Position) -> UsageError:
    """The error of a write, at a position, that says to have seen what was not there yet."""
    return UsageError(
        f"seen={seen:,} is no version that this row has had: the write stands at offset {position.offset:,} of "
        f"partition {position.partition}, and has changed nothing; seen is `row.version` of the row as it was read"
    )


def check_takes(table: "Table", own: Iterable[tuple[str, bytes]]) -> None:
    """Check that a table takes a record with these reserved headers. Raises NotExpiring, NoSiblings."""
    names = {name for name, _ in own}
    if "ls.ttl" in names and not table.expiring:
        raise NotExpiring(table.name)
    if "ls.seen" in names and not table.siblings:
        raise NoSiblings(table.name)


def pairs_of(pairs: "Mapping[Text, Text | None] | Iterable[Pair]") -> Iterator[Pair]:
    """The pairs in their order; a mapping is its items. Raises UsageError for what has no pairs."""
    if isinstance(pairs, Mapping):
        return iter(pairs.items())
    if isinstance(pairs, _NO_SEQUENCE) or not isinstance(pairs, Iterable):
        raise UsageError(f"put_many takes a mapping, or pairs (key, value) in an order, not {type(pairs).__name__}")
    return iter(pairs)


def keys_of(keys: "Iterable[Text]") -> list[bytes]:
    """The keys of a get_many. Raises UsageError for one text, and for sets, which have no order to answer in."""
    if isinstance(keys, _NO_SEQUENCE) or not isinstance(keys, Iterable):
        raise UsageError(f"get_many takes several keys in an order, such as a list, not {type(keys).__name__}")
    some = list(keys)
    try:
        return list(map(str.encode, some))  # type: ignore[arg-type]  # bytes among them raise
    except (TypeError, UnicodeEncodeError):  # bytes among them, or what is neither
        return [to_bytes(key) for key in some]


def _pair(pair: Any) -> Pair:
    """A pair as it should be: a str or a set of two would be one to Python's own unpacking. Raises UsageError."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        what = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, (tuple, list)) else type(pair).__name__
        raise UsageError(f"put_many takes pairs (key, value), not a {what}")
    return pair[0], pair[1]


class CheckedWrites:
    """Keys and values of some writes, checked all at once: a tenth of a microsecond each."""

    def __init__(self, pairs: Sequence[Pair], table: "Table", start: int) -> None:
        """Check `pairs`; `start` is the place of the first one.

        Raises UsageError (with the place in a note) when one of them cannot be written.
        """
        if {*map(type, pairs)} != {tuple} or {*map(len, pairs)} != {2}:
            _check_shapes(pairs, start)
        self.keys: list[bytes] = [key for key, _ in pairs]  # type: ignore[misc]  # checked right above
        self.values: list[bytes | None] = [value for _, value in pairs]  # type: ignore[misc]  # checked right above
        self.longest_key = self.longest_value = 0
        self.borrowed = self._plain(table.max_value_bytes)  # True: the caller's own bytes, none of them made here
        if not self.borrowed:
            self._one_by_one(table.max_value_bytes, start)

    def take(self, more: "CheckedWrites") -> None:
        """Have the writes of `more` behind one's own."""
        self.keys += more.keys
        self.values += more.values
        self.borrowed = self.borrowed and more.borrowed
        self.longest_key = max(self.longest_key, more.longest_key)
        self.longest_value = max(self.longest_value, more.longest_value)

    def part(self, first: int, end: int) -> "CheckedWrites":
        """The writes from place `first` on, before `end`, of this chunk."""
        part = copy(self)
        part.keys, part.values = self.keys[first:end], self.values[first:end]
        return part

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(map(len, self.keys)) + sum(len(value) for value in self.values if value is not None)

    def _plain(self, limit: int) -> bool:
        kinds = {*map(type, self.values)}
        if {*map(type, self.keys)} != {bytes} or not kinds <= {bytes, type(None)}:
            return False
        key_lengths = {*map(len, self.keys)}
        self.longest_key = max(key_lengths)
        present = self.values if kinds == {bytes} else filter(None, self.values)
        self.longest_value = max(map(len, present), default=0)  # type: ignore[arg-type]  # no None is left
        return 0 not in key_lengths and self.longest_key <= MAX_KEY_BYTES and self.longest_value <= limit

    def _one_by_one(self, limit: int, start: int) -> None:
        for i, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            with _at(start + i):
                self.keys[i], self.values[i] = check_key(to_bytes(key)), check_value(value, limit)
        self._plain(limit)

    @property
    def largest_bytes(self) -> int:
        """Bound on the size of the largest record."""
        return self.longest_key + self.longest_value


def _check_shapes(pairs: Sequence[Pair], start: int) -> None:
    for i, pair in enumerate(pairs):
        with _at(start + i):
            _pair(pair)


@contextmanager
def _at(place: int) -> Iterator[None]:
    """Note the place of a pair that is refused."""
    try:
        yield
    except UsageError as error:
        error.add_note(f"at place {place} of put_many")
        raise
