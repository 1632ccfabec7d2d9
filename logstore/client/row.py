"""Row: what a read returns, and the rows of a list answer (msgpack), checked before anybody has them."""

from collections.abc import Set
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack

from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import ServerError, Stopped
from logstore.model.position import Position

MSGPACK = "application/msgpack"
_new, _key = tuple.__new__, itemgetter(0)


class Row(NamedTuple):
    """A row as it was read."""

    key: bytes
    value: bytes
    version: int  # offset of the mutation that wrote it
    partition: int
    token: str  # of the answer: read elsewhere after it, and at least this is seen
    source: str = ""  # "view" or "snapshot": where the entry was; empty in a list

    @property
    def position(self) -> Position:
        """The token as a position, for `after`."""
        return Position.parse(self.token)


def page_of(answer: HttpAnswer, *, keys_only: bool) -> tuple[list[Row], str | None]:
    """The rows of a page of a scan, and the cursor of the next one. Raises ServerError when it is no such page."""
    body = _body(answer)
    try:
        cursor = body["cursor"]
        rows = _rows(body["rows"], body["token"] or "", keys_only=keys_only)
    except (LookupError, TypeError, ValueError) as error:
        raise _wrong(answer, error) from error
    if not (cursor is None or isinstance(cursor, str)):
        raise _wrong(answer, "its cursor is no text")
    return rows, cursor


def many_of(answer: HttpAnswer, table: str, wanted: Set[bytes]) -> tuple[dict[bytes, Row | None], list[bytes]]:
    """Rows that a multi-get found, under their keys, and the keys that another node has.

    Raises Stopped, and ServerError when it is no such answer.
    """
    body = _body(answer)
    try:
        token, results = body["token"] or "", body["results"]
        rows = _rows([result for result in results if result["found"]], token, keys_only=False)
        found: dict[bytes, Row | None] = dict(zip(map(_key, rows), rows, strict=True))
        if len(rows) < len(results):
            found |= {result["key"]: None for result in results if not result["found"]}
        left_out = [(entry["key"], str(entry["reason"])) for entry in body["unprocessed"]]
        known = found.keys() | dict(left_out).keys() if left_out else found.keys()
    except (LookupError, TypeError, ValueError) as error:
        raise _wrong(answer, error) from error
    if not known <= wanted:
        raise _wrong(answer, "its keys are not those that were asked for")
    for key, reason in left_out:
        if reason == "partition-stopped":
            raise Stopped(f"the partition of key {key!r} of table {table} has stopped; `logstore status` says why")
    return found, [key for key, reason in left_out if reason == "not-owner"]


def _rows(results: list[dict[str, Any]], token: str, *, keys_only: bool) -> list[Row]:
    """All rows of a list, each field of its kind. A million a second: so in one comprehension, past Row's own `new`."""
    if keys_only:
        results = [{**result, "value": b""} for result in results]
    rows = [
        _new(Row, (key, value, version, partition, token, ""))
        for result in results
        if type(key := result["key"]) is bytes is type(value := result["value"])
        and type(version := result["version"]) is int is type(partition := result["partition"])
    ]
    if len(rows) < len(results) or type(token) is not str:
        raise TypeError("a key, value, version, partition or token is not of its kind")
    return rows


def _body(answer: HttpAnswer) -> dict[str, Any]:
    kind = answer.headers.get(b"content-type", b"")
    if kind.split(b";")[0].strip() != MSGPACK.encode():
        raise _wrong(answer, f"it is {kind[:80]!r}, not {MSGPACK}")
    try:
        body = msgpack.unpackb(answer.content)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise _wrong(answer, error) from error
    if not isinstance(body, dict):
        raise _wrong(answer, "it is no map")
    return body


def _wrong(answer: HttpAnswer, why: object) -> ServerError:
    return ServerError(
        f"what the server sent is no list of the read API: {why!s}; is the URL right?", answer.status, {}
    )
