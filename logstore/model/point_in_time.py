"""Point in time of a table's history as a person writes it: a token, or a time."""

import re
from datetime import UTC, datetime, timedelta

from logstore.model.errors import UsageError
from logstore.model.position import Position

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_moment(text: str) -> Position | int:
    """A token's position, or a time (RFC 3339, with its offset from UTC) in milliseconds since 1970.

    A time T stands for the first offset whose log time is later than T. Raises BadToken for a token that is none,
    UsageError for a time that is none.
    """
    text = text.strip()
    return _milliseconds(text) if ":" in text else Position.parse(text)  # tokens have no colon


def _milliseconds(text: str) -> int:
    wrong = UsageError(f"not a token, nor a time like 2026-01-31T12:00:00Z (RFC 3339): {text[:60]!r}")
    if _TIME.fullmatch(text) is None:
        raise wrong
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper().replace(" ", "T")))
    except ValueError as error:
        raise wrong from error
    return (moment - _EPOCH) // timedelta(milliseconds=1)
