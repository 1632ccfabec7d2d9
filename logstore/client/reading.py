"""Reading: the conversation with the read API, without the socket.

Both clients run the same steps, one blocking, one not.

A step is a generator: it yields `Ask` (send this; give me the `HttpAnswer`, or just the time when the server cannot be
reached) and `Pause` (seconds; give me the time), and returns what the caller wanted. It follows 421 to the owner of a
partition and remembers it, and tries again, until the deadline, what the server calls temporary. Times are monotonic
seconds.
"""

from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import msgpack
import orjson

from logstore.client.problem import error_of, parse, word_of
from logstore.model.errors import (
    ConsistencyTimeout,
    LogStoreError,
    NotOwner,
    NotYet,
    ServerError,
    ServerUnreachable,
    Stopped,
    UsageError,
)
from logstore.model.key import check_key, to_bytes
from logstore.model.partitioner import partition_of
from logstore.model.position import Position


class AsOfBound(NamedTuple):
    """Read what held at this point, and not what holds now: a token, or a time in RFC 3339."""

    text: str


After = Position | str | AsOfBound | None
PointInTime = Position | str | datetime | None
MANY = 1000  # keys of one multi-get, rows of one page
_MAX_DEADLINE_MS = 30_000
_GRACE_S = 1.0  # for the way there and back, beyond the server's own deadline
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 0.5
_MAX_HOPS = 5
_MSGPACK = "application/msgpack"


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


def when(after: Position | str | None, as_of: PointInTime) -> After:
    """Point that a read asks for; raises UsageError for two of them, or for a time without a zone."""
    if as_of is None:
        return after
    if after is not None:
        raise UsageError("a read has `after` (at least that) or `as_of` (exactly that), not both")
    if isinstance(as_of, datetime):
        if as_of.tzinfo is None:
            raise UsageError(f"as_of {as_of.isoformat()} has no time zone; give one, such as datetime.UTC")
        return AsOfBound(as_of.isoformat())
    return AsOfBound(as_of.token if isinstance(as_of, Position) else as_of)


class Ask(NamedTuple):
    """A request to send."""

    method: str
    base: str  # of the URL: http://host:port
    path: str  # and query, quoted
    headers: dict[str, str]
    content: bytes | None
    timeout_s: float

    @property
    def target(self) -> str:
        """Path and query from the root of the host; a node may lie below a path."""
        return urlsplit(self.base).path.rstrip("/") + self.path


class Pause(NamedTuple):
    """A wait before the next attempt."""

    seconds: float


class HttpAnswer(NamedTuple):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    now: float  # monotonic seconds


T = TypeVar("T")
Steps = Generator[Ask | Pause, HttpAnswer | float, T]


