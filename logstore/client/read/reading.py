"""Reading: the conversation with the read API, without the socket.

Both clients run the same steps, one blocking, one not.

A step is a generator: it yields `Ask` (send this; give me the `HttpAnswer`, or just the time when the server cannot be
reached) and `Pause` (seconds; give me the time), and returns what the caller wanted. It follows 421 to the owner of a
partition and remembers it, and tries again, until the deadline, what the server calls temporary. Times are monotonic
seconds. Every request is a read and may be sent again.
"""

import re
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from logstore.client.checks import check_table
from logstore.client.read.level import LevelBound, level_of
from logstore.client.read.problem import error_of, parse, siblings_of, word_of
from logstore.client.read.row import (
    LISTS,
    MSGPACK,
    Row,
    RowPage,
    many_of,
    page_of,
    positions_of,
    row_of,
    wide_row_of,
)
from logstore.client.read.session_floor import SessionFloor
from logstore.client.read.table_page import partitioning_of
from logstore.client.transport.answer import HttpAnswer
from logstore.client.transport.origin import Origin
from logstore.model.errors import (
    BadToken,
    ConsistencyTimeout,
    LogStoreError,
    NotOwner,
    NotYet,
    ServerError,
    ServerUnreachable,
    UsageError,
    WideTable,
)
from logstore.model.key import MAX_KEY_BYTES, check_key
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.position import MAX_TOKEN_BYTES, Position

if TYPE_CHECKING:
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.selection import CellSelection


class AsOfBound(NamedTuple):
    """Read what held at this point, and not what holds now: a token, or a time in RFC 3339."""

    text: str


After = Position | str | AsOfBound | LevelBound | SessionFloor | None
PointInTime = Position | str | datetime | None
DEADLINE_MS = 2_000  # of a read; the read API has the same default, so it needs not be said
_new = tuple.__new__  # of a NamedTuple, without a frame of its own
MANY = 1000  # keys of one multi-get, rows of one page
_MAX_DEADLINE_MS = 30_000
_GRACE_S = 1.0  # for the way there and back, beyond the server's own deadline
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 0.5
_MAX_HOPS = 5
_OK, _NOT_FOUND = 200, 404
_DOCUMENTS = (b"application/json", MSGPACK.encode())  # what wide rows are; values are bytes
_OF_ROWS = {300: "siblings", 404: "not-found"}  # other answers that say what a row is
_MISDIRECTED = 421  # RFC 9110, section 15.5.20
_BEYOND_S = 30.0
_PLAIN_KEY = re.compile(rb"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")  # what `quote` would leave as it is


def when(
    after: Position | str | SessionFloor | None,
    as_of: PointInTime,
    consistency: str | None = None,
    max_lag_ms: int | None = None,
) -> After:
    """Point that a read asks for, or a level; raises UsageError for two of them, or for a time without a zone."""
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


class Ask(NamedTuple):
    """A request to send."""

    method: str
    base: str  # URL of the node
    path: str  # and query, quoted
    headers: Mapping[str, str]
    content: bytes | None
    end: float  # of the whole exchange, monotonic seconds


class Pause(NamedTuple):
    """A wait before the next attempt."""

    seconds: float


class Budget(NamedTuple):
    """Time that a read may take."""

    deadline_ms: int
    end: float  # monotonic seconds

    @classmethod
    def of(cls, deadline_ms: int, now: float) -> "Budget":
        """Deadline from `now` on; raises UsageError for one that the read API does not take."""
        if type(deadline_ms) is not int or not 1 <= deadline_ms <= _MAX_DEADLINE_MS:
            raise UsageError(f"deadline_ms is a whole number from 1 to {_MAX_DEADLINE_MS:,}, not {deadline_ms!r}")
        return cls(deadline_ms, now + deadline_ms / 1000)

    def left_ms(self, now: HttpAnswer | float) -> int:
        """Milliseconds that are left, at least one."""
        assert isinstance(now, float), "a pause is answered with the time"
        return max(1, round((self.end - now) * 1000))


T = TypeVar("T")
Steps = Generator[Ask | Pause, HttpAnswer | float, T]


