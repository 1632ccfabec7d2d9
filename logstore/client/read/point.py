"""Point of a read: after a position, as of one, or at a level, as the caller says it and as a request says it."""

from datetime import datetime
from typing import NamedTuple

from logstore.client.read.level import LevelBound, level_of
from logstore.client.read.session_floor import SessionFloor
from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import BadToken, ServerError, UsageError
from logstore.model.position import MAX_TOKEN_BYTES, Position


class AsOfBound(NamedTuple):
    """Read what held at this point, and not what holds now: a token, or a time in RFC 3339."""

    text: str


After = Position | str | AsOfBound | LevelBound | SessionFloor | None
PointInTime = Position | str | datetime | None


def when(
    after: Position | str | SessionFloor | None,
    as_of: PointInTime,
    consistency: str | None = None,
    max_lag_ms: int | None = None,
) -> After:
    """Point that a read asks for, or a level; raises UsageError for two of them, or for a time without a zone."""
    if after is None and as_of is None and consistency is None and max_lag_ms is None:  # as most reads
        return None
    level = level_of(consistency, max_lag_ms, after=after is not None, as_of=as_of is not None)
    if isinstance(after, SessionFloor) and as_of is None:
        return after if level in (None, "session") else LevelBound(str(level), max_lag_ms, "", after)
    if level not in (None, "eventual", "session"):
        token = after.token if isinstance(after, Position) else "" if after is None else _token(after, BadToken)
        return LevelBound(str(level), max_lag_ms, token)
    if as_of is None:
        return after if after is None or isinstance(after, Position) else _token(after, BadToken)
    if after is not None:
        raise UsageError("a read has `after` (at least that) or `as_of` (exactly that), not both")
    if isinstance(as_of, datetime):
        if as_of.tzinfo is None:
            raise UsageError(f"as_of {as_of.isoformat()} has no time zone; give one, such as datetime.UTC")
        return AsOfBound(as_of.isoformat())
    return AsOfBound(as_of.token if isinstance(as_of, Position) else _token(as_of, UsageError))


def _token(text: object, kind: type[UsageError]) -> str:
    """Text that a header can hold. What it says is the server's to judge."""
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or len(text) > MAX_TOKEN_BYTES:
        raise kind(f"no position, token or time: {text!r:.80}; a token is the text of a position")
    return text


def headers_of(after: After) -> dict[str, str]:
    """Headers of a request that say the point."""
    if after is None:
        return {}
    if isinstance(after, AsOfBound):
        return {"LS-As-Of": after.text}
    if isinstance(after, LevelBound):
        return after.headers()
    token = after if isinstance(after, str) else after.token
    return {"LS-Consistency": "session", "LS-Token": token} if token else {}


def note(after: After, answer: HttpAnswer) -> None:
    """Have the session that a read belongs to see what the answer tells, also where it tells of no row."""
    floor = after.floor if isinstance(after, LevelBound) else after if isinstance(after, SessionFloor) else None
    if floor is not None and (token := answer.headers.get(b"ls-token")):
        try:
            floor.rise(token.decode("latin-1"))
        except BadToken as error:
            raise ServerError(f"the server's LS-Token is none: {error}", answer.status, {}) from error
