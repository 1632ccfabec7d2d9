"""Fields of a record, read leniently: another version may have written it, with more of them or fewer."""

from collections.abc import Callable
from typing import TypeVar

from logstore.model.errors import LogStoreError

R = TypeVar("R")


class UnreadableRecord(LogStoreError):
    """A record that is none of this version's, or is damaged."""


def read_map(cls: Callable[..., R], raw: object, **kinds: Callable[[object], object]) -> R:
    """The fields of a map that this version knows; the others, and null, are passed over.

    Raises UnreadableRecord.
    """
    if not isinstance(raw, dict):
        raise unreadable(getattr(cls, "__name__", "a record"), raw)
    return cls(**{name: kind(raw[name]) for name, kind in kinds.items() if raw.get(name) is not None})


def read_array(cls: Callable[..., R], raw: object, **kinds: Callable[[object], object]) -> R:
    """The items of an array that this version knows, by their place; what follows them, and null, are passed over.

    Raises UnreadableRecord.
    """
    if not isinstance(raw, list | tuple):
        raise unreadable(getattr(cls, "__name__", "a record"), raw)
    pairs = zip(kinds.items(), raw, strict=False)
    return cls(**{name: kind(item) for (name, kind), item in pairs if item is not None})


def each(kind: Callable[[object], R]) -> Callable[[object], tuple[R, ...]]:
    """Reading of an array of any length; raises UnreadableRecord, as all that follow."""

    def read(raw: object) -> tuple[R, ...]:
        if not isinstance(raw, list | tuple):
            raise unreadable("an array", raw)
        return tuple(kind(item) for item in raw)

    return read


def text(raw: object) -> str:
    """Value of a field that is a text."""
    if not isinstance(raw, str):
        raise unreadable("a text", raw)
    return raw


def number(raw: object) -> int:
    """Value of a field that is a whole number."""
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise unreadable("a number", raw)
    return raw


def flag(raw: object) -> bool:
    """Value of a field that is true or false."""
    if not isinstance(raw, bool):
        raise unreadable("true or false", raw)
    return raw


def definition(raw: object) -> bytes:
    """Value of a field that is a definition; a text where the record lies in a JSON file."""
    if isinstance(raw, str):
        return raw.encode()
    if not isinstance(raw, bytes):
        raise unreadable("a definition", raw)
    return raw


def unreadable(what: str, raw: object) -> UnreadableRecord:
    """The error of a value that is not what this version expects."""
    return UnreadableRecord(
        f"{str(raw)[:100]!r} of the feed cannot be read as {what}: another version wrote it; restart the node, so that "
        "its workers and readers are of one version"
    )
