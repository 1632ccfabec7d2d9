"""Decisions of a partition in memory: outcomes and ids of its conditional writes, by the fold of the real store."""

from collections.abc import Callable

from logstore.client.conditional.outcome import Outcome
from logstore.model.errors import NotRetained
from logstore.model.folding.entry import Entry
from logstore.model.folding.mutation import Headers
from logstore.model.hard_rows.changes.edits import rows_named
from logstore.model.hard_rows.fold_rows import PlacedMutation, RowId, RowMutation, fold_rows
from logstore.model.hard_rows.outcome_facts import facts_of
from logstore.model.hard_rows.outcomes import RememberedId, RememberedOutcome, is_remembered
from logstore.model.hard_rows.packed import pack_row, unpack_row
from logstore.model.hard_rows.parse import parse_hard
from logstore.model.hard_rows.rules import rules_of
from logstore.model.table import Table


class MemoryDecisions:
    """Outcomes and ids of one partition of a conditional table."""

    def __init__(self, table: Table, number: int) -> None:
        self._number, self._rules = number, rules_of(table, number)
        self._outcomes: dict[int, RememberedOutcome] = {}
        self._ids: dict[RowId, RememberedId] = {}
        self._counter = self._log_time_ms = 0

    def change_rules(self, table: Table, revision: int, timestamp_ms: int) -> None:
        """Go on by the rules of a revision, from a record with this timestamp on."""
        self._rules = rules_of(table, self._number).at(revision)
        self._log_time_ms = max(self._log_time_ms, timestamp_ms)

    def decide(
        self, offset: int, timestamp_ms: int, key: bytes, value: bytes | None, headers: Headers,
        before: Callable[[bytes], Entry | None],
    ) -> dict[bytes, Entry]:  # fmt: skip
        """Entries of the rows that the record at `offset` changes. `before`: what a row held, if anything."""
        mutation = parse_hard(key, value, headers, self._rules)
        assert isinstance(mutation, RowMutation), "the client's own checks let nothing else through"
        self._log_time_ms = max(self._log_time_ms, timestamp_ms)
        step = PlacedMutation(offset, timestamp_ms, self._log_time_ms, self._counter, mutation)
        named = [key, *(rows_named(value) if mutation.operation == "edit" and value is not None else ())]
        rows = {name: unpack_row(entry) for name in named if (entry := before(name)) is not None}
        folded = fold_rows(rows, self._ids, [step], self._rules)
        self._outcomes |= folded.outcomes
        self._ids |= folded.ids
        self._counter += len(folded.outcomes)
        return {
            name: pack_row(row, offset, timestamp_ms, wide=self._rules.wide) for name, row in folded.rows.items()
        }  # fmt: skip

    def outcome(self, offset: int, token: str, mutation_id: bytes | None) -> Outcome:
        """Outcome of the record at `offset`, which has been decided."""
        found = self._outcomes[offset].outcome
        return Outcome(**facts_of(found, offset), partition=self._number, offset=offset, token=token, id=mutation_id)  # type: ignore[arg-type]  # words of facts_of are those of Outcome

    def outcome_at(self, offset: int, token: str) -> Outcome | None:
        """Outcome of the record at `offset`; None when it is one without. Raises NotRetained past its window."""
        found = self._outcomes.get(offset)
        if found is None:
            return None
        if not is_remembered(found, self._log_time_ms, self._counter, self._rules.window):
            raise NotRetained(f"the outcome of the record at offset {offset:,} is no longer remembered")
        return self.outcome(offset, token, None)

    def first_of(self, key: bytes, mutation_id: bytes, token: str) -> Outcome | None:
        """Outcome of the first record of an id; None when none is remembered."""
        found = self._ids.get((key, mutation_id))
        if found is None or not is_remembered(found, self._log_time_ms, self._counter, self._rules.window):
            return None
        return self.outcome(found.first, token, mutation_id)
