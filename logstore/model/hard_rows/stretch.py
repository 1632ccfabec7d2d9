"""Stretch: a run of records of a conditional table, folded upon the state that it finds.

    plain records of rows that nothing hard names   the last one wins; what was there before is not looked at
    hard rows                                       all their records of the stretch in order, over the row as it stands

One record with an id among 10,000 plain ones sends only its own row the long way; what the long way needs of the state
before is looked up once for all of its rows, in key order.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from logstore.model.folding.decided import Decided, RowId
from logstore.model.folding.digest import TOMBSTONES
from logstore.model.folding.entry import TOMBSTONE, Entry
from logstore.model.folding.fold import Folded, Records, newest, odd_records
from logstore.model.folding.mutation import RULES, Control, Quarantined, Refused
from logstore.model.hard_rows.encoding import encode_id, encode_outcome
from logstore.model.hard_rows.fold_rows import PlacedMutation, RowMutation, fold_rows
from logstore.model.hard_rows.outcomes import RememberedId
from logstore.model.hard_rows.parse import parse_hard
from logstore.model.hard_rows.row import PLAIN_COLUMN, CellState, RowState
from logstore.model.hard_rows.rules import DEFAULT_GROUP, Rules


class StretchStart(NamedTuple):
    """State of a partition, as far as it is not looked up, before a stretch."""

    next_offset: int
    log_time_ms: int
    counter: int  # outcomes that the partition has counted


class StateBefore(Protocol):
    """State of a partition before a stretch, as far as it is looked up: what has ended may be in it or not."""

    def entries(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The encoded entries of these rows, as far as there are some; keys rise."""

    def ids(self, names: Sequence[RowId]) -> Mapping[RowId, RememberedId]:
        """Ids among these that are remembered; names rise."""


class _Parsed(NamedTuple):
    """Odd records of a stretch, by index."""

    mutations: dict[int, RowMutation]
    quarantined: list[tuple[int, str]]  # (offset, reason)
    skipped: list[int]  # indices of those that change no row
    refused: Refused | None = None
    refused_at: int | None = None  # its offset


def fold_stretch(records: Records, rules: Rules, start: StretchStart, before: StateBefore) -> Folded:
    """Fold a run of records of a conditional table into what changes. Requires as `fold_batch`."""
    if not records.offsets:
        return Folded(start.next_offset, start.log_time_ms, {}, [], None, Decided({}, {}, start.counter))
    assert records.offsets[0] >= start.next_offset, "offset is next when applying"
    odd = odd_records(records, rules.place)
    parsed, records = _parse(records, odd, rules)
    hard_keys = {mutation.key for mutation in parsed.mutations.values()}
    if not hard_keys:
        plain = records.without(parsed.skipped) if parsed.skipped else records
        return _folded(records, start, newest(plain), parsed, Decided({}, {}, start.counter))
    steps = list(_steps(records, parsed, hard_keys, start))
    folded = fold_rows(_rows(before, hard_keys), before.ids(_names(parsed)), steps, rules)
    by_index = {step.offset for step in steps}
    left_out = [i for i, offset in enumerate(records.offsets) if offset in by_index]
    entries = newest(records.without(sorted([*left_out, *parsed.skipped])))
    for key, step in folded.written.items():
        entries[key] = _encoded(folded.rows[key], step)
    decided = Decided(
        {offset: encode_outcome(one) for offset, one in folded.outcomes.items()},
        {name: encode_id(one) for name, one in folded.ids.items()},
        start.counter + len(folded.outcomes),
    )
    return _folded(records, start, entries, parsed, decided)


def _folded(
    records: Records, start: StretchStart, entries: dict[bytes, bytes], parsed: _Parsed, decided: Decided
) -> Folded:
    offsets = records.offsets
    log_time_ms = max(start.log_time_ms, 0, *records.timestamps_ms)
    following = offsets[-1] + 1 if parsed.refused_at is None else parsed.refused_at
    return Folded(following, log_time_ms, entries, parsed.quarantined, parsed.refused, decided)


def _parse(records: Records, odd: Sequence[int], rules: Rules) -> tuple[_Parsed, Records]:
    """Odd records, and all records below the first one that stops the partition."""
    parsed = _Parsed({}, [], [])
    for i in odd:
        found = _mutation(records, i, rules)
        if isinstance(found, Refused):
            return parsed._replace(refused=found, refused_at=records.offsets[i]), records.slice(0, i)
        if isinstance(found, RowMutation):
            parsed.mutations[i] = found
            continue
        parsed.skipped.append(i)
        if isinstance(found, Quarantined):
            parsed.quarantined.append((records.offsets[i], found.reason))
    return parsed, records


def _mutation(records: Records, i: int, rules: Rules) -> RowMutation | Control | Quarantined | Refused:
    found = parse_hard(records.keys[i], records.values[i], records.headers[i] or (), rules)
    if found == Control(RULES):
        return Refused(f"the operation {RULES!r} needs a later build")
    if isinstance(found, RowMutation) and found.terms.ttl_ms is not None:
        return Refused("the header ls.ttl needs a later build")
    return found


def _steps(records: Records, parsed: _Parsed, hard_keys: set[bytes], start: StretchStart) -> Iterator[PlacedMutation]:
    """Every mutation of the hard rows, plain ones too, at its place in the log."""
    counter, skipped = start.counter, set(parsed.skipped)
    log_times = accumulate(records.timestamps_ms, max, initial=max(start.log_time_ms, 0))
    next(log_times)
    for i, (key, log_time_ms) in enumerate(zip(records.keys, log_times, strict=True)):
        if key not in hard_keys or i in skipped or key is None:
            continue
        mutation = parsed.mutations.get(i) or _plain(key, records.values[i])
        yield PlacedMutation(records.offsets[i], records.timestamps_ms[i], log_time_ms, counter, mutation)
        counter += mutation.is_decided


def _plain(key: bytes, value: bytes | None) -> RowMutation:
    return RowMutation("delete" if value is None else "put", key, value)


def _names(parsed: _Parsed) -> list[RowId]:
    named = ((mutation.key, mutation.terms.id) for mutation in parsed.mutations.values())
    return sorted({(key, id) for key, id in named if id is not None})  # noqa: A001 - as the header is called


def _rows(before: StateBefore, keys: set[bytes]) -> dict[bytes, RowState]:
    found = before.entries(sorted(keys))
    return {key: _row(Entry.decode(raw)) for key, raw in found.items() if raw[0] not in TOMBSTONES}


def _row(entry: Entry) -> RowState:
    return RowState({PLAIN_COLUMN: CellState(entry.version, (entry,))}, {DEFAULT_GROUP: entry.version})


def _encoded(row: RowState, step: PlacedMutation) -> bytes:
    """The entry of a row of one cell after `step`, which changed it last."""
    if not row.cells:
        return Entry(TOMBSTONE, step.offset, max(step.timestamp_ms, 0)).encode()
    (entry,) = row.cells[PLAIN_COLUMN].members
    return entry.encode()
