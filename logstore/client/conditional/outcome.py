"""Outcome: what became of a conditional write, as its writer is told, and its form in the read API."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import NotRetained, ServerError, UsageError
from logstore.model.position import Position

Word = Literal["applied", "rejected", "invalid", "duplicate"]
_WORDS = frozenset(get_args(Word))


class Outcome(NamedTuple):
    """Outcome of a conditional write, as the log decided it; true in a condition when the write took effect.

    outcome        "applied"; "rejected": its condition did not hold; "invalid": it cannot be done; "duplicate": a
                   record with its id had been there before, and that one's outcome counts
    version        applied: the offset that wrote, which is the row's version from then on; rejected: the version that
                   the row had, None when there was none; of a duplicate, as of the first record
    reason         why it is invalid, a word
    first          the offset of the first record of its id, when it is a duplicate
    first_outcome  that one's outcome
    partition      where its record stands
    offset         and at which offset
    token          read after it, and the write is seen (`after=`)
    id             the write's own, for `outcome_of`; None where it was not asked by it
    """

    outcome: Word
    version: int | None
    reason: str | None
    first: int | None
    first_outcome: Word | None
    partition: int
    offset: int
    token: str
    id: bytes | None = None

    @property
    def applied(self) -> bool:
        """True when the write took effect, at this record or at an earlier one of the same id."""
        return "applied" in (self.outcome, self.first_outcome)

    @property
    def position(self) -> Position:
        """The token as a position, for `after`."""
        return Position.parse(self.token)

    def __bool__(self) -> bool:
        """True when the write took effect."""
        return self.applied


def outcome_of_answer(answer: HttpAnswer, name: bytes | Position | None) -> Outcome | None:
    """The outcome in an answer of the read API; None: it says that there is none. `name`: the write's id or position.

    Raises ServerError, and UsageError for the position of another table.
    """
    mutation_id = name if isinstance(name, bytes) else None
    if answer.status != 200:
        return None
    import orjson  # noqa: PLC0415 - who writes no conditions does without

    try:
        found: dict[str, Any] = orjson.loads(answer.content)
        outcome = Outcome(**{name: found[name] for name in Outcome._fields if name != "id"}, id=mutation_id)
        _check(outcome)
    except (LookupError, TypeError, ValueError) as error:
        raise _none(answer, error) from error
    if isinstance(name, Position):
        check_log(name, outcome.position)
    return outcome


def outcomes_of_answer(
    answer: HttpAnswer, epoch: str, partition: int, writes: Sequence[tuple[int, bytes]]
) -> list[Outcome | NotRetained | None]:  # fmt: skip
    """Outcomes in an answer for several records of a partition: `writes` are their offsets and ids. Raises ServerError.

    None: that record has none; NotRetained: it is older than what is remembered.
    """
    import orjson  # noqa: PLC0415 - who writes no conditions does without

    try:
        entries = orjson.loads(answer.content)["outcomes"]
        return [
            _of_entry(entry, offset, mutation_id, epoch, partition)
            for entry, (offset, mutation_id) in zip(entries, writes, strict=True)
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise _none(answer, error) from error


def _of_entry(
    entry: dict[str, Any], offset: int, mutation_id: bytes, epoch: str, partition: int
) -> Outcome | NotRetained | None:  # fmt: skip
    if entry["offset"] != offset:
        raise ValueError(f"an entry is of offset {entry['offset']!r:.80}, and not of {offset}")
    if "error" in entry:
        if entry["error"] == "not-found":
            return None
        return NotRetained(f"what became of the record at offset {offset:,} is no longer remembered")
    word, version, first = entry["outcome"], entry["version"], entry["first"]
    token = f"{epoch}-{partition}-{offset + 1}"
    outcome = Outcome(
        word, version, entry["reason"], first, entry["first_outcome"], partition, offset, token, mutation_id
    )  # fmt: skip
    if word != "applied" or version != offset or first is not None:
        _check(outcome)
    return outcome


def _none(answer: HttpAnswer, error: Exception) -> ServerError:
    return ServerError(
        f"what the server sent is no outcome of the read API: {error!s:.200}; is the URL right?", answer.status, {}
    )


def check_log(asked: Position, found: Position) -> None:
    """Raise UsageError when two positions have no log in common."""
    if not asked.pieces.keys() & found.pieces.keys():
        raise UsageError(f"the position {asked.token} is of a write to another table, or to a former one of that name")


def _check(outcome: Outcome) -> None:
    words = {outcome.outcome, *([] if outcome.first_outcome is None else [outcome.first_outcome])}
    if not words <= _WORDS or (outcome.first is None) != (outcome.outcome != "duplicate"):
        raise ValueError(f"{outcome.outcome!r:.80} is no outcome")
    numbers = [outcome.partition, outcome.offset, *(n for n in (outcome.version, outcome.first) if n is not None)]
    if any(type(number) is not int for number in numbers):
        raise TypeError("a partition, offset or version is no number")
    outcome.position  # noqa: B018 - a token that is none is a ValueError
