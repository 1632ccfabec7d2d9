"""RowEdit: changes of the cells of one wide row, written together or not at all.

    edit = RowEdit().set("content", "html", page).delete_family("anchor").incr("stats", "fetches")
    store.edit("pages", "org.example/", edit)

In the log an edit is a msgpack array of verbs: `logstore.model.hard_rows.changes.edits` has their shapes.
"""

from collections.abc import Mapping
from typing import Any, Self

from logstore.client.checks import Text, check_number
from logstore.model.errors import UsageError
from logstore.model.key import check_key, to_bytes
from logstore.model.wide.columns import check_family
from logstore.model.wide.edited_rows import EditedRows

_LARGEST = (1 << 63) - 1
_LEAST_TTL_S = 0.001
_SET_WITH_TTL = 5  # items of the verb in the log
_HOW = "an edit is a RowEdit, such as RowEdit().set('content', 'html', value)"


class RowEdit:
    """Changes of one row. They act in their order, each upon the results of those before it; every method adds one.

    A cell is named by its column family, which the table has, and a qualifier: any bytes, text stands for its UTF-8.
    """

    __slots__ = ("_verbs",)

    def __init__(self) -> None:
        self._verbs: list[list[Any]] = []

    def set(self, family: str, qualifier: Text, value: Text, *, ttl_s: float | None = None) -> Self:
        """Give a cell a new value; the ones before it stay as older versions, as many as the family keeps.

        `ttl_s`: seconds after which the cell is gone again, in a table whose rows expire; None: what the family says.
        """
        if ttl_s is not None:
            check_number("ttl_s", ttl_s, _LEAST_TTL_S)
        end = [] if ttl_s is None else [round(ttl_s * 1000)]
        return self._add("set", check_family(family), to_bytes(qualifier), to_bytes(value), *end)

    def delete(self, family: str, qualifier: Text) -> Self:
        """Delete a cell, its older versions too."""
        return self._add("del", check_family(family), to_bytes(qualifier))

    def delete_family(self, family: str) -> Self:
        """Delete all cells of a family."""
        return self._add("del-family", check_family(family))

    def delete_row(self) -> Self:
        """Delete all cells."""
        return self._add("del-row")

    def incr(self, family: str, qualifier: Text, delta: int = 1) -> Self:
        """Add to a counter: a cell of 8 bytes, big-endian and signed; one that is absent counts as 0."""
        if type(delta) is not int or not -_LARGEST - 1 <= delta <= _LARGEST:
            raise UsageError(f"delta is a whole number of 64 bits, not {delta!r:.80}")
        return self._add("incr", check_family(family), to_bytes(qualifier), delta)

    def append(self, family: str, qualifier: Text, more: Text) -> Self:
        """Put bytes behind those of a cell, or make it of them."""
        return self._add("append", check_family(family), to_bytes(qualifier), to_bytes(more))

    @property
    def verbs(self) -> list[list[Any]]:
        """The changes as they stand in the log."""
        return [list(verb) for verb in self._verbs]

    @property
    def has_ttl(self) -> bool:
        """True when a value that it sets has an end of its own."""
        return any(verb[0] == "set" and len(verb) == _SET_WITH_TTL for verb in self._verbs)

    @property
    def families(self) -> frozenset[str]:
        """Column families that it names."""
        return frozenset(verb[1] for verb in self._verbs if len(verb) > 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowEdit) and self._verbs == other._verbs

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"RowEdit({self._verbs!r:.200})"

    def _add(self, *verb: Any) -> Self:
        self._verbs.append(list(verb))
        return self


def edited_row(key: Text, edit: RowEdit) -> EditedRows:
    """The row of `Store.edit`. Raises UsageError, BadKey."""
    import msgpack  # noqa: PLC0415 - as below

    return EditedRows(check_key(to_bytes(key)), msgpack.packb(_checked(edit).verbs), edit.families, False, edit.has_ttl)


def edited_rows(edits: Mapping[Text, RowEdit]) -> EditedRows:
    """Rows of `Store.edit_rows`. Raises UsageError, BadKey."""
    import msgpack  # noqa: PLC0415 - who edits no wide rows does without

    if not isinstance(edits, Mapping) or not edits:
        raise UsageError(f"the edits of several rows are a mapping of their keys to RowEdits, not {edits!r:.80}")
    rows = {check_key(to_bytes(name)): _checked(one) for name, one in edits.items()}
    if len(rows) != len(edits):
        raise UsageError("the same key stands twice among those of an edit, as text and as bytes")
    families = frozenset[str]().union(*(one.families for one in rows.values()))
    value = msgpack.packb([["row", name, one.verbs] for name, one in rows.items()])
    return EditedRows(next(iter(rows)), value, families, True, any(one.has_ttl for one in rows.values()))


def _checked(edit: object) -> RowEdit:
    if not isinstance(edit, RowEdit):
        raise UsageError(f"{_HOW}, not {edit!r:.80}")
    if not edit.families and not edit.verbs:
        raise UsageError(f"the edit changes nothing: {_HOW}")
    return edit
