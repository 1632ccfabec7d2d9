"""Reads as of a point: `LS-As-Of`, a position or a time, and what can be proved about a partition at that point.

Nothing is proved by a snapshot that is not proved itself: neither one beside the view, nor the one that the view stands
on. Of each row only the newest entry is here, and in the snapshots under and beside the view what it held at their
cuts. That answers exactly

    at a snapshot's own cut                      what the snapshot says, for every row
    a row not written since the position         what it holds now
    a row never written, or deleted before the   nothing; only where the base's cut is not later: a snapshot has no
    base's cut                                   tombstones

and nothing else: a row that was written since is refused, and the message names the command that folds the log up to
that point. A time T means the first offset whose log time is later than T. Log time never falls along the log, so a cut
whose log time is at most T lies at or before that offset, and so does the state now, once all has been applied that the
log held when it was asked after T.
"""

import time
from itertools import chain
from typing import Any, NamedTuple

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import TOMBSTONES
from logstore.model.folding.entry import EXPIRES, SIBLINGS, has_ended
from logstore.model.folding.packed_values import seen_at
from logstore.model.point_in_time import read_moment
from logstore.model.position import Position
from logstore.serve.read.encoding import json_bytes
from logstore.serve.state.local_snapshots import OpenSnapshot
from logstore.serve.state.partition import ServedPartition
from logstore.serve.wire.problems import Problem
from logstore.snapshot.verdicts import PROVED
from logstore.view.layout import State

_NEAREST = 8


class AsOf(NamedTuple):
    """The point that was asked for: a token, or a time in milliseconds since 1970."""

    text: str
    token: Position | None
    time_ms: int | None


def read_as_of(text: str) -> AsOf:
    """Read `LS-As-Of`. Raises UsageError and BadToken for what is none, Problem for a time that is still to come."""
    moment = read_moment(text)
    if isinstance(moment, Position):
        return AsOf(text.strip(), moment, None)
    if moment > time.time_ns() // 1_000_000:
        raise Problem("bad-level", f"as_of {text} is still to come; leave as_of away to read what holds now")
    return AsOf(text.strip(), None, moment)


class AsOfReads(NamedTuple):
    """Reads of one partition as of the point.

    `exact` answers all of it; else what has a version below `sure` held then as it does now.
    """

    served: ServedPartition
    as_of: AsOf
    sure: int
    exact: OpenSnapshot | None
    log_time_ms: int = 0  # of the view, as it stands now

    @classmethod
    def from_view(cls, served: ServedPartition, as_of: AsOf, sure: int, log_time_ms: int) -> "AsOfReads":
        """Reads from the view; raises Problem unless the snapshot below it, if any, is proved."""
        base = served.base
        if base is not None and not _is_proved(served, base):
            raise _doubt(served, base, as_of)
        return cls(served, as_of, sure, None, log_time_ms)

    def gaps(self) -> bool:
        """True when a row that is not here now may have been there then.

        It may have been deleted before the base's cut.
        """
        return self.served.base is not None and self.served.base.cut > self.sure

    def check(self, key: bytes, raw: bytes | None) -> None:
        """Raise Problem unless `raw`, the newest entry here, is the row's entry at that point."""
        if self.gaps() if raw is None else int.from_bytes(raw[1:9], "big") >= self.sure:
            raise self.refusal(key)
        if raw is None:
            return
        time_ms = self.as_of.time_ms
        if has_ended(raw, self.log_time_ms):
            if time_ms is None or (raw[0] in TOMBSTONES and not has_ended(raw, time_ms)):
                raise self.refusal(key)  # when it had ended at that position, or its value since, is not known here
        elif raw[0] & ~EXPIRES >= SIBLINGS and self._may_lack(raw):
            raise self.refusal(key)  # of a row of several values a part has ended since, or may have

    def _may_lack(self, raw: bytes) -> bool:
        """True when some value of a row of several may have been in it at that point and not now."""
        reader = self.served.reader
        if reader is None or not reader.expiring:
            return False
        return self.gaps() or (self.as_of.time_ms is None and seen_at(raw, self.log_time_ms) is not raw)

    @property
    def instant_ms(self) -> int:
        """The instant at which rows are seen: the time that was asked for, else 0."""
        return self.as_of.time_ms or 0

    def refusal(self, key: bytes) -> Problem:
        """The answer for a row whose state then is not kept here."""
        served = self.served
        text = json_bytes(key)
        detail = (
            f"what row {text!r} of {served.table!r} held as of {self.as_of.text[:200]} is not kept on this node; "
            f"`logstore batch restore {served.table} --at {self.as_of.text} --as {served.table}_then` makes a table of "
            "that state"
        )
        return Problem("bad-level", detail, table=served.table, partition=served.partition, key=text, cuts=self._cuts())

    def _cuts(self) -> list[dict[str, Any]]:
        """The retained cuts, nearest first, of which every row can be read."""
        asked = self._asked()
        locals_ = sorted(
            _proved(self.served),
            key=lambda one: abs((one.cut if self.as_of.token else one.log_time_ms) - asked),
        )
        epoch, partition = self.served.epoch, self.served.partition
        return [
            {
                "snapshot": one.where.snapshot,
                "cut": one.cut,
                "log_time_ms": one.log_time_ms,
                "token": f"{epoch}-{partition}-{one.cut}",
            }
            for one in locals_[:_NEAREST]
        ]

    def _asked(self) -> int:
        return self.sure if self.as_of.time_ms is None else self.as_of.time_ms


