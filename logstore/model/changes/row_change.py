"""Row change: the decided effect of one record on a row, as the change feed delivers it.

Records that have none give no change: control records, quarantined ones, and offsets that a repair steps over. What a
record of a conditional table does is not in the record alone: its change is undecided until somebody has asked the
state (`logstore.serve.changes.decided`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from logstore.model.changes.before import DELETED, ONE_VERSION, SNAPSHOT, CellsBefore
from logstore.model.folding.fold import FoldRules, Records, odd_records
from logstore.model.folding.mutation import Delete, Headers, Put, parse
from logstore.model.folding.sibling import Ends, Value
from logstore.model.hard_rows.changes.edits import rows_named
from logstore.model.hard_rows.fold_rows import RowMutation
from logstore.model.hard_rows.parse import parse_hard
from logstore.model.hard_rows.rules import Rules
from logstore.model.key import MAX_KEY_BYTES
from logstore.model.skips import Skips, remaining
from logstore.model.wide.cell import RowCells


class RowChange(NamedTuple):
    """A row's new state: its value, siblings or cells; None: it was deleted.

    `version` is the offset of the record, `time_ms` its log time; None: the change was read from a snapshot of the
    rows, which has no time of each. `ends`: when what the row holds ends.
    """

    version: int
    key: bytes
    value: Value | RowCells | None
    time_ms: int | None
    is_decided: bool = True  # False: whether the row has changed, and to what, is for the state to say
    ends: Ends = ()
    before: CellsBefore | None = None  # of the cells that the record wrote; None: of no row one is kept

    @property
    def before_reason(self) -> str | None:
        """The reason why nothing is told of what the row was before; None: it is."""
        if self.before:
            return None
        if self.time_ms is None:
            return SNAPSHOT
        return ONE_VERSION if self.before is None and self.value is not None else DELETED


def changes_of(records: Records, rules: FoldRules, hard: Rules | None = None) -> list[RowChange]:
    """Changes that these records make, in their order. `hard`: the rules of a conditional table.

    A record that edits several rows makes several, of one version.

    Requires: they were applied, so that none stops the partition.
    """
    if not records.offsets:
        return []
    odd = odd_records(records, rules)
    if odd or (hard is not None and hard.wide):
        return _of_each(records, frozenset(odd), rules, hard)
    return list(map(RowChange, records.offsets, records.keys, records.values, records.timestamps_ms))  # type: ignore[arg-type]  # no key is None


def without_skipped(changes: list[RowChange], skips: Skips) -> list[RowChange]:
    """The changes but for those at offsets that a repair gave up."""
    rest = remaining([change.version for change in changes], skips) if skips else None
    return changes if rest is None else [changes[i] for i in rest]


def of_prefix(changes: Sequence[RowChange], prefix: bytes) -> list[RowChange]:
    """Changes of rows whose key begins with `prefix`."""
    return [change for change in changes if change.key.startswith(prefix)]


def _of_each(records: Records, odd: frozenset[int], rules: FoldRules, hard: Rules | None) -> list[RowChange]:
    found = []
    for i, (offset, key, value, time_ms, headers) in enumerate(zip(*records, strict=True)):
        if i not in odd and key is not None and not (hard is not None and hard.wide):
            found.append(RowChange(offset, key, value, time_ms))
            continue
        found += (
            _of_plain(offset, key, value, time_ms, headers or (), rules)
            if hard is None
            else _of_hard(offset, key, value, time_ms, headers or (), hard)
        )
    return found


def _of_plain(
    offset: int, key: bytes | None, value: bytes | None, time_ms: int, headers: Headers, rules: FoldRules
) -> list[RowChange]:  # fmt: skip
    mutation = parse(
        key, value, headers, max_value_bytes=rules.max_value_bytes,
        right_partition=rules.is_here,
    )  # fmt: skip
    if not isinstance(mutation, Put | Delete):
        return []
    return [RowChange(offset, mutation.key, mutation.value if isinstance(mutation, Put) else None, time_ms)]


def _of_hard(
    offset: int, key: bytes | None, value: bytes | None, time_ms: int, headers: Headers, rules: Rules
) -> list[RowChange]:  # fmt: skip
    mutation = parse_hard(key, value, headers, rules)
    if not isinstance(mutation, RowMutation):
        return []
    if mutation.is_decided or mutation.terms.ttl_ms is not None or (rules.wide and mutation.operation != "delete"):
        return [RowChange(offset, name, None, time_ms, is_decided=False) for name in _rows_of(mutation, rules)]
    stored = mutation.value if mutation.operation == "put" else None
    return [RowChange(offset, mutation.key, stored, time_ms)]


def _rows_of(mutation: RowMutation, rules: Rules) -> Sequence[bytes]:
    """Rows of this partition that a mutation may have changed: its own, and those that its edits name."""
    if mutation.operation != "edit" or mutation.value is None or not rules.multi_row:
        return (mutation.key,)
    named = dict.fromkeys([mutation.key, *rows_named(mutation.value)])
    return [name for name in named if len(name) <= MAX_KEY_BYTES and rules.place.is_here(name)]
