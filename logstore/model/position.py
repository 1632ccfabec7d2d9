"""Position: how far a log has come, and its text form, the token.

    token = piece *("," piece)
    piece = <epoch>-<partition>-<next offset>        epoch: the Kafka topic id as 32 lower-case hex digits

A position maps (epoch, partition) to the next offset; positions merge by taking the greater one of each piece, so they
form a join-semilattice (a vector clock over partitions: Fidge 1988, Mattern 1989). The token of one write is its offset
plus one.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from logstore.model.errors import BadToken

_PIECE = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,18})", re.ASCII)
_MAX_OFFSET = 2**63 - 1
_MAX_PARTITION = 2**31 - 1
MAX_TOKEN_BYTES = 96 * 1024  # 2,000 pieces or more; HTTP clients take an answer's headers up to 100 KiB


class Position:
    """An immutable position of one or several logs. Compare with `covers`, merge with `|`, print with `token`."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Mapping[tuple[str, int], int] | None = None) -> None:
        """`pieces` maps (epoch, partition) to the next offset."""
        self._pieces = MappingProxyType(dict(pieces or {}))

    @classmethod
    def of_write(cls, epoch: str, partition: int, offset: int) -> "Position":
        """The position right after the record at `offset`."""
        return cls({(epoch, partition): offset + 1})

    @classmethod
    def parse(cls, token: str) -> "Position":
        """Read a token; raises BadToken when it is not one."""
        if len(token) > MAX_TOKEN_BYTES:
            raise BadToken(f"a token has at most {MAX_TOKEN_BYTES:,} characters, this one has {len(token):,}")
        pieces: dict[tuple[str, int], int] = {}
        for text in token.split(","):
            match = _PIECE.fullmatch(text.strip(" "))
            if match is None or int(match[3]) > _MAX_OFFSET or int(match[2]) > _MAX_PARTITION:
                raise BadToken(
                    f"not a token: {text[:80]!r}; a piece is <32 hex digits>-<partition>-<next offset>, pieces are "
                    "joined by commas"
                )
            where = match[1], int(match[2])
            pieces[where] = max(pieces.get(where, 0), int(match[3]))
        return cls(pieces)

    @property
    def pieces(self) -> Mapping[tuple[str, int], int]:
        """(epoch, partition) -> next offset."""
        return self._pieces

    @property
    def token(self) -> str:
        """The text form, pieces in order."""
        return ",".join(
            f"{epoch}-{partition}-{following}" for (epoch, partition), following in sorted(self._pieces.items())
        )

    @property
    def partition(self) -> int:
        """The partition of a write's position. Requires: one piece."""
        ((_, partition),) = self._pieces
        return partition

    @property
    def offset(self) -> int:
        """The offset of the record that a write's position stands behind. Requires: one piece."""
        (following,) = self._pieces.values()
        return following - 1

    def covers(self, other: "Position") -> bool:
        """True when everything `other` has seen has been seen here."""
        return all(self._pieces.get(where, 0) >= following for where, following in other.pieces.items())

    def merge(self, others: "Iterable[Position]") -> "Position":
        """The least position that covers this one and all `others`."""
        pieces = dict(self._pieces)
        for other in others:
            for where, following in other.pieces.items():
                pieces[where] = max(pieces.get(where, 0), following)
        return Position(pieces)

    def __or__(self, other: "Position") -> "Position":
        return self.merge((other,))

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and self._pieces == other._pieces

    def __hash__(self) -> int:
        return hash(frozenset(self._pieces.items()))

    def __str__(self) -> str:
        return self.token

    def __repr__(self) -> str:
        return f"Position({self.token!r})"
