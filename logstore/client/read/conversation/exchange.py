"""Exchange: one request until it is answered, by the owner of its key, within the deadline.

It follows 421 to the owner of a partition and remembers it, and tries again what the server calls temporary. Every
request is a read and may be sent again.
"""

from typing import NamedTuple

from logstore.client.read.budget import DEADLINE_MS, GRACE_S, Budget
from logstore.client.read.conversation.owners import Owners
from logstore.client.read.conversation.requests import table_path
from logstore.client.read.conversation.steps import FIRST_PAUSE_S, Ask, Steps, pause, time_now
from logstore.client.read.problem import error_of, parse, word_of
from logstore.client.read.table_page import partitioning_of
from logstore.client.transport.answer import HttpAnswer
from logstore.client.transport.origin import Origin
from logstore.model.errors import LogStoreError, NotOwner, ServerError, ServerUnreachable, UsageError

OK, NOT_FOUND = 200, 404
MISDIRECTED = 421  # RFC 9110, section 15.5.20
_OF_ROWS = {300: "siblings", 404: "not-found"}  # other answers that say what a row is
_MAX_HOPS = 5


class ReadRequest(NamedTuple):
    """A request about a table, wherever it is sent."""

    table: str
    path: str  # and query, quoted
    headers: dict[str, str]
    method: str = "GET"
    content: bytes | None = None
    key: bytes | None = None  # whose owner is asked, if it has one


def answered(owners: Owners, request: ReadRequest, budget: Budget, now: float) -> Steps[HttpAnswer]:
    """Steps to an answer that is one (200, or a row's 300 or 404), from the partition's owner, within the deadline.

    421 is one where the owner cannot be reached from here: the node that says so can be asked to ask it.
    """
    table, key, sent = request.table, request.key, request.headers
    base, hops, pause_s = owners.of(table, key), 0, FIRST_PAUSE_S
    may_be_misplaced = base != owners.url  # it was placed by a definition that may be a former one
    while True:
        left_ms = budget.left_ms(now)
        headers = sent if left_ms == DEADLINE_MS else {**sent, "LS-Deadline": str(left_ms)}
        answer = yield Ask(request.method, base, request.path, headers, request.content, now + left_ms / 1000 + GRACE_S)
        if isinstance(answer, HttpAnswer):
            if _is_one(answer):
                return answer
            error, now = problem_of(answer, table), answer.now
        else:
            error, now = _silence(base), answer
            owners.forget(base)
            if base != owners.url and key is not None:
                owners.put_beyond(base, now)
                base = owners.url
                continue
        if isinstance(error, NotOwner) and owners.is_beyond(error.owner or "", now):
            assert isinstance(answer, HttpAnswer), "it names the owner"
            return answer
        if isinstance(error, NotOwner) and error.owner and hops < _MAX_HOPS:
            base, hops = error.owner, hops + 1
            if may_be_misplaced:
                owners.unplace(table)
            yield from _remember(owners, table, key, base, budget)
            now = yield from time_now()
            continue
        base = owners.url
        hint = _retry_after(answer) if isinstance(answer, HttpAnswer) else None
        pause_s = yield from pause(hint or pause_s, budget, error)
        now = yield from time_now()


def problem_of(answer: HttpAnswer, table: str) -> LogStoreError:
    """The error that an answer tells."""
    text = answer.headers.get(b"ls-owner")
    owner = None if text is None else text.decode("latin-1").rstrip("/")
    if owner is not None:
        try:
            Origin.of(owner)
        except UsageError as error:
            return ServerError(f"the server names an owner that is none: {error}", answer.status, {})
    return error_of(answer.status, parse(answer.content), table, owner)


def _is_one(answer: HttpAnswer) -> bool:
    return answer.status == OK or (
        answer.status in _OF_ROWS and word_of(parse(answer.content)) == _OF_ROWS[answer.status]
    )


def _silence(base: str) -> LogStoreError:
    return ServerUnreachable(f"{base} does not answer; is the node running? `logstore status --url {base}`")


def _remember(owners: Owners, table: str, key: bytes | None, owner: str, budget: Budget) -> Steps[None]:
    """Note the owner of the key's partition; how keys are placed is asked of the server, once per table."""
    if key is None:
        return
    if not owners.is_placed(table):
        now = yield from time_now()
        end = now + budget.left_ms(now) / 1000 + GRACE_S
        answer = yield Ask("GET", owner, table_path(table), {}, None, end)
        found = (
            partitioning_of(parse(answer.content)) if isinstance(answer, HttpAnswer) and answer.status == OK else None
        )
        if found is None:
            return
        owners.place(table, found)
    owners.remember(table, key, owner)


def _retry_after(answer: HttpAnswer) -> float | None:
    try:
        return max(float(answer.headers[b"retry-after"]), FIRST_PAUSE_S)
    except (KeyError, ValueError):
        return None
