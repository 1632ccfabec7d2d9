"""Stretch: a run of records of a conditional table, folded upon the state that it finds.

    plain records of rows that nothing hard names   the last one wins; what was there before is not looked at
    hard rows                                       all their records of the stretch in order, over the row as it stands

One record with an id among 10,000 plain ones sends only its own row the long way; what the long way needs of the state
before is looked up once for all of its rows, in key order. What stands behind a `rules` record is folded by the rules
that it names.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from logstore.model.folding.decided import Decided, RowId
from logstore.model.folding.fold import Folded, FoldRules, Records, newest, odd_records
from logstore.model.folding.mutation import RULES, Control, Quarantined, Refused
from logstore.model.hard_rows.cells import CellFold
from logstore.model.hard_rows.changes.edits import rows_named
from logstore.model.hard_rows.changes.rules_change import RulesChange, UnknownRules, change_of, unknown
from logstore.model.hard_rows.fold_rows import RowMutation
from logstore.model.hard_rows.outcomes import RememberedId
from logstore.model.hard_rows.parse import parse_hard
from logstore.model.hard_rows.rows import RowFold
from logstore.model.hard_rows.rules import Rules


class StretchStart(NamedTuple):
    """State of a partition, as far as it is not looked up, before a stretch."""

    next_offset: int
    log_time_ms: int
    counter: int  # outcomes that the partition has counted
    revision: int = 0  # of the rules that are in force


class StateBefore(Protocol):
    """State of a partition before a stretch, as far as it is looked up: what has ended may be in it or not."""

    def entries(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The encoded entries of these rows, as far as there are some; keys rise."""

    def ids(self, names: Sequence[RowId]) -> Mapping[RowId, RememberedId]:
        """Ids among these that are remembered; names rise."""


class _Parsed(NamedTuple):
    """Odd records of a stretch, by index."""

    mutations: dict[int, RowMutation]
    quarantined: list[tuple[int, str]]  # (offset, reason), rising; in the end with what could not be done
    skipped: list[int]  # indices of those that change no row
    changes: list[tuple[int, int]]  # (index, revision) of those behind which other rules are in force
    revision: int  # that is in force in the end
    refused: Refused | None = None
    awaited: str | None = None
    ends_at: int | None = None  # offset of a record that is refused, or awaited


def fold_stretch(records: Records, rules: Rules, start: StretchStart, before: StateBefore) -> Folded:
    """Fold a run of records of a conditional table into what changes. Requires as `fold_batch`."""
    if not records.offsets:
        decided = Decided({}, {}, start.counter, start.revision)
        return Folded(start.next_offset, start.log_time_ms, {}, [], None, decided)
    assert records.offsets[0] >= start.next_offset, "offset is next when applying"
    odd = odd_records(records, rules.place)
    parsed, records = _parse(records, odd, rules, start)
    hard_keys = _hard_keys(records, parsed, rules)
    if not hard_keys:
        plain = records.without(parsed.skipped) if parsed.skipped else records
        return _folded(records, start, newest(plain), parsed, Decided({}, {}, start.counter))
    skipped, keys = set(parsed.skipped), records.keys
    indices = [i for i, key in enumerate(keys) if key in hard_keys and i not in skipped]
    kind = RowFold if rules.wide or rules.keeps_siblings else CellFold
    fold = kind(before.entries(sorted(hard_keys)), before.ids(_names(parsed)), rules, start.counter)
    log_times = _log_times(records, start)
    for revision, some in _by_rules(indices, parsed.changes, start.revision):
        fold.rules = rules.at(revision)
        fold.take(records, some, parsed.mutations, log_times)
    entries = newest(records.without(sorted([*indices, *parsed.skipped])))
    parsed.quarantined[:] = sorted([*parsed.quarantined, *fold.invalid])
    return _folded(records, start, entries | fold.entries, parsed, fold.decided)


def _by_rules(
    indices: Sequence[int], changes: Sequence[tuple[int, int]], revision: int
) -> Iterable[tuple[int, Sequence[int]]]:
    """Indices with the revision by which they are folded: `revision` up to the first change."""
    begun = 0
    for at, following in changes:
        upto = bisect_left(indices, at)
        yield revision, indices[begun:upto]
        begun, revision = upto, following
    yield revision, indices[begun:]


def _hard_keys(records: Records, parsed: _Parsed, rules: Rules) -> set[bytes]:
    """Rows that are folded over what they were: in a wide table all of them."""
    named = {key for mutation in parsed.mutations.values() for key in _rows_of(mutation)}
    if not rules.wide:
        return named
    skipped = set(parsed.skipped)
    return named.union(key for i, key in enumerate(records.keys) if key and i not in skipped)


def _rows_of(mutation: RowMutation) -> Iterable[bytes]:
    if mutation.operation != "edit" or mutation.value is None:
        return (mutation.key,)
    return (mutation.key, *rows_named(mutation.value))


def _folded(
    records: Records, start: StretchStart, entries: dict[bytes, bytes], parsed: _Parsed, decided: Decided
) -> Folded:
    offsets = records.offsets
    log_time_ms = max(start.log_time_ms, 0, *records.timestamps_ms)
    following = offsets[-1] + 1 if parsed.ends_at is None else parsed.ends_at
    decided = decided._replace(revision=parsed.revision)
    return Folded(following, log_time_ms, entries, parsed.quarantined, parsed.refused, decided, parsed.awaited)


def _parse(records: Records, odd: Sequence[int], rules: Rules, start: StretchStart) -> tuple[_Parsed, Records]:
    """Odd records, and all records below the first one that stops the partition, or has it wait."""
    parsed = _Parsed({}, [], [], [], start.revision)
    if start.revision and start.revision not in rules.revisions:
        return parsed._replace(awaited=unknown(start.revision), ends_at=start.next_offset), records.slice(0, 0)
    _, keys, values, _, headers = records
    for i, is_here in zip(odd, _are_here(records, odd, rules.place), strict=True):
        found = parse_hard(keys[i], values[i], headers[i] or (), rules, is_here=is_here)
        if isinstance(found, RowMutation):
            parsed.mutations[i] = found
            continue
        means = change_of(values[i], rules, parsed.revision) if found == Control(RULES) else found
        if isinstance(means, Refused):
            return parsed._replace(refused=means, ends_at=records.offsets[i]), records.slice(0, i)
        if isinstance(means, UnknownRules):
            return parsed._replace(awaited=means.why, ends_at=records.offsets[i]), records.slice(0, i)
        if isinstance(means, RulesChange):
            parsed = parsed._replace(revision=means.revision)
            parsed.changes.append((i, means.revision))
        parsed.skipped.append(i)
        if isinstance(means, Quarantined):
            parsed.quarantined.append((records.offsets[i], means.reason))
    return parsed, records


def _are_here(records: Records, indices: Sequence[int], place: FoldRules) -> Sequence[bool]:
    """True for each of these records whose key belongs to the partition."""
    keys = [records.keys[i] or b"-" for i in indices]
    return list(place.are_here(keys).tolist())


def _log_times(records: Records, start: StretchStart) -> list[int]:
    """The log time of each record, its own timestamp included."""
    return list(accumulate(records.timestamps_ms, max, initial=max(start.log_time_ms, 0)))[1:]


def _names(parsed: _Parsed) -> list[RowId]:
    named = ((mutation.key, mutation.terms.id) for mutation in parsed.mutations.values())
    return sorted({(key, id) for key, id in named if id is not None})  # noqa: A001 - as the header is called
