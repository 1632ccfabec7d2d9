"""The fold of hard rows: record by record in the order of the log, each upon the state that the one before it left.

Pure: no clock, no I/O, no randomness. For a record at offset o

    1 parse        by `logstore.model.folding.mutation`, before anything comes here
    2 id           in the state: same content -> duplicate; other content -> invalid
    3 condition    false -> rejected, with the version that the row or the cell has
    4 operation    cannot be done -> invalid, and nothing changes
    5 write        cells with version o, row versions, older values
    6 record       the outcome under o, and the id if it is new; reached from 2 to 5 alike

All of them ask the state below o as seen at o's log time, which is the running maximum of the timestamps up to o.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from logstore.model.folding.terms import Terms
from logstore.model.hard_rows.changes import siblings
from logstore.model.hard_rows.changes.draft import COUNTER_BYTES, Draft, Stamp
from logstore.model.hard_rows.changes.edits import Edit, Infeasible, RowEdits, parse_edits
from logstore.model.hard_rows.outcomes import (
    AppliedOutcome,
    DuplicateOutcome,
    InvalidOutcome,
    Outcome,
    RejectedOutcome,
    RememberedId,
    RememberedOutcome,
    is_remembered,
)  # fmt: skip
from logstore.model.hard_rows.row import ABSENT, RowState
from logstore.model.hard_rows.rules import Rules

DECIDED = frozenset({"incr", "append", "edit"})  # operations whose outcome is always remembered
SEEN_BY = frozenset({"put", "delete"})  # operations that may say what their writer had seen

Rows = Mapping[bytes, RowState]
RowId = tuple[bytes, bytes]  # row key, id


class RowMutation(NamedTuple):
    """A mutation of a row, whatever its operation."""

    operation: str  # put, delete, incr, append, edit
    key: bytes
    value: bytes | None
    terms: Terms = Terms()
    content: bytes = b""  # digest of what it says, where it has an id

    @property
    def is_decided(self) -> bool:
        """True when its outcome is remembered."""
        return self.operation in DECIDED or self.terms.decided


class PlacedMutation(NamedTuple):
    """One mutation at its place in the log."""

    offset: int
    timestamp_ms: int
    log_time_ms: int  # the running maximum of the timestamps, this record's included
    counter: int  # outcomes that the partition has counted below it
    mutation: RowMutation


class FoldedRows(NamedTuple):
    """Rows, outcomes and ids that a run of records leaves."""

    rows: dict[bytes, RowState]  # as they are now; ABSENT where nothing is left
    outcomes: dict[int, RememberedOutcome]  # by offset
    ids: dict[RowId, RememberedId]  # those that came
    written: dict[bytes, "PlacedMutation"]  # row -> the mutation that changed it last
    invalid: list[tuple[int, str]]  # (offset, reason) of those that cannot be done, and have no id to ask by


def fold_rows(
    before: Rows, ids: Mapping[RowId, RememberedId], run: Iterable[PlacedMutation], rules: Rules
) -> FoldedRows:
    """Fold a run of records upon the rows and ids as they stand.

    `before` and `ids` hold at least what the run names and the state has, whether or not it has ended since; rows that
    are missing are absent. Requires: offsets rise, above all versions in `before`; the counters are those of the log.
    """
    folded, window = FoldedRows({}, {}, {}, {}, []), rules.window
    for step in run:
        mutation = step.mutation
        name = mutation.key, mutation.terms.id or b""
        first = None if mutation.terms.id is None else folded.ids.get(name) or ids.get(name)
        if first is not None and not is_remembered(first, step.log_time_ms, step.counter, window):
            first = None
        rows = _RowsAt(before, folded.rows, step.log_time_ms)
        outcome, changed = _repeated(first, mutation) or _decided(rows, step, rules)
        folded.rows.update(changed)
        folded.written.update(dict.fromkeys(changed, step))
        if isinstance(outcome, InvalidOutcome) and mutation.terms.id is None:
            folded.invalid.append((step.offset, outcome.reason))
        if mutation.is_decided:  # 6
            number = step.counter + 1
            folded.outcomes[step.offset] = RememberedOutcome(outcome, step.log_time_ms, number)
            if mutation.terms.id is not None and first is None:
                assert not isinstance(outcome, DuplicateOutcome), "the first of its id repeats nothing"
                folded.ids[name] = RememberedId(step.offset, mutation.content, outcome, step.log_time_ms, number)
    return folded


class _RowsAt:
    """Rows as seen at one log time."""

    def __init__(self, before: Rows, now: Rows, log_time_ms: int) -> None:
        self._before, self._now, self._log_time_ms = before, now, log_time_ms

    def __getitem__(self, key: bytes) -> RowState:
        row = self._now.get(key)
        return (self._before.get(key, ABSENT) if row is None else row).at(self._log_time_ms)


_Decision = tuple[Outcome, dict[bytes, RowState]]


def _repeated(first: RememberedId | None, mutation: RowMutation) -> _Decision | None:
    """Step 2: the outcome of a record whose id is in the state; None when it is not."""
    if first is None:
        return None
    if first.content != mutation.content:
        return InvalidOutcome("id-reused"), {}
    return DuplicateOutcome(first.first, first.outcome), {}


def _decided(rows: _RowsAt, step: PlacedMutation, rules: Rules) -> _Decision:
    """Steps 3 to 5: the outcome of a record, and the rows that it changes."""
    mutation = step.mutation
    condition = mutation.terms.condition
    if condition is not None:
        row = rows[mutation.key]
        if not row.meets(condition):
            return RejectedOutcome(row.version_of(condition.column)), {}
    try:
        return AppliedOutcome(), _changed(rows, step, rules)
    except Infeasible as why:
        return InvalidOutcome(why.reason), {}


def _changed(rows: _RowsAt, step: PlacedMutation, rules: Rules) -> dict[bytes, RowState]:
    """The rows that the record changes, as they are after it; raises Infeasible."""
    mutation = step.mutation
    stamp = Stamp(step.offset, step.timestamp_ms, step.log_time_ms, mutation.terms.ttl_ms)
    if mutation.terms.seen is not None and mutation.operation not in SEEN_BY:
        raise Infeasible("bad-seen")
    if rules.keeps_siblings and mutation.operation in SEEN_BY:
        payload = mutation.value if mutation.operation == "put" else None
        return {mutation.key: siblings.write(rows[mutation.key], payload, mutation.terms.seen, stamp, rules)}
    drafts: dict[bytes, Draft] = {}
    for key, edits in _edits(mutation, rules):
        if key not in drafts:
            drafts[key] = Draft(rows[key], stamp, rules)
        for edit in edits:
            drafts[key].edit(edit)
    return {key: draft.done() for key, draft in drafts.items()}


def _edits(mutation: RowMutation, rules: Rules) -> list[RowEdits]:
    """Edits of rows that a mutation stands for; raises Infeasible."""
    operation, key, value = mutation.operation, mutation.key, mutation.value
    if operation == "edit":
        if not rules.wide:
            raise Infeasible("not-wide")
        assert value is not None, "an edit without a value is skipped"
        return [_here(one, rules) for one in parse_edits(key, value)]
    if operation == "delete":
        return [RowEdits(key, [Edit("del-row")])]
    if value is None or (operation == "incr" and len(value) != COUNTER_BYTES):
        raise Infeasible("wrong-length")
    if operation == "incr":
        return [RowEdits(key, [Edit("incr", delta=int.from_bytes(value, signed=True))])]
    return [RowEdits(key, [Edit("set" if operation == "put" else "append", payload=value)])]


def _here(edits: RowEdits, rules: Rules) -> RowEdits:
    if not rules.place.is_here(edits.key):
        raise Infeasible("wrong-partition")
    return edits
