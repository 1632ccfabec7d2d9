"""Position: how far a log has come, and its text form, the token.

    token = piece *("," piece)
    piece = <epoch>-<partition>-<next offset>        epoch: the Kafka topic id as 32 lower-case hex digits
          | t<milliseconds>                          an instant at which rows were seen: nothing un-expires behind it

A position maps (epoch, partition) to the next offset; positions merge by taking the greater one of each piece, so they
form a join-semilattice (a vector clock over partitions: Fidge 1988, Mattern 1989). The token of one write is its offset
plus one.
"""

import re
from collections.abc import Iterable, Mapping
from operator import index
from types import MappingProxyType
from typing import SupportsIndex, TypeGuard

from logstore.model.errors import BadToken, UsageError

_PIECE = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,18})", re.ASCII)
_INSTANT = re.compile(r"t(0|[1-9][0-9]{0,18})", re.ASCII)
_EPOCH = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MAX_OFFSET = 2**63 - 1
_MAX_PARTITION = 2**31 - 1
MAX_TOKEN_BYTES = 96 * 1024  # 2,000 pieces or more; HTTP clients take an answer's headers up to 100 KiB


class Position:
    """An immutable position of one or several logs. Compare with `covers`, merge with `|`, print with `token`."""

    __slots__ = ("_pieces", "_time_ms")

    def __init__(self, pieces: Mapping[tuple[str, int], int] | None = None, *, time_ms: int = 0) -> None:
        """`pieces` maps (epoch, partition) to the next offset; `time_ms`: the latest instant of what was seen, 0: none.

        Raises UsageError when they are no such mapping and instant.
        """
        if pieces is not None and not (
            isinstance(pieces, Mapping) and all(_is_piece(where, following) for where, following in pieces.items())
        ):
            raise UsageError("the pieces of a position map (epoch as 32 hex digits, partition) to the next offset")
        if type(time_ms) is not int or not 0 <= time_ms <= _MAX_OFFSET:
            raise UsageError(f"an instant is a number of milliseconds since 1970, not {time_ms!r:.60}")
        self._pieces = MappingProxyType(dict(pieces or {}))
        self._time_ms = time_ms

    @classmethod
    def _of(cls, pieces: dict[tuple[str, int], int], time_ms: int = 0) -> "Position":
        """A position of pieces that are right."""
        made = cls.__new__(cls)
        made._pieces, made._time_ms = MappingProxyType(pieces), time_ms
        return made

    @classmethod
    def of_write(cls, epoch: str, partition: int, offset: int) -> "Position":
        """The position right after the record at `offset`."""
        if not _is_piece((epoch, partition), offset):
            raise UsageError(
                f"no write has the position {epoch!r}, {partition!r}, {offset!r}: an epoch has 32 hex digits"
            )
        return cls._of({(epoch, partition): offset + 1})

    @classmethod
    def parse(cls, token: str) -> "Position":
        """Read a token; raises BadToken when it is not one."""
        if type(token) is not str:
            raise BadToken(f"a token is text, not {type(token).__name__}")
        if len(token) > MAX_TOKEN_BYTES:
            raise BadToken(f"a token has at most {MAX_TOKEN_BYTES:,} characters, this one has {len(token):,}")
        pieces: dict[tuple[str, int], int] = {}
        time_ms = 0
        for text in token.split(","):
            match = _PIECE.fullmatch(text.strip(" "))
            instant = _INSTANT.fullmatch(text.strip(" ")) if match is None else None
            if instant is not None and int(instant[1]) <= _MAX_OFFSET:
                time_ms = max(time_ms, int(instant[1]))
                continue
            if match is None or int(match[3]) > _MAX_OFFSET or int(match[2]) > _MAX_PARTITION:
                raise BadToken(
                    f"not a token: {text[:80]!r}; a piece is <32 hex digits>-<partition>-<next offset>, pieces are "
                    "joined by commas"
                )
            where = match[1], int(match[2])
            pieces[where] = max(pieces.get(where, 0), int(match[3]))
        return cls._of(pieces, time_ms)

    @property
    def time_ms(self) -> int:
        """The latest instant at which rows that may expire were seen, milliseconds since 1970; 0: none were."""
        return self._time_ms

    @property
    def pieces(self) -> Mapping[tuple[str, int], int]:
        """Next offsets by (epoch, partition)."""
        return self._pieces

    @property
    def token(self) -> str:
        """The text form, pieces in order."""
        pieces = [f"{epoch}-{partition}-{following}" for (epoch, partition), following in sorted(self._pieces.items())]
        return ",".join([*pieces, f"t{self._time_ms}"] if self._time_ms else pieces)

    @property
    def partition(self) -> int:
        """The partition of a write's position. Raises UsageError when there are several pieces, or none."""
        return self._only()[0][1]

    @property
    def offset(self) -> int:
        """The offset of the record that a write's position stands behind. Raises UsageError as `partition`."""
        return self._only()[1] - 1

    def _only(self) -> tuple[tuple[str, int], int]:
        if len(self._pieces) != 1:
            raise UsageError(
                f"only the position of one write has a partition and an offset; this has {len(self._pieces)}"
            )
        return next(iter(self._pieces.items()))

    def covers(self, other: "Position") -> bool:
        """True when everything `other` has seen has been seen here."""
        seen = _checked(other)
        reached = all(self._pieces.get(where, 0) >= following for where, following in seen.pieces.items())
        return reached and self._time_ms >= seen.time_ms

    def merge(self, others: "Iterable[Position]") -> "Position":
        """The least position that covers this one and all `others`."""
        pieces, time_ms = dict(self._pieces), self._time_ms
        if isinstance(others, (str, bytes, Mapping)) or not isinstance(others, Iterable):
            raise UsageError(f"merge takes several positions, not {type(others).__name__}")
        for other in others:
            time_ms = max(time_ms, _checked(other).time_ms)
            for where, following in other.pieces.items():
                pieces[where] = max(pieces.get(where, 0), following)
        return Position._of(pieces, time_ms)

    def __or__(self, other: "Position") -> "Position":
        return self.merge((other,)) if isinstance(other, Position) else NotImplemented

    def __bool__(self) -> bool:
        return bool(self._pieces) or self._time_ms > 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and (self._pieces, self._time_ms) == (other._pieces, other._time_ms)

    def __hash__(self) -> int:
        return hash((frozenset(self._pieces.items()), self._time_ms))

    def __str__(self) -> str:
        return self.token

    def __repr__(self) -> str:
        return f"Position({self.token!r})"


def _is_piece(where: object, following: object) -> bool:
    return (
        isinstance(where, tuple)
        and len(where) == 2
        and isinstance(where[0], str)
        and _EPOCH.fullmatch(where[0]) is not None
        and _is_integer(where[1])
        and 0 <= index(where[1]) <= _MAX_PARTITION
        and _is_integer(following)
        and 0 <= index(following) <= _MAX_OFFSET
    )


def _is_integer(number: object) -> TypeGuard[SupportsIndex]:
    """True for an int, and one of numpy; a protocol is asked last: that is slow, and every answer has a position."""
    return type(number) is int or (isinstance(number, SupportsIndex) and not isinstance(number, bool))


def _checked(position: object) -> Position:
    if not isinstance(position, Position):
        raise UsageError(f"a position is wanted, not {type(position).__name__}; Position.parse reads a token")
    return position
