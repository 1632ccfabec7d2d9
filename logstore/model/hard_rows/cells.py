"""Cells: hard rows of one cell each, folded without building rows.

The short cut of `fold_rows` for tables whose rows are one value (kv tables that keep one version and no siblings), as
`fold.newest` is that of plain records: the same six steps, the same outcomes, a tenth of the time. That it is the same
is held by `tests/test_stretch.py`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from xxhash import xxh3_128_digest

from logstore.model.folding.decided import Decided, RowId
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry, encode_head
from logstore.model.folding.fold import Records
from logstore.model.folding.terms import Condition
from logstore.model.hard_rows.changes.draft import COUNTER_BYTES, end_of
from logstore.model.hard_rows.encoding import (
    APPLIED,
    became_duplicate,
    became_invalid,
    became_rejected,
    encode_became,
    id_value,
    outcome_value,
    reason_of,
)  # fmt: skip
from logstore.model.hard_rows.fold_rows import SEEN_BY, RowMutation
from logstore.model.hard_rows.outcomes import RememberedId
from logstore.model.hard_rows.rules import DedupWindow, Rules

_new = tuple.__new__  # of a NamedTuple, without a frame of its own


class _Cell(NamedTuple):
    """Value of a row, as the records so far left it."""

    version: int
    payload: bytes
    end_ms: int | None


class _First(NamedTuple):
    """First record of an id: its outcome encoded."""

    offset: int
    content: bytes
    became: bytes
    log_time_ms: int
    number: int


class _Infeasible(Exception):
    """An operation that cannot be done; its argument is the outcome, encoded."""


class CellFold:
    """Fold of the hard rows of a stretch, record by record. `rows`: their encoded entries before it."""

    def __init__(
        self, rows: Mapping[bytes, bytes], ids: Mapping[RowId, RememberedId], rules: Rules, counter: int
    ) -> None:
        self.rules, self._window = rules, rules.window
        self._cells = {key: _cell(raw) for key, raw in rows.items()}
        self._ids = {name: _First(*one[:2], encode_became(one.outcome), *one[3:]) for name, one in ids.items()}
        self.entries: dict[bytes, bytes] = {}
        self.decided = Decided({}, {}, counter)
        self.invalid: list[tuple[int, str]] = []  # (offset, reason), without an id

    def take(
        self, records: Records, indices: Sequence[int], mutations: Mapping[int, RowMutation],
        log_times_ms: Sequence[int],
    ) -> None:  # fmt: skip
        """Fold the records at these indices, which rise; those without a mutation are plain puts and deletes."""
        offsets, keys, values, timestamps_ms, _ = records
        outcomes, ids, counter, _ = self.decided
        for i in indices:
            key, offset, log_time_ms, mutation = keys[i], offsets[i], log_times_ms[i], mutations.get(i)
            assert key is not None, "a hard row has a key"
            if mutation is None:
                self._write(key, values[i], offset, timestamps_ms[i], None)
                continue
            mutation_id = mutation.terms.id
            name = None if mutation_id is None else (key, mutation_id)
            first = None if name not in self._ids else self._remembered(name, log_time_ms, counter)
            if first is None:
                became = self._decide(mutation, offset, timestamps_ms[i], log_time_ms)
            elif first.content == mutation.content:  # 2
                became = became_duplicate(first.offset, first.became)
            else:
                became = became_invalid("id-reused")
            if name is None and (reason := reason_of(became)) is not None:
                self.invalid.append((offset, reason))
            if name is None and not mutation.is_decided:
                continue
            counter += 1  # 6
            outcomes[offset] = outcome_value(counter, log_time_ms, became)
            if name is not None and first is None:
                self._ids[name] = _new(_First, (offset, mutation.content, became, log_time_ms, counter))
                ids[name] = id_value(offset, mutation.content, log_time_ms, counter)
        self.decided = Decided(outcomes, ids, counter)

    def _remembered(self, name: RowId, log_time_ms: int, counter: int) -> _First | None:
        first = self._ids.get(name)
        return None if first is None or _has_ended(first, log_time_ms, counter, self._window) else first

    def _decide(self, mutation: RowMutation, offset: int, timestamp_ms: int, log_time_ms: int) -> bytes:
        """Steps 3 to 5: the outcome of a record, encoded."""
        operation, key, value, terms, _ = mutation
        cell = self._cells.get(key)
        if cell is not None and cell.end_ms is not None and cell.end_ms <= log_time_ms:
            cell = None
        if terms.condition is not None and not _meets(cell, terms.condition):  # 3
            return became_rejected(_version_of(cell, terms.condition))
        if terms.seen is not None and operation not in SEEN_BY:
            return became_invalid("bad-seen")
        end_ms = None if terms.ttl_ms is None else end_of(log_time_ms, terms.ttl_ms)
        try:
            if operation not in SEEN_BY:  # 4
                value = self._built(operation, cell, value)
                end_ms = end_ms if terms.ttl_ms is not None or cell is None else cell.end_ms
            elif operation == "delete":
                value = None
        except _Infeasible as why:
            return bytes(why.args[0])
        if end_ms is not None and end_ms <= log_time_ms:  # a TTL of 0 deletes
            value = None
        self._write(key, value, offset, timestamp_ms, end_ms)  # 5
        return APPLIED

    def _built(self, operation: str, cell: _Cell | None, value: bytes | None) -> bytes:
        """The value that an increment or append makes of what is there; raises _Infeasible."""
        if operation == "incr":
            return _sum(cell, value)
        if operation != "append":
            raise _Infeasible(became_invalid("not-wide"))
        if value is None:
            raise _Infeasible(became_invalid("wrong-length"))
        built = value if cell is None else cell.payload + value
        if len(built) > self.rules.place.max_value_bytes:
            raise _Infeasible(became_invalid("too-large"))
        return built

    def _write(self, key: bytes, value: bytes | None, offset: int, timestamp_ms: int, end_ms: int | None) -> None:
        if value is None:
            self._cells[key] = None
            self.entries[key] = encode_head(TOMBSTONE, offset, max(timestamp_ms, 0))
            return
        self._cells[key] = _new(_Cell, (offset, value, end_ms))
        if end_ms is None:
            self.entries[key] = encode_head(VALUE, offset, max(timestamp_ms, 0)) + value
        else:
            self.entries[key] = Entry(VALUE, offset, max(timestamp_ms, 0), value, end_ms).encode()


def _cell(raw: bytes) -> _Cell | None:
    entry = Entry.decode(raw)
    return None if entry.kind == TOMBSTONE else _Cell(entry.version, entry.payload, entry.expires_ms)


def _has_ended(first: _First, log_time_ms: int, counter: int, window: DedupWindow) -> bool:
    if first.number <= counter - window.records:
        return True
    return window.ms is not None and first.log_time_ms + window.ms <= log_time_ms


def _meets(cell: _Cell | None, condition: Condition) -> bool:
    if condition.kind == "absent":
        return cell is None
    if condition.kind == "present":
        return cell is not None
    if condition.kind == "version":
        return _version_of(cell, condition) == condition.version
    return cell is not None and xxh3_128_digest(cell.payload) == condition.digest


def _version_of(cell: _Cell | None, condition: Condition) -> int | None:
    """The version of the row, or of the cell that the condition names: but for the plain one, none is ever there."""
    return cell.version if cell is not None and condition.column in (None, ("", b"")) else None


def _sum(cell: _Cell | None, value: bytes | None) -> bytes:
    """The counter after an increment; absent is 0. Raises _Infeasible."""
    if value is None or len(value) != COUNTER_BYTES or (cell is not None and len(cell.payload) != COUNTER_BYTES):
        raise _Infeasible(became_invalid("wrong-length"))
    total = (0 if cell is None else int.from_bytes(cell.payload, signed=True)) + int.from_bytes(value, signed=True)
    try:
        return total.to_bytes(COUNTER_BYTES, signed=True)
    except OverflowError:
        raise _Infeasible(became_invalid("overflow")) from None