class Conversation:
    """The steps of every kind of read against one URL, and what is known about owners.

    `budget` is what a read may take, `now` the time at which it begins.
    """

    def __init__(self, url: str) -> None:
        """Take the address apart; raises UsageError when `url` is no http(s) URL."""
        Origin.of(url)
        self.url = url.rstrip("/")
        self.owners: dict[tuple[str, int], str] = {}
        self._partitionings: dict[str, Partitioning] = {}
        self._beyond: dict[str, float] = {}  # owners that do not answer from here, and until when that is believed

    def first_ask(self, table: str, key: bytes, after: After, budget: Budget) -> Ask:
        """Request that `get` begins with. Most reads need no more: an answer 200 is a `row`."""
        path = f"{_table_path(table)}/rows/{_path_key(check_key(key))}"
        headers = _session(after)
        if budget.deadline_ms != DEADLINE_MS:
            headers["LS-Deadline"] = str(budget.deadline_ms)
        return _new(Ask, ("GET", self._owner(table, key), path, headers, None, budget.end + _GRACE_S))

    def get(self, table: str, key: bytes, after: After, budget: Budget, now: float) -> Steps[Row | None]:
        """Steps that read one row."""
        return self._row(table, key, after, budget, now, None)

    def get_wide(
        self, table: str, key: bytes, after: After, budget: Budget, now: float, cells: "CellSelection"
    ) -> Steps["WideRow | None"]:
        """Steps that read one wide row."""
        return self._row(table, key, after, budget, now, cells)

    def _row(
        self, table: str, key: bytes, after: After, budget: Budget, now: float, cells: "CellSelection | None"
    ) -> Steps[Any]:
        path = f"{_table_path(table)}/rows/{_path_key(check_key(key))}{_cell_query(cells)}"
        headers = _session(after) if cells is None else {**_session(after), "Accept": MSGPACK}
        pause = _FIRST_PAUSE_S
        while True:
            answer = yield from self._ask(table, key, "GET", path, headers, None, budget, now)
            if answer.status != _MISDIRECTED:
                _note(after, answer)
                if answer.status != _NOT_FOUND:
                    return self.row(key, answer, table, wide=cells is not None)
                if cells is None and parse(answer.content).get("wide"):
                    raise WideTable(table)
                return None
            now = yield from _time()
            answered = yield from self._many(table, [key], after, budget, now, cells)
            many = many_of(answered, table, [key], wide=cells is not None)
            if many.keys:
                return many.rows[0]
            self._beyond.clear()  # its owner does not answer there either: it is wanted here as soon as it does
            pause = yield from _pause(pause, budget, self._error(answer, table))
            now = yield from _time()

    def row(self, key: bytes, answer: HttpAnswer, table: str, *, wide: bool = False) -> Any:
        """The row of an answer: a Row, or a WideRow. Raises WideTable, ServerError when it is none of the read API."""
        headers = answer.headers
        version, partition = headers.get(b"ls-version", b""), headers.get(b"ls-partition", b"")
        if not (version.isdigit() and partition.isdigit()):
            raise ServerError(
                f"{self.url} does not speak the read API: no LS-Version and LS-Partition; is the URL right?",
                answer.status, {},
            )  # fmt: skip
        token, source = (
            headers.get(b"ls-token", b"").decode("latin-1"),
            headers.get(b"ls-source", b"").decode("latin-1"),
        )
        if wide:
            return wide_row_of(answer, key, int(version), int(partition), token, source)
        if headers.get(b"content-type") in _DOCUMENTS and answer.status == _OK:
            raise WideTable(table)
        try:
            value = answer.content if answer.status == _OK else siblings_of(parse(answer.content))
        except ValueError as error:
            raise ServerError(f"{self.url} answers with siblings that are none: {error}", answer.status, {}) from error
        return row_of(key, value, int(version), int(partition), token, source)

    def get_many(
        self, table: str, keys: Sequence[bytes], after: After, budget: Budget, now: float,
        cells: "CellSelection | None" = None,
    ) -> Steps[list[Any]]:  # fmt: skip
        """Rows in the order of `keys`, of which there are `MANY` at most; of `cells`, where they are asked for."""
        found: dict[bytes, Any] = {}
        wanted = _distinct(keys)
        distinct = len(wanted)
        pause = _FIRST_PAUSE_S
        while wanted:
            answer = yield from self._many(table, wanted, after, budget, now, cells)
            many = many_of(answer, table, wanted, wide=cells is not None)
            if many.keys == keys:  # as nearly always: all of them, in their order
                return many.rows
            before = len(found)
            found |= zip(many.keys, many.rows, strict=True)
            for key in many.elsewhere:
                found[key] = yield from self._row(table, key, after, budget, (yield from _time()), cells)
            wanted = [key for key in wanted if key not in found] if len(found) < distinct else []
            if wanted and len(found) == before:
                pause = yield from _pause(
                    pause, budget, NotYet(f"{len(wanted):,} keys of table {table} were left out by the server")
                )
            if wanted:
                now = yield from _time()
        return list(map(found.__getitem__, keys))

    def about_row(
        self, table: str, key: bytes, below: str, after: After, budget: Budget, now: float, content: bytes | None = None
    ) -> Steps[HttpAnswer]:
        """Steps that read a page about a row, `below` the path of its table: 200, or 404 where it says "not found".

        `content`: a body in JSON, of a page that is asked by one.
        """
        path, headers = f"{_table_path(table)}/{below}", _session(after)
        if content is not None:
            headers["Content-Type"] = "application/json"
        method = "GET" if content is None else "POST"
        answer = yield from self._ask(table, key, method, path, headers, content, budget, now)
        if answer.status == _MISDIRECTED:  # nobody passes such a page on for an owner that is beyond reach
            self._beyond.clear()
            raise self._error(answer, table)
        _note(after, answer)
        return answer

    def first_ask_many(self, table: str, keys: Sequence[bytes], after: After, budget: Budget) -> Ask:
        """Request that `get_many` begins with. Most of them need no more: see `all_rows`."""
        path, headers, content = _many_request(table, _distinct(keys), after)
        if budget.deadline_ms != DEADLINE_MS:
            headers["LS-Deadline"] = str(budget.deadline_ms)
        return _new(Ask, ("POST", self.url, path, headers, content, budget.end + _GRACE_S))

    def all_rows(
        self, answer: HttpAnswer | float, table: str, keys: Sequence[bytes], after: After
    ) -> list[Row | None] | None:
        """Rows of all `keys`, in their order, when the answer to the first request has them; else None."""
        if isinstance(answer, float) or answer.status != 200:
            return None
        _note(after, answer)
        many = many_of(answer, table, keys)
        return many.rows if many.keys == keys else None

    def page(
        self, table: str, query: Mapping[str, bytes | str], after: After, budget: Budget, now: float,
        *, wide: bool = False,
    ) -> Steps[RowPage]:  # fmt: skip
        """Steps that read a page of a scan."""
        path, headers = _page_request(table, query, after)
        answer = yield from self._ask(table, None, "GET", path, headers, None, budget, now)
        _note(after, answer)
        return page_of(answer, table, keys_only="keys_only" in query, wide=wide)

    def reach(self, table: str, position: Position, budget: Budget, now: float) -> Steps[None]:
        """Steps until all partitions of a position have applied it where they are read: a request for all, mostly.

        What an answer was read from is its `positions`: its token only merges what was sent.
        """
        left = {partition: following for (_, partition), following in position.pieces.items()}
        while left:
            query = {"keys_only": "true", "limit": "1", "partitions": ",".join(map(str, sorted(left)))}
            path, headers = _page_request(table, query, position)
            answer = yield from self._ask(table, None, "GET", path, {**headers, "Accept": MSGPACK}, None, budget, now)
            read = positions_of(answer)
            reached = [partition for partition, following in left.items() if read.get(partition, -1) >= following]
            if not reached:
                raise ServerError("the answer was read from none of the partitions asked for", answer.status, {})
            for partition in reached:
                del left[partition]
            now = answer.now

    def changes(
        self, table: str, query: Mapping[str, bytes | str], budget: Budget, now: float
    ) -> Steps[HttpAnswer]:  # fmt: skip
        """Steps that read a page of a table's changes, in msgpack."""
        path = f"{_table_path(table)}/changes?{urlencode(query, quote_via=quote)}"
        return (yield from self._ask(table, None, "GET", path, {"Accept": MSGPACK}, None, budget, now))

    def page_ask(self, table: str, query: Mapping[str, bytes | str], after: After, deadline_ms: int, now: float) -> Ask:
        """Request that `page` begins with."""
        path, headers = _page_request(table, query, after)
        if deadline_ms != DEADLINE_MS:
            headers["LS-Deadline"] = str(deadline_ms)
        return Ask("GET", self.url, path, headers, None, now + deadline_ms / 1000 + _GRACE_S)

    def _many(
        self, table: str, keys: list[bytes], after: After, budget: Budget, now: float, cells: "CellSelection | None"
    ) -> Steps[HttpAnswer]:
        path, headers, content = _many_request(table, keys, after)
        path += _cell_query(cells)
        answer = yield from self._ask(table, None, "POST", path, headers, content, budget, now)
        _note(after, answer)
        return answer

    def _ask(
        self,
        table: str,
        key: bytes | None,
        method: str,
        path: str,
        headers: dict[str, str],
        content: bytes | None,
        budget: Budget,
        now: float,
    ) -> Steps[HttpAnswer]:
        """Steps to an answer that is one (200, or a row's 300 or 404), from the partition's owner, within the deadline.

        421 is one where the owner cannot be reached from here: the node that says so can be asked to ask it.
        """
        base, hops, pause = self._owner(table, key), 0, _FIRST_PAUSE_S
        if_wrong = (
            self._partitionings if base != self.url else {}
        )  # it was placed by a definition that may be a former one
        while True:
            left_ms = budget.left_ms(now)
            sent = headers if left_ms == DEADLINE_MS else {**headers, "LS-Deadline": str(left_ms)}
            answer = yield Ask(method, base, path, sent, content, now + left_ms / 1000 + _GRACE_S)
            if isinstance(answer, HttpAnswer):
                if answer.status == _OK or (
                    answer.status in _OF_ROWS and word_of(parse(answer.content)) == _OF_ROWS[answer.status]
                ):
                    return answer
                error = self._error(answer, table)
                now = answer.now
            else:
                error, now = (
                    ServerUnreachable(f"{base} does not answer; is the node running? `logstore status --url {base}`"),
                    answer,
                )
                self._forget(base)
                if base != self.url and key is not None:  # its name may be one of another network
                    self._beyond[base] = now + _BEYOND_S
                    base = self.url
                    continue
            if isinstance(error, NotOwner) and self._beyond.get(error.owner or "", 0.0) > now:
                assert isinstance(answer, HttpAnswer), "it names the owner"
                return answer
            if isinstance(error, NotOwner) and error.owner and hops < _MAX_HOPS:
                base, hops = error.owner, hops + 1
                if_wrong.pop(table, None)
                yield from self._remember(table, key, base, budget)
                now = yield from _time()
                continue
            base = self.url
            hint = _retry_after(answer) if isinstance(answer, HttpAnswer) else None
            pause = yield from _pause(hint or pause, budget, error)
            now = yield from _time()

    def _error(self, answer: HttpAnswer, table: str) -> LogStoreError:
        text = answer.headers.get(b"ls-owner")
        owner = None if text is None else text.decode("latin-1").rstrip("/")
        if owner is not None:
            try:
                Origin.of(owner)
            except UsageError as error:
                return ServerError(f"the server names an owner that is none: {error}", answer.status, {})
        return error_of(answer.status, parse(answer.content), table, owner)

    def _owner(self, table: str, key: bytes | None) -> str:
        partitioning = self._partitionings.get(table)
        if key is None or partitioning is None:
            return self.url
        return self.owners.get((table, partitioning.of(key)), self.url)

    def _remember(self, table: str, key: bytes | None, owner: str, budget: Budget) -> Steps[None]:
        """Note the owner of the key's partition; how keys are placed is asked of the server, once per table."""
        if key is None:
            return
        if table not in self._partitionings:
            now = yield from _time()
            end = now + budget.left_ms(now) / 1000 + _GRACE_S
            answer = yield Ask("GET", owner, _table_path(table), {}, None, end)
            found = (
                partitioning_of(parse(answer.content))
                if isinstance(answer, HttpAnswer) and answer.status == 200
                else None
            )
            if found is None:
                return
            self._partitionings[table] = found
        self.owners[table, self._partitionings[table].of(key)] = owner

    def _forget(self, base: str) -> None:
        self.owners = {where: owner for where, owner in self.owners.items() if owner != base}


