"""Change buffer: entries the lane writes while a partition's next generation is built, handed over at the flip."""

from logstore.model.folding.decided import Decided
from logstore.model.folding.fold import Folded
from logstore.view.conditional.decisions import size_of
from logstore.view.layout import State

LIMIT_BYTES = 64 << 20
_OVERHEAD = 200  # bytes of a dictionary's slot and two byte strings


class ChangeBuffer:
    """The newest entry of every row that was changed since, and what was skipped.

    `over` when that was too much to hold.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes, self._size_bytes = limit_bytes, 0
        self._entries: dict[bytes, bytes] = {}
        self._quarantined: list[tuple[int, str]] = []
        self._decided: Decided | None = None
        self.over = False

    def add(self, folded: Folded) -> None:
        """Take in one commit."""
        if self.over:
            return
        self._entries.update(folded.entries)
        self._quarantined += folded.quarantined
        self._size_bytes += sum(len(key) + len(entry) + _OVERHEAD for key, entry in folded.entries.items())
        self._size_bytes += _OVERHEAD * len(folded.quarantined)
        if folded.decided is not None:
            self._size_bytes += self._join(folded.decided)
        if self._size_bytes > self._limit_bytes:
            self.over, self._entries, self._quarantined, self._decided = True, {}, [], None

    def _join(self, decided: Decided) -> int:
        """Add what was decided; returns the bytes that it takes."""
        before = self._decided or Decided({}, {}, 0)
        before.outcomes.update(decided.outcomes)
        before.ids.update(decided.ids)
        self._decided = before._replace(counter=decided.counter, revision=decided.revision)
        return size_of(decided).bytes + _OVERHEAD * (len(decided.outcomes) + len(decided.ids))

    def since(self, position: int, upto: State) -> Folded:
        """Commit that brings a view from `position` to `upto`.

        Requires: `position` is not before the buffer was begun.
        """
        skipped = [item for item in self._quarantined if item[0] >= position]
        return Folded(upto.next_offset, upto.log_time_ms, self._entries, skipped, None, self._decided)
