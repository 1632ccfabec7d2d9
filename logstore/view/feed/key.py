"""Keys of the feed: each names a record in the dictionary that a worker publishes, and the class of that record."""

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class FeedRecord(Protocol):
    """A value of the feed's dictionary."""

    def encode(self) -> object:
        """The record as a msgpack value."""


R = TypeVar("R", bound=FeedRecord)


@dataclass(frozen=True, slots=True)
class FeedKey(Generic[R]):
    """Name of a record of class R in the feed's dictionary."""

    word: ClassVar[str]
    record: ClassVar[Any]  # R

    def encode(self) -> object:
        """The key as a msgpack value: the word alone, or an array of the word and what follows it."""
        names: tuple[str, ...] = self.__slots__
        parts = tuple(getattr(self, name) for name in names)
        return (self.word, *parts) if parts else self.word
