"""Archived decisions: what the records of a conditional table did, by the fold of its archive from offset 0 on.

    archive ─> run by run through the fold ─> scratch view         rows, outcomes and ids as they stand behind a run
                       └─> rows that a run changed, each as its last record there left it, from `start` on

What a record did depends on all that came before it, so all of the archive is folded, whatever is wanted of it; memory
is bounded by a run. Of a row that changes several times within a run the last change is there, as in the change feed.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from logstore.model.changes.before import before_of, several_versions
from logstore.model.changes.held import held_at
from logstore.model.changes.row_change import RowChange
from logstore.model.errors import NotYet, Unsupported
from logstore.model.folding.entry import Entry
from logstore.model.folding.fold import Folded, Records
from logstore.model.hard_rows.rules import rules_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.model.skips import remaining
from logstore.model.table import Table
from logstore.view.conditional.state_before import ViewState
from logstore.view.view import View, ViewIdentity


def decided_runs(
    table: Table, partition: int, records: Iterable[Records], start: int
) -> Iterator[tuple[list[RowChange], int]]:
    """Changes at `start` and behind it, run by run, each with the offset behind it.

    Requires: `records` are all of the partition, from offset 0 on, in the order of the log. Raises Unsupported, NotYet
    for a record that this build, or this definition, cannot fold.
    """
    skips, several = table.skips.get(partition, ()), several_versions(table)
    with tempfile.TemporaryDirectory(prefix="logstore-changes-") as scratch:
        view = View(Path(scratch, "view"), ViewIdentity.of(table, partition))
        try:
            for run in records:
                following = run.offsets[-1] + 1
                rest = remaining(run.offsets, skips)
                folded = _folded(table, partition, view, run if rest is None else run.pick(rest))
                if following > start:
                    yield _changes(folded, max(start, run.offsets[0]), several), following
        finally:
            view.close(flush=False)


def _folded(table: Table, partition: int, view: View, run: Records) -> Folded:
    before = StretchStart(view.next_offset, view.state.log_time_ms, view.counter, view.revision)
    folded = fold_stretch(run, rules_of(table, partition), before, ViewState(view.reader(), lambda: None))
    if folded.refused is not None:
        raise Unsupported(folded.refused.advice(table.name, partition, folded.next_offset))
    if folded.awaited is not None:
        raise NotYet(f"{table.name}/{partition}: {folded.awaited}; ask again")
    view.apply(folded._replace(quarantined=[]))
    return folded


def _changes(folded: Folded, start: int, several: dict[str, int]) -> list[RowChange]:
    found = []
    for key, raw in folded.entries.items():
        entry = Entry.decode(raw)
        if entry.version >= start:
            held, ends = held_at(entry, folded.log_time_ms)
            before = before_of(entry, several, folded.log_time_ms)
            found.append(RowChange(entry.version, key, held, entry.timestamp_ms, ends=ends, before=before))
    return sorted(found, key=lambda change: change.version)
