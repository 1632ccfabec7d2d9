"""SaidEdit: one change of a cell, a family or a row that a record of the log asks for, as histories show it."""

from typing import Any, NamedTuple

from logstore.model.hard_rows.changes.edits import Edit, Infeasible, parse_edits


class SaidEdit(NamedTuple):
    """Change that an edit asks for; None where it says nothing of a thing."""

    verb: str  # set, del, del-family, del-row, incr, append
    family: str | None = None
    qualifier: bytes | None = None
    value: bytes | None = None
    delta: int | None = None
    row: bytes | None = None  # key of the row, where the record names it

    def fields(self) -> dict[str, Any]:
        """Fields that it says something of."""
        return {name: said for name, said in self._asdict().items() if said is not None}


def edits_said(value: bytes) -> list[SaidEdit] | None:
    """Changes that the value of an edit asks for, in their order; None when it is no edit."""
    try:
        return [_said(edit, row.key or None) for row in parse_edits(b"", value) for edit in row.edits]
    except Infeasible:
        return None


def _said(edit: Edit, row: bytes | None) -> SaidEdit:
    if edit.verb == "del-row":
        return SaidEdit(edit.verb, row=row)
    if edit.verb == "del-family":
        return SaidEdit(edit.verb, edit.family, row=row)
    if edit.verb == "del":
        return SaidEdit(edit.verb, edit.family, edit.qualifier, row=row)
    if edit.verb == "incr":
        return SaidEdit(edit.verb, edit.family, edit.qualifier, delta=edit.delta, row=row)
    return SaidEdit(edit.verb, edit.family, edit.qualifier, edit.payload, row=row)