def _cell_query(cells: "CellSelection | None") -> str:
    """Parameters that name cells of wide rows."""
    return "" if cells is None else f"?{urlencode(cells.params(), quote_via=quote)}"


def _time() -> Steps[float]:
    """The time now."""
    now = yield Pause(0.0)
    assert isinstance(now, float), "a pause is answered with the time"
    return now


def _pause(seconds: float, budget: Budget, error: LogStoreError) -> Steps[float]:
    """Wait before the next attempt and return the pause after that.

    Raises `error` when it is final or the deadline would pass.
    """
    now = yield from _time()
    if not error.retriable or isinstance(error, ConsistencyTimeout) or now + seconds >= budget.end:
        raise error
    yield Pause(seconds)
    return min(seconds * 2, _LAST_PAUSE_S)


def _retry_after(answer: HttpAnswer) -> float | None:
    try:
        return max(float(answer.headers[b"retry-after"]), _FIRST_PAUSE_S)
    except (KeyError, ValueError):
        return None


def _session(after: After) -> dict[str, str]:
    if after is None:
        return {}
    if isinstance(after, AsOfBound):
        return {"LS-As-Of": after.text}
    if isinstance(after, LevelBound):
        return after.headers()
    token = after if isinstance(after, str) else after.token
    return {"LS-Consistency": "session", "LS-Token": token} if token else {}


