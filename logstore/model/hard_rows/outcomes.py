"""Outcomes: what became of a mutation at its own offset, and for how long that is remembered.

Kept for mutations with an id, a condition or what their writer had seen, and for those that build on what is there
(incr, append, edit). A partition numbers them; both their log time and their number end the memory of them.
"""

from typing import NamedTuple

from logstore.model.hard_rows.rules import DedupWindow


class AppliedOutcome(NamedTuple):
    """Outcome of a mutation that did what it says."""


class RejectedOutcome(NamedTuple):
    """Outcome of a mutation whose condition was false."""

    version: int | None  # that the row or the cell has; None: it is absent


class InvalidOutcome(NamedTuple):
    """Outcome of a mutation that cannot be done, and changed nothing."""

    reason: str


class DuplicateOutcome(NamedTuple):
    """Outcome of a mutation that had been written before, under the same id."""

    first: int  # the offset of the first record of that id
    outcome: "AppliedOutcome | RejectedOutcome | InvalidOutcome"  # of that one


Outcome = AppliedOutcome | RejectedOutcome | InvalidOutcome | DuplicateOutcome


class RememberedOutcome(NamedTuple):
    """An outcome as the state holds it."""

    outcome: Outcome
    log_time_ms: int
    number: int  # the partition's outcomes are counted from 1


class RememberedId(NamedTuple):
    """An id as the state holds it, under its row: the first record that bore it, never renewed."""

    first: int  # that record's offset
    content: bytes  # digest of what it said
    outcome: AppliedOutcome | RejectedOutcome | InvalidOutcome
    log_time_ms: int
    number: int  # that of its outcome


def is_remembered(
    remembered: RememberedOutcome | RememberedId, log_time_ms: int, counter: int, window: DedupWindow
) -> bool:
    """True while an outcome or id is in the state that has this log time and has counted so many outcomes."""
    if remembered.number <= counter - window.records:
        return False
    return window.ms is None or remembered.log_time_ms + window.ms > log_time_ms
