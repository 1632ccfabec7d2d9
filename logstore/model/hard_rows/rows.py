"""Rows: hard rows of several values, folded by the definition itself (`fold_rows`), out of entries and into them."""

from collections.abc import Mapping, Sequence

from logstore.model.folding.decided import Decided, RowId
from logstore.model.folding.entry import Entry
from logstore.model.folding.fold import Records
from logstore.model.hard_rows.encoding import encode_id, encode_outcome
from logstore.model.hard_rows.fold_rows import PlacedMutation, RowMutation, fold_rows
from logstore.model.hard_rows.outcomes import RememberedId
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.rules import Rules


class RowFold:
    """Fold of the hard rows of a stretch. `rows`: their encoded entries before it."""

    def __init__(
        self, rows: Mapping[bytes, bytes], ids: Mapping[RowId, RememberedId], rules: Rules, counter: int
    ) -> None:
        self.rules, self._ids = rules, dict(ids)
        self._before = {key: unpack_row(Entry.decode(raw)) for key, raw in rows.items()}
        self.entries: dict[bytes, bytes] = {}
        self.decided = Decided({}, {}, counter)
        self.invalid: list[tuple[int, str]] = []  # (offset, reason), without an id

    def take(
        self, records: Records, indices: Sequence[int], mutations: Mapping[int, RowMutation],
        log_times_ms: Sequence[int],
    ) -> None:  # fmt: skip
        """Fold the records at these indices, which rise; those without a mutation are plain puts and deletes.

        What is taken next, by other `rules` perhaps, is folded upon them.
        """
        steps, counter = [], self.decided.counter
        for i in indices:
            mutation = mutations.get(i) or _plain(records, i)
            steps.append(
                PlacedMutation(records.offsets[i], records.timestamps_ms[i], log_times_ms[i], counter, mutation)
            )
            counter += mutation.is_decided
        folded = fold_rows(self._before, self._ids, steps, self.rules)
        self._before |= folded.rows
        self._ids |= folded.ids
        for key, row in folded.rows.items():
            last = folded.written[key]
            entry = pack_row(row, last.offset, last.timestamp_ms, wide=self.rules.wide)
            self.entries[key] = entry.encode()
        self.invalid += folded.invalid
        outcomes, ids, _, _ = self.decided
        outcomes.update((offset, encode_outcome(one)) for offset, one in folded.outcomes.items())
        ids.update((name, encode_id(one)) for name, one in folded.ids.items())
        self.decided = Decided(outcomes, ids, counter)


def _plain(records: Records, i: int) -> RowMutation:
    key, value = records.keys[i], records.values[i]
    assert key is not None, "a hard row has a key"
    return RowMutation("delete" if value is None else "put", key, value)
