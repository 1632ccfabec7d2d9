"""Problem: an error of the read API as the error a caller catches (RFC 9457; the words are in `docs/http.md`)."""

from base64 import b64decode
from typing import Any

from logstore.model.errors import (
    BadToken,
    ConsistencyTimeout,
    EpochChanged,
    LogStoreError,
    LogUnreachable,
    NoSuchTable,
    NotConditional,
    NotOwner,
    NotRetained,
    NotWide,
    Overloaded,
    ServerError,
    Starting,
    Stopped,
    UsageError,
)
from logstore.model.folding.sibling import Sibling, Siblings

_LEAST_SIBLINGS = 2
_PREFIX = "urn:logstore:"
_CLASSES: dict[str, type[LogStoreError]] = {
    "bad-token": BadToken,
    "consistency-timeout": ConsistencyTimeout,
    "epoch-changed": EpochChanged,
    "log-unreachable": LogUnreachable,
    "not-retained": NotRetained,
    "overloaded": Overloaded,
    "partition-stopped": Stopped,
    "starting": Starting,
}


def parse(body: bytes) -> dict[str, Any]:
    """The problem document, or an empty one when the body is none (a proxy's page)."""
    import orjson  # noqa: PLC0415 - most answers are none

    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def word_of(problem: dict[str, Any]) -> str:
    """The word of a problem: what stands behind `urn:logstore:`."""
    return str(problem.get("type", "")).removeprefix(_PREFIX)


def siblings_of(problem: dict[str, Any]) -> Siblings:
    """Siblings that the answer of a row of several values lists. Raises ValueError when it lists none."""
    try:
        found = tuple(Sibling(int(one["version"]), _bytes_of(one["value"])) for one in problem["siblings"])
    except (LookupError, TypeError) as error:
        raise ValueError(f"{error!r} in a list of siblings") from error
    if len(found) < _LEAST_SIBLINGS:
        raise ValueError(f"{len(found)} of them")
    return found


def _bytes_of(field: Any) -> bytes:
    """Bytes in a JSON document. Raises ValueError, TypeError, LookupError."""
    return field.encode() if isinstance(field, str) else b64decode(field["base64"], validate=True)


def error_of(status: int, problem: dict[str, Any], table: str, owner: str | None) -> LogStoreError:
    """The typed error of an answer that is none."""
    word = word_of(problem)
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status} without saying why")
    if word == "no-such-table":
        return NoSuchTable(table)
    if word == "not-owner":
        return NotOwner(detail, owner)
    if word in _CLASSES:
        return _CLASSES[word](detail)
    if word == "bad-level" and "cuts" in problem:
        return NotRetained(detail)
    if status == 400 and problem.get("wide") is False:
        return NotWide(table)
    if status == 400 and problem.get("conditional") is False:
        return NotConditional(table)
    if status == 400:
        return UsageError(f"the server refuses the request ({word or 'bad-request'}): {detail}")
    return ServerError(f"the server answered {status} ({word or 'no problem document'}): {detail}", status, problem)
