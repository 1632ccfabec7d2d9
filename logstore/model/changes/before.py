"""Earlier values: those that the cells a record wrote had below it, where their versions hold them.

reason          nothing is told of
snapshot        a row of the snapshot part: no record is told there
one-version     a row, or a cell, of which one version is kept
deleted         a record that only deleted: what it deleted is not kept
none-held       a cell that is new, or whose value before was deleted, trimmed or has ended
"""

from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from logstore.model.folding.entry import CELLS, Entry
from logstore.model.table import Table
from logstore.model.wide.cell import PackedCells, WideCell
from logstore.model.wide.selection import CellSelection

SNAPSHOT, ONE_VERSION, DELETED, NONE_HELD = "snapshot", "one-version", "deleted", "none-held"
_TWO = CellSelection(versions=2)
_column = itemgetter(0, 1)


class CellBefore(NamedTuple):
    """Value that a cell had before a record wrote it; None: `reason` says why none is told."""

    family: str
    qualifier: bytes
    cell: WideCell | None
    reason: str | None = None


CellsBefore = tuple[CellBefore, ...]


def several_versions(table: Table) -> dict[str, int]:
    """Family -> the versions that its cells keep, of families that keep several."""
    versions = {name: said.get("versions") or 1 for name, said in table.families.items()}
    return {name: most for name, most in versions.items() if most > 1}


def before_of(entry: Entry, several: dict[str, int], now_ms: int) -> CellsBefore | None:
    """The cells that the record of a row's version wrote, with what each held before; None: no family keeps that.

    `several`: see `several_versions`. Raises Corrupted.
    """
    if not several:
        return None
    if entry.kind != CELLS or entry.expired(now_ms):
        return ()
    cells = _TWO.of(PackedCells(entry.payload), now_ms).cells
    versions = (list(some) for _, some in groupby(cells, key=_column))
    return tuple(_before(newest, older, several) for newest, *older in versions if newest.version == entry.version)


def _before(newest: WideCell, older: list[WideCell], several: dict[str, int]) -> CellBefore:
    if older:
        return CellBefore(newest.family, newest.qualifier, older[0])
    reason = NONE_HELD if newest.family in several else ONE_VERSION
    return CellBefore(newest.family, newest.qualifier, None, reason)
