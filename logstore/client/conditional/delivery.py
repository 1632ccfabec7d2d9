"""Delivery of a conditional write: into the log, and its outcome back, within one deadline; without the sockets.

    1 append   until the log acknowledges the record. One whose acknowledgement is lost is sent again with the same id,
               which has effect once, however many of them are in the log
    2 learn    until a reader has applied the offset that was acknowledged, and tells what was decided there

Only the deadline ends that in doubt: then the error is Unknown and carries the id, by which the outcome can be asked
for later. The steps are a generator, which the blocking clients and those of asyncio run alike.
"""

import time
from collections.abc import Awaitable, Callable, Generator
from time import monotonic
from typing import Any, NamedTuple

from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.record import ConditionalRecord
from logstore.model.errors import LogStoreError, NotYet, StillPending, Unknown, WriteFailed
from logstore.model.position import Position

_MAX_READ_MS = 30_000
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 0.5


class Append(NamedTuple):
    """Have the record appended within so many seconds; answered with its position, or the error."""

    timeout_s: float


class Learn(NamedTuple):
    """Have the outcome at a position told within so many milliseconds; answered with it, None, or the error."""

    position: Position
    deadline_ms: int


class Rest(NamedTuple):
    """A wait before the next attempt."""

    seconds: float


Steps = Generator[Append | Learn | Rest, Any, Outcome]


def delivery(record: ConditionalRecord, deadline_s: float, clock: Callable[[], float] = monotonic) -> Steps:
    """The steps of one write, over after `deadline_s` at the latest."""
    end = clock() + deadline_s
    position = yield from _appended(record, end, clock)
    return (yield from _learned(record, position, end, clock))


def deliver(
    steps: Steps, append: Callable[[float], Position], learn: Callable[[Position, int], Outcome | None]
) -> Outcome:
    """Run the steps, blocking. Raises what they raise."""
    try:
        step = next(steps)
        while True:
            try:
                answer: Any = None
                if isinstance(step, Append):
                    answer = append(step.timeout_s)
                elif isinstance(step, Learn):
                    answer = learn(*step)
                else:
                    time.sleep(step.seconds)
            except LogStoreError as error:
                answer = error
            step = steps.send(answer)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


async def deliver_async(
    steps: Steps,
    append: Callable[[float], Awaitable[Position]],
    learn: Callable[[Position, int], Awaitable[Outcome | None]],
) -> Outcome:
    """Run the steps in the event loop. Raises what they raise."""
    from asyncio import sleep  # noqa: PLC0415 - loaded by whoever runs this; who writes blocking does without

    try:
        step = next(steps)
        while True:
            try:
                answer: Any = None
                if isinstance(step, Append):
                    answer = await append(step.timeout_s)
                elif isinstance(step, Learn):
                    answer = await learn(*step)
                else:
                    await sleep(step.seconds)
            except LogStoreError as error:
                answer = error
            step = steps.send(answer)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def _appended(
    record: ConditionalRecord, end: float, clock: Callable[[], float]
) -> Generator[Append | Learn | Rest, Any, Position]:
    """Step 1. Raises the error of a first attempt after which nothing is in the log for sure, else Unknown."""
    pause, lost = _FIRST_PAUSE_S, False
    while True:
        answer = yield Append(max(end - clock(), _FIRST_PAUSE_S))
        if isinstance(answer, Position):
            return answer
        in_doubt = isinstance(answer, Unknown | StillPending)
        lost = lost or in_doubt
        if not lost:
            raise answer
        if not (in_doubt or answer.retriable) or clock() + pause >= end:
            raise unknown_write(record, None, answer)
        yield Rest(pause)
        pause = min(pause * 2, _LAST_PAUSE_S)


def _learned(record: ConditionalRecord, position: Position, end: float, clock: Callable[[], float]) -> Steps:
    """Step 2. Raises Unknown, WriteFailed for a record that every fold skips."""
    pause = _FIRST_PAUSE_S
    while True:
        left_ms = round((end - clock()) * 1000)
        answer = yield Learn(position, min(max(left_ms, 1), _MAX_READ_MS))
        if isinstance(answer, Outcome):
            return answer
        if answer is None:
            raise WriteFailed(
                f"the record at offset {position.offset:,} of partition {position.partition} has no outcome: it was "
                "skipped, and changed nothing; the table's quarantine says why"
            )
        if not isinstance(answer, NotYet) or clock() + pause >= end:
            raise unknown_write(record, position, answer)
        yield Rest(pause)
        pause = min(pause * 2, _LAST_PAUSE_S)


def unknown_write(record: ConditionalRecord, position: Position | None, cause: LogStoreError) -> Unknown:
    """The error of a write of which it is not known whether it is in the log, or what became of it there."""
    where = (
        "may or may not be in the log"
        if position is None
        else f"is in the log, at offset {position.offset:,} of partition {position.partition}, and undecided as far as "
        "is known"
    )
    error = Unknown(
        f"the write {where}: {cause}; `outcome_of` with its id {record.id.hex()} (`logstore outcome`) tells what "
        "became of it",
        id=record.id, position=position,
    )  # fmt: skip
    error.__cause__ = cause
    return error