def look_back(served: ServedPartition, state: State, as_of: AsOf) -> AsOfReads:
    """Reads that can be proved for a partition that stands at `state`.

    Requires: that state is not before the point (`consistency_wait.ConsistencyWait`).
    """
    if as_of.time_ms is not None:
        cuts = (one.cut for one in _proved(served) if one.log_time_ms <= as_of.time_ms)
        seen = (offset for log_time_ms, offset in served.times if log_time_ms <= as_of.time_ms)
        sure = state.next_offset if state.log_time_ms <= as_of.time_ms else max(chain(cuts, seen), default=0)
        return AsOfReads.from_view(served, as_of, sure, state.log_time_ms)
    asked = position_of(as_of, served.epoch, served.partition)
    exact = next((one for one in _proved(served) if one.cut == asked and _opens(one)), None)
    if exact is not None:
        return AsOfReads(served, as_of, asked, exact)
    return AsOfReads.from_view(served, as_of, asked, state.log_time_ms)


def position_of(as_of: AsOf, epoch: str, partition: int) -> int:
    """The next offset that a token names for a partition; raises Problem when it names none."""
    assert as_of.token is not None, "a time names no offsets"
    asked = as_of.token.pieces.get((epoch, partition))
    if asked is None:
        raise Problem(
            "bad-token",
            f"as_of names no position of partition {partition}, which is read; it must name all",
            partition=partition,
        )
    return asked


def _is_proved(served: ServedPartition, local: OpenSnapshot) -> bool:
    return served.proofs.get(local.where.snapshot) == PROVED


def _proved(served: ServedPartition) -> list[OpenSnapshot]:
    """The local snapshots that may answer for the past."""
    return [one for one in served.local_snapshots() if _is_proved(served, one)]


def _doubt(served: ServedPartition, base: OpenSnapshot, as_of: AsOf) -> Problem:
    """The answer where the view stands on a snapshot that is not proved, or of which the worker has not told yet."""
    table, name = served.table, base.where.snapshot
    word = served.proofs.get(name)
    if word is None:
        return Problem(
            "starting",
            f"whether snapshot {name}, on which partition {served.partition} of {table!r} stands, is proved is not "
            "known here yet; try again",
            table=table, partition=served.partition,
        )  # fmt: skip
    return Problem(
        "bad-level",
        f"what partition {served.partition} of {table!r} held as of {as_of.text[:200]} is not answered here: the view "
        f"stands on snapshot {name}, which is {word}; `logstore batch audit {table}` settles what it is worth",
        table=table, partition=served.partition, snapshot=name, proof=word,
        cuts=AsOfReads(served, as_of, 0, None)._cuts(),
    )  # fmt: skip


def _opens(local: OpenSnapshot) -> bool:
    try:
        local.open()
    except (Corrupted, OSError):  # noted as damaged: without it there is less to answer from, and no wrong answer
        return False
    return True