class Conversation:
    """The steps of every kind of read against one URL, and what is known about owners."""

    def __init__(self, url: str) -> None:
        """Take the address apart; raises UsageError when `url` is no http(s) URL."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise UsageError(f"not the URL of a node: {url!r}; give http://host:port")
        self.url = url.rstrip("/")
        self.owners: dict[tuple[str, int], str] = {}
        self._partitions: dict[str, int] = {}

    def get(self, table: str, key: bytes, after: After, deadline_ms: int) -> Steps[Row | None]:
        """Steps that read one row."""
        check_key(key)
        path = f"{_table_path(table)}/rows/{_path_key(key)}"
        budget = yield from _budget(deadline_ms)
        answer = yield from self._ask(table, key, "GET", path, _session(after), None, budget)
        if answer.status == 404:
            return None
        try:
            version, partition = int(answer.headers["ls-version"]), int(answer.headers["ls-partition"])
        except (KeyError, ValueError) as error:
            raise ServerError(
                f"{self.url} does not speak the read API: no LS-Version; is the URL right?", answer.status, {}
            ) from error
        return Row(
            key,
            answer.content,
            version,
            partition,
            answer.headers.get("ls-token", ""),
            answer.headers.get("ls-source", ""),
        )

    def get_many(self, table: str, keys: Sequence[bytes], after: After, deadline_ms: int) -> Steps[list[Row | None]]:
        """Up to `MANY` rows in the order of `keys`."""
        for key in keys:
            check_key(key)
        budget = yield from _budget(deadline_ms)
        found: dict[bytes, Row | None] = {}
        wanted = list(dict.fromkeys(keys))
        pause = _FIRST_PAUSE_S
        while wanted:
            body = yield from self._many(table, wanted, after, budget)
            before = len(found)
            for result in body["results"]:
                found[result["key"]] = _row(result, body) if result["found"] else None
            elsewhere = {entry["key"] for entry in body["unprocessed"] if _reason(entry, table) == "not-owner"}
            for key in elsewhere:
                found[key] = yield from self.get(table, key, after, _left_ms(budget, (yield Pause(0.0))))
            wanted = [key for key in wanted if key not in found]
            if wanted and len(found) == before:
                pause = yield from _pause(
                    pause, budget, NotYet(f"{len(wanted):,} keys of table {table} were left out by the server")
                )
        return [found[key] for key in keys]

    def page(
        self, table: str, query: Mapping[str, bytes | str], after: After, deadline_ms: int
    ) -> Steps[tuple[list[Row], str | None]]:
        """Steps that read a page of a scan: its rows, and the cursor of the next page or None."""
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        headers = {**_session(after), "Accept": _MSGPACK}
        budget = yield from _budget(deadline_ms)
        answer = yield from self._ask(table, None, "GET", f"{_table_path(table)}/rows?{text}", headers, None, budget)
        body = _body(answer)
        return [_row(result, body) for result in body["rows"]], body["cursor"]

    def _many(self, table: str, keys: list[bytes], after: After, budget: "_Budget") -> Steps[dict[str, Any]]:
        headers = {**_session(after), "Accept": _MSGPACK, "Content-Type": "application/json"}
        content = orjson.dumps({"keys": [_json_bytes(key) for key in keys]})
        answer = yield from self._ask(table, None, "POST", f"{_table_path(table)}/rows:get", headers, content, budget)
        return _body(answer)

    def _ask(
        self,
        table: str,
        key: bytes | None,
        method: str,
        path: str,
        headers: dict[str, str],
        content: bytes | None,
        budget: "_Budget",
    ) -> Steps[HttpAnswer]:
        """Steps to an answer that is one (200 or a row's 404), from the partition's owner, within the deadline."""
        base, hops, pause = self._owner(table, key), 0, _FIRST_PAUSE_S
        if_wrong = self._partitions if base != self.url else {}  # it was placed by a count that may be a former table's
        now = yield Pause(0.0)
        while True:
            left_ms = _left_ms(budget, now)
            sent = {**headers, "LS-Deadline": str(left_ms)}
            answer = yield Ask(method, base, path, sent, content, left_ms / 1000 + _GRACE_S)
            if isinstance(answer, HttpAnswer):
                if answer.status == 200 or (answer.status == 404 and word_of(parse(answer.content)) == "not-found"):
                    return answer
                error = self._error(answer, table)
                now = answer.now
            else:
                error, now = (
                    ServerUnreachable(f"{base} does not answer; is the node running? `logstore status --url {base}`"),
                    answer,
                )
                self._forget(base)
            if isinstance(error, NotOwner) and error.owner and hops < _MAX_HOPS:
                base, hops = error.owner, hops + 1
                if_wrong.pop(table, None)
                yield from self._remember(table, key, base, budget)
                continue
            base = self.url
            hint = _retry_after(answer) if isinstance(answer, HttpAnswer) else None
            pause = yield from _pause(hint or pause, budget, error)
            now = yield Pause(0.0)

    def _error(self, answer: HttpAnswer, table: str) -> LogStoreError:
        owner = answer.headers.get("ls-owner")
        if owner is not None and urlsplit(owner).scheme not in ("http", "https"):
            return ServerError(f"the server names an owner that is no URL: {owner[:80]!r}", answer.status, {})
        return error_of(answer.status, parse(answer.content), table, owner.rstrip("/") if owner else None)

    def _owner(self, table: str, key: bytes | None) -> str:
        partitions = self._partitions.get(table)
        if key is None or partitions is None:
            return self.url
        return self.owners.get((table, partition_of(key, partitions)), self.url)

    def _remember(self, table: str, key: bytes | None, owner: str, budget: "_Budget") -> Steps[None]:
        """Note the owner of the key's partition; the partition count comes from the server, once per table."""
        if key is None:
            return
        if table not in self._partitions:
            left_ms = _left_ms(budget, (yield Pause(0.0)))
            answer = yield Ask("GET", owner, _table_path(table), {}, None, left_ms / 1000 + _GRACE_S)
            count = (
                parse(answer.content).get("partitions")
                if isinstance(answer, HttpAnswer) and answer.status == 200
                else None
            )
            if not isinstance(count, int) or count < 1:
                return
            self._partitions[table] = count
        self.owners[table, partition_of(key, self._partitions[table])] = owner

    def _forget(self, base: str) -> None:
        self.owners = {where: owner for where, owner in self.owners.items() if owner != base}


class _Budget(NamedTuple):
    deadline_ms: int
    end: float  # monotonic seconds


def _budget(deadline_ms: int) -> Steps[_Budget]:
    if not 1 <= deadline_ms <= _MAX_DEADLINE_MS:
        raise UsageError(f"deadline_ms is 1 to {_MAX_DEADLINE_MS:,}, not {deadline_ms:,}")
    now = yield Pause(0.0)
    assert isinstance(now, float), "a pause is answered with the time"
    return _Budget(deadline_ms, now + deadline_ms / 1000)


def _left_ms(budget: _Budget, now: HttpAnswer | float) -> int:
    assert isinstance(now, float), "a pause is answered with the time"
    return max(1, int((budget.end - now) * 1000))


def _pause(seconds: float, budget: _Budget, error: LogStoreError) -> Steps[float]:
    """Wait before the next attempt and return the pause after that.

    Raises `error` when it is final or the deadline would pass.
    """
    now = yield Pause(0.0)
    assert isinstance(now, float), "a pause is answered with the time"
    if not error.retriable or isinstance(error, ConsistencyTimeout) or now + seconds >= budget.end:
        raise error
    yield Pause(seconds)
    return min(seconds * 2, _LAST_PAUSE_S)


def _retry_after(answer: HttpAnswer) -> float | None:
    try:
        return max(float(answer.headers["retry-after"]), _FIRST_PAUSE_S)
    except (KeyError, ValueError):
        return None


def _reason(entry: Mapping[str, Any], table: str) -> str:
    reason = str(entry["reason"])
    if reason == "partition-stopped":
        raise Stopped(f"the partition of key {entry['key']!r} of table {table} has stopped; `logstore status` says why")
    return reason


def _session(after: After) -> dict[str, str]:
    if isinstance(after, AsOfBound):
        return {"LS-As-Of": after.text}
    token = after.token if isinstance(after, Position) else after
    return {"LS-Consistency": "session", "LS-Token": token} if token else {}


def _table_path(table: str) -> str:
    return f"/v1/tables/{quote(table, safe='')}"


def _path_key(key: bytes) -> str:
    """Percent-encode a key for a path.

    The keys `.` and `..` too, which clients and proxies would take for directories (RFC 3986, 5.2.4).
    """
    return quote(key, safe="") if key.strip(b".") or len(key) > 2 else "%2E" * len(key)


def _json_bytes(key: bytes) -> object:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(key).decode()}


def _body(answer: HttpAnswer) -> dict[str, Any]:
    if not answer.headers.get("content-type", "").startswith(_MSGPACK):
        raise ServerError(
            f"the server answered a list as {answer.headers.get('content-type')!r}, not as {_MSGPACK}",
            answer.status,
            {},
        )
    body: dict[str, Any] = msgpack.unpackb(answer.content)
    return body


def _row(result: Mapping[str, Any], body: Mapping[str, Any]) -> Row:
    return Row(
        to_bytes(result["key"]),
        to_bytes(result.get("value") or b""),
        result["version"],
        result["partition"],
        body["token"] or "",
    )
