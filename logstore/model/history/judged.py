"""JudgedRecord: what the fold makes of one record of a key, as far as the record tells by itself."""

from typing import Literal, NamedTuple

from logstore.model.folding.mutation import DELETE, PUT, Headers, Mutation, Quarantined, Refused, parse
from logstore.model.folding.terms import Condition
from logstore.model.hard_rows.changes.cell_differences import column_name
from logstore.model.hard_rows.fold_rows import RowMutation
from logstore.model.hard_rows.parse import parse_hard
from logstore.model.hard_rows.rules import rules_of
from logstore.model.history.logged import LoggedRecord
from logstore.model.table import Table

Judgement = Literal["applied", "undecided", "quarantined", "skipped", "refused"]

_UNTOLD = "whether the row had room for a plain put is told by the table's quarantine alone, where it had none"


class JudgedRecord(NamedTuple):
    """Operation of a record, and what becomes of it.

    outcome   "applied"; "undecided": its condition, its id or what stands below decides, and this record alone does
              not tell; "quarantined": every fold skips it; "skipped": a repair steps over it; "refused": it stops the
              partition until a later build folds it
    """

    operation: str
    outcome: Judgement
    reason: str | None = None
    condition: str | None = None
    id: bytes | None = None
    ttl_ms: int | None = None


def judge(record: LoggedRecord, key: bytes, table: Table, partition: int) -> JudgedRecord:
    """Judge a record of a key that belongs to the partition."""
    for first, last in table.skips.get(partition, ()):
        if first <= record.offset <= last:
            reason = f"a repair steps over offsets {first:,} to {last:,}"
            return JudgedRecord(_operation(record), "skipped", reason)
    found = _parsed(record, key, table, partition)
    if isinstance(found, Quarantined):
        return JudgedRecord(_operation(record), "quarantined", found.reason)
    if isinstance(found, Refused):
        return JudgedRecord(_operation(record), "refused", found.why)
    if not isinstance(found, RowMutation):
        return JudgedRecord(_operation(record), "applied")
    outcome: Judgement = "undecided" if found.is_decided else "applied"
    untold: str | None = None
    if table.wide and found.operation == PUT and not found.is_decided:  # no outcome of it is remembered
        outcome, untold = "undecided", _UNTOLD
    return JudgedRecord(
        found.operation, outcome, untold, _text(found.terms.condition), found.terms.id, found.terms.ttl_ms
    )


def _parsed(record: LoggedRecord, key: bytes, table: Table, partition: int) -> object:
    if table.conditional:
        return parse_hard(key, record.value, record.headers, rules_of(table, partition), is_here=True)
    found: Mutation = parse(
        key, record.value, record.headers, max_value_bytes=table.max_value_bytes, right_partition=lambda _: True
    )
    return found


def _operation(record: LoggedRecord) -> str:
    """Word of the record's operation, whatever else is wrong with it."""
    given = _header(record.headers, "ls.op")
    if given is None:
        return DELETE if record.value is None else PUT
    return given.decode("ascii", "backslashreplace")[:80]


def _header(headers: Headers, name: str) -> bytes | None:
    return next((content for one, content in headers if one == name), None)


def _text(condition: Condition | None) -> str | None:
    """A condition as people read it."""
    if condition is None:
        return None
    if condition.kind == "version":
        cell = "" if condition.column is None else f"@{column_name(condition.column)}"
        return f"version:{condition.version}{cell}"
    return f"value:{condition.digest.hex()}" if condition.kind == "value" else condition.kind
