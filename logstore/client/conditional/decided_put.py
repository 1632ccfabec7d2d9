"""Decided put: a plain put or delete that the fold may refuse upon the row as it stands, so that its writer is told.

    a put to a wide table          its row may have become too wide
    a put or delete with `seen`    values may stand side by side that are too many, or too long together

Such a write has an id, so that the fold remembers what became of it. It counts as written when it is known to be
applied; refused, it raises InvalidWrite. No condition is involved, and nothing is sent a second time: of one row,
writes stand in the log in the order of the calls.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from logstore.client.checks import Text
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.record import ConditionalRecord, Headers, record_of
from logstore.model.errors import InvalidWrite
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.model.table import Table

_ADVICE = {
    "row-too-wide": "the row would have more than 100,000 cells or 4 MiB; delete cells of it, or begin another row",
    "bad-seen": "it says to have seen a version that was still to come; `seen` is the row's version as it was read",
    "too-many-siblings": "more than 32 values would stand side by side in the row, or more bytes than one value may "
    "have; read the row, merge its values, and put the result with `seen`, the row's version",
}


def may_be_refused(table: "Table", value: bytes | None, own: Sequence[tuple[str, bytes]]) -> bool:
    """True for a put, or a delete (`value` None), of which the row as it stands decides whether it can be done."""
    return (table.wide and value is not None) or any(name == "ls.seen" for name, _ in own)


def decided_put(
    key: bytes, value: bytes | None, headers: Headers, own: Sequence[tuple[str, bytes]]
) -> ConditionalRecord:
    """The record of such a write, with an id. `own`: reserved headers, a TTL the last of them. Raises UsageError."""
    return record_of(key, value, list(own), headers)


def refusal_of(outcome: Outcome, key: Text, position: Position) -> InvalidWrite | None:
    """The error of a write, at a position, that the fold refused; None: it was applied."""
    if outcome.applied:
        return None
    reason = outcome.reason or outcome.outcome
    advice = _ADVICE.get(reason, "see docs/conditional_writes.md for the reason")
    return InvalidWrite(
        f"the write of row {key!r:.80} is in the log, at offset {outcome.offset:,} of partition {outcome.partition}, "
        f"and changed nothing ({reason}): {advice}",
        reason, position,
    )  # fmt: skip
