"""Conversation: the steps of every kind of read against one URL.

Whoever runs them gives the point and the deadline; the budget counts from the first step.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from logstore.client.checks import Text
from logstore.client.read.budget import DEADLINE_MS, GRACE_S, Budget
from logstore.client.read.conversation.exchange import MISDIRECTED, NOT_FOUND, OK, ReadRequest, answered, problem_of
from logstore.client.read.conversation.owners import Owners
from logstore.client.read.conversation.requests import (
    cell_query,
    distinct,
    many_request,
    page_request,
    row_path,
    table_path,
    thousands,
)
from logstore.client.read.conversation.scan import Scan
from logstore.client.read.conversation.steps import FIRST_PAUSE_S, Ask, Steps, begun, pause, time_now
from logstore.client.read.point import After, headers_of, note
from logstore.client.read.problem import parse, siblings_of
from logstore.client.read.row import MSGPACK, Many, Row, many_of, positions_of, row_of, wide_row_of
from logstore.client.read.scan_pages import ScanPages
from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import NotYet, ServerError, WideTable
from logstore.model.key import check_key, to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.selection import CellSelection

_POLL_MS = 15_000  # for the snapshot part's page, and what is temporary
_DOCUMENT = {"Accept": MSGPACK}
_DOCUMENTS = (b"application/json", MSGPACK.encode())  # what wide rows are; values are bytes
_VALUE = b"application/octet-stream"
_new = tuple.__new__  # of a NamedTuple, without a frame of its own


class Conversation:
    """The steps of reads, and what is known about owners."""

    def __init__(self, url: str) -> None:
        """Know nothing but the URL yet; raises UsageError when it is no http(s) URL."""
        self._owners = Owners(url)

    def get(self, table: str, key: Text, after: After, deadline_ms: int) -> Steps[Row | None]:
        """Steps that read one row: mostly one request, whose answer is the row."""
        raw, budget = to_bytes(key), Budget.of(deadline_ms)
        first = yield self.first_ask(table, raw, after, deadline_ms, budget)
        if isinstance(first, HttpAnswer) and first.status == OK:
            return self.row_of(table, raw, first)
        row: Row | None = yield from self.get_on(table, raw, after, budget, first)
        return row

    def first_ask(
        self, table: str, key: bytes, after: After, deadline_ms: int, budget: Budget,
        cells: "CellSelection | None" = None,
    ) -> Ask:  # fmt: skip
        """The request that reads one row, written out, for it is all that most reads cost; `cells`: of a wide row."""
        headers = {} if after is None else headers_of(after)
        if deadline_ms != DEADLINE_MS:
            headers["LS-Deadline"] = str(deadline_ms)
        path = row_path(table, key)
        if cells is not None:
            path, headers["Accept"] = path + cell_query(cells), MSGPACK
        owner = self._owners.of(table, key)
        ask: Ask = _new(Ask, ("GET", owner, path, headers, None, budget.end + GRACE_S))
        return ask

    def row_of(self, table: str, key: bytes, answer: HttpAnswer) -> Row:
        """The row of an answer to the first request. Requires: its status is OK."""
        headers = answer.headers
        version, partition = headers.get(b"ls-version", b""), headers.get(b"ls-partition", b"")
        token, source = headers.get(b"ls-token"), headers.get(b"ls-source")
        if token and source and version.isdigit() and partition.isdigit() and headers.get(b"content-type") == _VALUE:
            places = int(version), int(partition), token.decode("latin-1"), source.decode("latin-1")
            row: Row = _new(Row, (key, answer.content, *places))
            return row
        other: Row = self._row(key, answer, table)
        return other

    def wide_row_of(self, table: str, key: bytes, answer: HttpAnswer) -> "WideRow":
        """The wide row of an answer to the first request. Requires: its status is OK."""
        row: WideRow = self._row(key, answer, table, wide=True)
        return row

    def get_on(
        self, table: str, key: bytes, after: After, budget: Budget, first: HttpAnswer | float,
        cells: "CellSelection | None" = None,
    ) -> Steps[Any]:  # fmt: skip
        """Steps behind the first request of one row, which brought something else than the row, or only the time."""
        return (yield from begun(self._one(table, key, after, budget, budget.began, cells), first))

    def get_wide(
        self, table: str, key: Text, cells: "CellSelection", after: After, deadline_ms: int
    ) -> Steps["WideRow | None"]:
        """Steps that read one wide row."""
        raw, budget = to_bytes(key), Budget.of(deadline_ms)
        first = yield self.first_ask(table, raw, after, deadline_ms, budget, cells)
        if isinstance(first, HttpAnswer) and first.status == OK:
            return self.wide_row_of(table, raw, first)
        row: WideRow | None = yield from self.get_on(table, raw, after, budget, first, cells)
        return row

    def get_many(self, table: str, keys: Sequence[Text], after: After, deadline_ms: int) -> Steps[list[Row | None]]:
        """Steps that read rows in the order of `keys`: mostly one request for each thousand, whose answer has all."""
        rows: list[Row | None] = []
        for some in thousands(keys):
            budget = Budget.of(deadline_ms)
            path, headers, content = many_request(table, distinct(some), after)
            headers = budget.said_in(headers)
            first = yield Ask("POST", self._owners.url, path, headers, content, budget.last_answer)
            found = _all_rows(first, table, some, after)
            rows += (yield from begun(self._every(table, some, after, budget, None), first)) if found is None else found
        return rows

    def get_many_wide(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", after: After, deadline_ms: int
    ) -> Steps["list[WideRow | None]"]:
        """Steps that read wide rows in the order of `keys`."""
        rows: list[WideRow | None] = []
        for some in thousands(keys):
            rows += yield from self._every(table, some, after, Budget.of(deadline_ms), cells)
        return rows

    def scan(self, table: str, pages: ScanPages, after: After, deadline_ms: int) -> Scan:
        """Pages of rows, in order, each of them in steps."""
        return Scan(self._owners, table, pages, after, deadline_ms)

    def about_row(
        self, table: str, key: bytes, below: str, after: After, deadline_ms: int, content: bytes | None = None
    ) -> Steps[HttpAnswer]:
        """Steps that read a page about a row, `below` the path of its table: 200, or 404 where it says "not found".

        `content`: a body in JSON, of a page that is asked by one.
        """
        budget, path, headers = Budget.of(deadline_ms), f"{table_path(table)}/{below}", headers_of(after)
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = ReadRequest(table, path, headers, "GET" if content is None else "POST", content, check_key(key))
        answer = yield from answered(self._owners, request, budget, budget.began)
        if answer.status == MISDIRECTED:  # nobody passes such a page on for an owner that is beyond reach
            self._owners.hope()
            raise problem_of(answer, table)
        note(after, answer)
        return answer

    def reach(self, table: str, position: Position, deadline_ms: int) -> Steps[None]:
        """Steps until all partitions of a position have applied it where they are read: a request for all, mostly.

        What an answer was read from is its `positions`: its token only merges what was sent.
        """
        budget = Budget.of(deadline_ms)
        left = {partition: following for (_, partition), following in position.pieces.items()}
        now = budget.began
        while left:
            query = {"keys_only": "true", "limit": "1", "partitions": ",".join(map(str, sorted(left)))}
            path, headers = page_request(table, query, position)
            answer = yield from answered(self._owners, ReadRequest(table, path, {**headers, **_DOCUMENT}), budget, now)
            read = positions_of(answer)
            reached = [partition for partition, following in left.items() if read.get(partition, -1) >= following]
            if not reached:
                raise ServerError("the answer was read from none of the partitions asked for", answer.status, {})
            for partition in reached:
                del left[partition]
            now = answer.now

    def changes(self, table: str, query: Mapping[str, bytes | str], wait_ms: int) -> Steps[HttpAnswer]:
        """Steps that read a page of a table's changes, in msgpack, for which the server waits `wait_ms`."""
        budget = Budget.of(wait_ms + _POLL_MS)
        path = f"{table_path(table)}/changes?{urlencode(query, quote_via=quote)}"
        return (yield from answered(self._owners, ReadRequest(table, path, _DOCUMENT), budget, budget.began))

    def _one(
        self, table: str, key: bytes, after: After, budget: Budget, now: float, cells: "CellSelection | None"
    ) -> Steps[Any]:
        path = row_path(table, key) + cell_query(cells)
        headers = headers_of(after) if cells is None else {**headers_of(after), **_DOCUMENT}
        request, pause_s = ReadRequest(table, path, headers, key=key), FIRST_PAUSE_S
        while True:
            answer = yield from answered(self._owners, request, budget, now)
            if answer.status != MISDIRECTED:
                note(after, answer)
                if answer.status != NOT_FOUND:
                    return self._row(key, answer, table, wide=cells is not None)
                if cells is None and parse(answer.content).get("wide"):
                    raise WideTable(table)
                return None
            many = yield from self._many(table, [key], after, budget, (yield from time_now()), cells)
            if many.keys:
                return many.rows[0]
            self._owners.hope()  # its owner does not answer there either: it is wanted here as soon as it does
            pause_s = yield from pause(pause_s, budget, problem_of(answer, table))
            now = yield from time_now()

    def _every(
        self, table: str, keys: list[bytes], after: After, budget: Budget, cells: "CellSelection | None"
    ) -> Steps[list[Any]]:
        """Rows in the order of `keys`, of which there are `MANY` at most; of `cells`, where they are asked for."""
        found: dict[bytes, Any] = {}
        wanted = distinct(keys)
        number, pause_s, now = len(wanted), FIRST_PAUSE_S, budget.began
        while wanted:
            many = yield from self._many(table, wanted, after, budget, now, cells)
            if many.keys == keys:  # as nearly always: all of them, in their order
                return many.rows
            before = len(found)
            found |= zip(many.keys, many.rows, strict=True)
            for key in many.elsewhere:
                found[key] = yield from self._one(table, key, after, budget, (yield from time_now()), cells)
            wanted = [key for key in wanted if key not in found] if len(found) < number else []
            if wanted and len(found) == before:
                left_out = NotYet(f"{len(wanted):,} keys of table {table} were left out by the server")
                pause_s = yield from pause(pause_s, budget, left_out)
            if wanted:
                now = yield from time_now()
        return list(map(found.__getitem__, keys))

    def _many(
        self, table: str, keys: list[bytes], after: After, budget: Budget, now: float, cells: "CellSelection | None"
    ) -> Steps[Many]:
        path, headers, content = many_request(table, keys, after)
        request = ReadRequest(table, path + cell_query(cells), headers, "POST", content)
        answer = yield from answered(self._owners, request, budget, now)
        note(after, answer)
        return many_of(answer, table, keys, wide=cells is not None)

    def _row(self, key: bytes, answer: HttpAnswer, table: str, *, wide: bool = False) -> Any:
        """The row of an answer: a Row, or a WideRow. Raises WideTable, ServerError when it is none of the read API."""
        headers = answer.headers
        version, partition = headers.get(b"ls-version", b""), headers.get(b"ls-partition", b"")
        if not (version.isdigit() and partition.isdigit()):
            raise ServerError(
                f"{self._owners.url} does not speak the read API: no LS-Version and LS-Partition; is the URL right?",
                answer.status, {},
            )  # fmt: skip
        token = headers.get(b"ls-token", b"").decode("latin-1")
        source = headers.get(b"ls-source", b"").decode("latin-1")
        if wide:
            return wide_row_of(answer, key, int(version), int(partition), token, source)
        if headers.get(b"content-type") in _DOCUMENTS and answer.status == OK:
            raise WideTable(table)
        try:
            value = answer.content if answer.status == OK else siblings_of(parse(answer.content))
        except ValueError as error:
            url = self._owners.url
            raise ServerError(f"{url} answers with siblings that are none: {error}", answer.status, {}) from error
        return row_of(key, value, int(version), int(partition), token, source)


def _all_rows(
    answer: HttpAnswer | float, table: str, keys: Sequence[bytes], after: After
) -> list[Row | None] | None:  # fmt: skip
    """Rows of all `keys`, in their order, when the answer to the first request has them; else None."""
    if isinstance(answer, float) or answer.status != OK:
        return None
    note(after, answer)
    many = many_of(answer, table, keys)
    return many.rows if many.keys == keys else None
