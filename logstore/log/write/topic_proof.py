"""Proof that the topic of a table is still the one that its definition names."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from logstore.model.errors import EpochChanged, LogUnreachable, Unknown
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.model.table import Table

PROVE_EVERY_S = 1.0
PROVE_S = 10.0  # for Kafka to name a topic's id
_LEAST_S = 0.2  # for the same, where a deadline has passed: it has just acknowledged


class TopicProof:
    """Proof that acknowledged writes are in the log of their table. Thread-safe.

    Kafka's client knows a topic by its name. One that somebody deletes and makes again takes what was meant for the
    former one, and acknowledges it. An id is never given twice: a topic that still has its id had it when all that was
    written before was acknowledged. So it is asked for behind a write, once a second while there are any, and whenever
    an offset is not above all that were acknowledged when the write began.
    """

    def __init__(self, topic_id: Callable[[str, float], str | None]) -> None:
        """`topic_id` asks Kafka, for so many seconds; None where there is no such topic. It raises LogUnreachable."""
        self._topic_id = topic_id
        self._ends: dict[str, dict[int, int]] = {}  # by epoch: partition -> end of what was acknowledged
        self._proved_s: dict[str, float] = {}  # by epoch

    def check(self, table: "Table", timeout_s: float = PROVE_S) -> None:
        """Prove it before anything is written. Raises EpochChanged, LogUnreachable."""
        asked_s, found = monotonic(), self._topic_id(table.topic, timeout_s)
        if found != table.epoch:
            raise EpochChanged(_other(table, found))
        self._proved_s[table.epoch] = asked_s

    def ends(self, epoch: str) -> Mapping[int, int]:
        """Ends of what is acknowledged by now, for `is_due` of a write that begins."""
        return self._ends.get(epoch, {}).copy()

    def is_due(self, epoch: str, position: Position | None = None, before: Mapping[int, int] | None = None) -> bool:
        """True when the id has to be asked for; takes note of what was acknowledged."""
        doubtful = False
        if position is not None and before is not None:
            known = self._ends.setdefault(epoch, {})
            for (_, partition), following in position.pieces.items():
                doubtful = doubtful or following <= before.get(partition, 0)
                known[partition] = max(known.get(partition, 0), following)
        return doubtful or monotonic() - self._proved_s.get(epoch, 0.0) > PROVE_EVERY_S

    def prove(self, table: "Table", end: float | None = None) -> None:
        """Raise Unknown when the topic is another one than the table's: what was acknowledged may be in that one.

        `end`: monotonic seconds, after which there is little more time to ask.
        """
        try:
            self.check(table, PROVE_S if end is None else min(PROVE_S, max(_LEAST_S, end - monotonic())))
        except LogUnreachable:
            return  # it answered a moment ago, when it acknowledged: the next write asks again
        except EpochChanged as error:
            self._proved_s.pop(table.epoch, None)
            raise Unknown(f"the write was acknowledged, and may be in another log by now: {error}") from error


def _other(table: "Table", found: str | None) -> str:
    if found is None:
        return f"the topic {table.topic} of table {table.name} is gone; `logstore doctor` compares both"
    return (
        f"the topic {table.topic} of table {table.name} was deleted and made again by somebody else (its id is {found} "
        f"now); `logstore table repair {table.name} --new-epoch` accepts it as it is"
    )
