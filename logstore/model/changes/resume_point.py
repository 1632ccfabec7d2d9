"""Resume point: where a consumer of the change feed stands, and its text form, the id of an event.

    id = "beginning"                        before the first row of the snapshot part
       | token ";" base64url(row key)       in the snapshot part, behind that row; the tail begins at the token
       | token                              in the tail, at these positions

The token names the positions at which the first page of the snapshot part read each partition: later pages read no
older state, so whatever the pages miss stands in the log behind the token.
"""

from collections.abc import Iterable
from typing import NamedTuple

from logstore.model.errors import BadToken, UsageError
from logstore.model.key import from_base64url, to_base64url
from logstore.model.position import Position

BEGINNING, NOW = "beginning", "now"


class ResumePoint(NamedTuple):
    """A point of the feed. `scanned`: the last row of the snapshot part that was delivered; None: the tail."""

    position: Position = Position()
    scanned: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> "ResumePoint":
        """Read an id; raises BadToken when it is none."""
        if text == BEGINNING:
            return START
        token, in_snapshot, key = text.partition(";")
        try:
            return cls(Position.parse(token), from_base64url(key) if in_snapshot else None)
        except BadToken:
            raise
        except UsageError as error:
            raise BadToken(f"not an id of the change feed: {text[:80]!r}; take it as it came with an event") from error

    @property
    def text(self) -> str:
        """Text of the id."""
        if self == START:
            return BEGINNING
        return self.position.token if self.scanned is None else f"{self.position.token};{to_base64url(self.scanned)}"

    def offsets(self, epoch: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the offset at which the tail goes on; one that the token does not name begins at 0."""
        pieces = self.position.pieces
        return {partition: pieces.get((epoch, partition), 0) for partition in partitions}


START = ResumePoint(Position(), b"")
