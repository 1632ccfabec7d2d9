"""Decided mutations: outcomes of conditional ones as nodes remember them, in the words of a history."""

from collections.abc import Callable, Sequence

from logstore.client.conditional.outcome import Outcome, outcomes_of_answer
from logstore.client.conditional.outcome_pages import LIST, list_of
from logstore.client.history.span import Decide, KeyPlace, OutcomeWords
from logstore.client.read.budget import DEADLINE_MS
from logstore.client.read.http import HttpReader
from logstore.model.errors import LogStoreError, NotRetained
from logstore.model.position import Position


class AskedOutcomes:
    """Outcomes of one key's mutations, asked of a node, many at once.

    Where it does not answer, or has forgotten, no more is asked that it would not answer either.
    """

    def __init__(self, reader: Callable[[], HttpReader], place: KeyPlace, deadline_ms: int = DEADLINE_MS) -> None:
        """`reader` is called for the first outcome; what it raises is the reason for which none is known."""
        self._reader, self._place, self._deadline_ms = reader, place, deadline_ms
        self._forgotten_to = -1  # offset up to which outcomes are not remembered any more
        self._silence: str | None = None

    def __call__(self, offsets: Sequence[int]) -> list[OutcomeWords]:
        """The outcomes of the mutations at these offsets, 1,000 at most, and the reasons."""
        wanted = [] if self._silence is not None else [one for one in offsets if one > self._forgotten_to]
        known = self._remembered(wanted) if wanted else {}
        why = self._silence or "what became of it is not remembered any more"
        return [known.get(offset, ("undecided", why)) for offset in offsets]

    def _remembered(self, offsets: Sequence[int]) -> dict[int, OutcomeWords]:
        try:
            found = self._asked(offsets)
        except LogStoreError as error:
            self._silence = f"what became of it could not be asked: {error}"
            return {}
        pairs = list(zip(offsets, found, strict=True))
        self._forgotten_to = max(self._forgotten_to, *(at for at, one in pairs if isinstance(one, NotRetained)), -1)
        return {at: _words(one) for at, one in pairs if not isinstance(one, NotRetained)}

    def _asked(self, offsets: Sequence[int]) -> Sequence[Outcome | NotRetained | None]:
        table, partition, key = self._place.table, self._place.partition, self._place.key
        position = Position.of_write(table.epoch, partition, max(offsets))
        answer = self._reader().about_row(
            table.name, key, LIST, after=position, deadline_ms=self._deadline_ms, content=list_of(partition, offsets)
        )  # fmt: skip
        return outcomes_of_answer(answer, table.epoch, partition, [(offset, b"") for offset in offsets])


def _words(outcome: Outcome | None) -> OutcomeWords:
    return ("undecided", "the node that was asked has no outcome of it") if outcome is None else words_of(outcome)


def asking(reader: Callable[[], HttpReader], deadline_ms: int = DEADLINE_MS) -> Callable[[KeyPlace], Decide]:
    """Function of a key's place that gives the outcomes of its mutations."""
    return lambda place: AskedOutcomes(reader, place, deadline_ms)


def words_of(outcome: Outcome) -> tuple[str, str | None]:
    """The outcome's word, and the reason for which it is not "applied"."""
    if outcome.outcome == "rejected":
        stood = "the row was absent" if outcome.version is None else f"the row was at version {outcome.version:,}"
        return "rejected", f"its condition did not hold: {stood}"
    if outcome.outcome == "duplicate":
        return "duplicate", f"the record at offset {outcome.first:,} has the same id, and was {outcome.first_outcome}"
    return outcome.outcome, outcome.reason
