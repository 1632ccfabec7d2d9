"""Facts of an outcome, as whoever asks for one is told them: over HTTP, and by the store in memory."""

from typing import TypedDict

from logstore.model.hard_rows.outcomes import (
    AppliedOutcome,
    DuplicateOutcome,
    InvalidOutcome,
    Outcome,
    RejectedOutcome,
)  # fmt: skip


class OutcomeFacts(TypedDict):
    """Words and numbers of an outcome; see `logstore.client.conditional.outcome.Outcome`."""

    outcome: str
    version: int | None
    reason: str | None
    first: int | None
    first_outcome: str | None


def facts_of(outcome: Outcome, offset: int) -> OutcomeFacts:
    """Facts of the outcome of the record at `offset`; those of a duplicate are its first record's."""
    if isinstance(outcome, DuplicateOutcome):
        first = facts_of(outcome.outcome, outcome.first)
        return {**first, "outcome": "duplicate", "first": outcome.first, "first_outcome": first["outcome"]}
    return {
        "outcome": _word(outcome),
        "version": _version(outcome, offset),
        "reason": outcome.reason if isinstance(outcome, InvalidOutcome) else None,
        "first": None,
        "first_outcome": None,
    }


def _word(outcome: AppliedOutcome | RejectedOutcome | InvalidOutcome) -> str:
    if isinstance(outcome, AppliedOutcome):
        return "applied"
    return "rejected" if isinstance(outcome, RejectedOutcome) else "invalid"


def _version(outcome: AppliedOutcome | RejectedOutcome | InvalidOutcome, offset: int) -> int | None:
    if isinstance(outcome, AppliedOutcome):
        return offset
    return outcome.version if isinstance(outcome, RejectedOutcome) else None