def _note(after: After, answer: HttpAnswer) -> None:
    """Have the session that a read belongs to see what the answer tells, also where it tells of no row."""
    floor = after.floor if isinstance(after, LevelBound) else after if isinstance(after, SessionFloor) else None
    if floor is not None and (token := answer.headers.get(b"ls-token")):
        try:
            floor.rise(token.decode("latin-1"))
        except BadToken as error:
            raise ServerError(f"the server's LS-Token is none: {error}", answer.status, {}) from error


def _page_request(table: str, query: Mapping[str, bytes | str], after: After) -> tuple[str, dict[str, str]]:
    text = "&".join([f"{name}={quote(value, safe='')}" for name, value in query.items()])
    return f"{_table_path(table)}/rows?{text}", {**_session(after), "Accept": LISTS}


def _distinct(keys: Sequence[bytes]) -> list[bytes]:
    """The keys of a multi-get, each once. Raises BadKey."""
    lengths = {*map(len, keys)}
    if 0 in lengths or max(lengths) > MAX_KEY_BYTES:
        for key in keys:
            check_key(key)
    return list(dict.fromkeys(keys))


def _many_request(table: str, keys: list[bytes], after: After) -> tuple[str, dict[str, str], bytes]:
    import orjson  # noqa: PLC0415 - who reads row by row does without

    headers = {**_session(after), "Accept": LISTS, "Content-Type": "application/json"}
    return f"{_table_path(table)}/rows:get", headers, orjson.dumps({"keys": _json_keys(keys)})


def _table_path(table: str) -> str:
    return _quoted(check_table(table))


@lru_cache(256)
def _quoted(table: str) -> str:
    return f"/v1/tables/{quote(table, safe='')}"


def _path_key(key: bytes) -> str:
    """Percent-encode a key for a path.

    The keys `.` and `..` too, which clients and proxies would take for directories (RFC 3986, 5.2.4).
    """
    if _PLAIN_KEY.fullmatch(key):
        return key.decode("ascii")
    return quote(key, safe="") if key.strip(b".") or len(key) > 2 else "%2E" * len(key)


def _json_keys(keys: list[bytes]) -> list[object]:
    try:
        return list(map(bytes.decode, keys))
    except UnicodeDecodeError:
        return [_json_key(key) for key in keys]


def _json_key(key: bytes) -> object:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(key).decode()}
