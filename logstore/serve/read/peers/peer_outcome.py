"""Peer outcome: another node's answer about conditional writes, checked like a client's request."""

import msgspec

from logstore.model.hard_rows.outcome_facts import OutcomeFacts
from logstore.serve.wire.problems import Problem

_WORDS = frozenset({"applied", "rejected", "invalid", "duplicate"})


class PeerOutcome(msgspec.Struct):
    """Entry of a page of outcomes (`read.outcomes`); `error`: why there is no outcome."""

    offset: int
    error: str | None = None
    outcome: str = ""
    version: int | None = None
    reason: str | None = None
    first: int | None = None
    first_outcome: str | None = None

    def facts(self) -> OutcomeFacts:
        """Facts of the outcome. Requires: it is there."""
        return {
            "outcome": self.outcome, "version": self.version, "reason": self.reason, "first": self.first,
            "first_outcome": self.first_outcome,
        }  # fmt: skip

    @property
    def is_sound(self) -> bool:
        """True when it is an outcome of a known kind, or a reason why there is none."""
        words = {self.outcome} if self.first_outcome is None else {self.outcome, self.first_outcome}
        return self.error is not None or words <= _WORDS


class _Page(msgspec.Struct):
    partition: int
    outcomes: list[PeerOutcome]


def read_peer_outcomes(url: str, body: bytes, partition: int, offsets: list[int]) -> dict[int, PeerOutcome]:
    """The entries of a page, by offset. Raises Problem for what is no answer to the question."""
    try:
        page = msgspec.msgpack.decode(body, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong(url, str(error)) from error
    asked = page.partition == partition and [one.offset for one in page.outcomes] == offsets
    if not asked or not all(one.is_sound for one in page.outcomes):
        raise _wrong(url, "it is about other records, or of no known kind")
    return {one.offset: one for one in page.outcomes}


def _wrong(url: str, why: str) -> Problem:
    return Problem("starting", f"{url} answers with what are no outcomes: {why[:200]}; try again", owner=url)
