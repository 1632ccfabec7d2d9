"""Fast path: whole, simple GETs of single rows, answered straight from the bytes of the request.

Simple means: one request, HTTP/1.1, no query, and only headers that change nothing; or besides them a session's token
of positions in the row's own table, of which that in the row's partition is applied by now, so that nothing has to be
waited for. Of a wide row the query may name cells and nothing else, and msgpack may be accepted; no cell of its table
ends by itself. Everything else is not answered here (None) and goes the ordinary way, which gives the same bytes for
what both can answer.
"""

import re
from time import perf_counter

from logstore.model.errors import LogStoreError
from logstore.model.folding.entry import CELLS, HEAD_BYTES, VALUE
from logstore.model.key import MAX_KEY_BYTES
from logstore.serve.metrics.counts import Metrics
from logstore.serve.read.parameters.cells_asked import ANY, CellForms, CellsAsked
from logstore.serve.request_log import RequestLog
from logstore.serve.settings import MAX_PARSED_BYTES
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import SNAPSHOT, VIEW, ServedPartition
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import next_number, percent_decode, process_id
from logstore.view.layout import STATE_BYTES

_LINE = re.compile(
    rb"GET /v1/tables/([a-z0-9._-]+)/rows/([A-Za-z0-9._~!$&'()*+,;=:@/%-]+)"
    rb"(?:\?([A-Za-z0-9._~!$&'()*+,;=:@/?%-]*))? HTTP/1\.1\r\n"
)
_HARMLESS = re.compile(
    rb"(?:(?:host|user-agent|accept-encoding|accept-language|cache-control|pragma|referer|origin):[\t -~]*\r\n"
    rb"|accept:[ \t]*(?:\*/\*|application/msgpack)[ \t]*\r\n|connection:[ \t]*keep-alive[ \t]*\r\n"
    rb"|ls-deadline:[ \t]*(?:[1-9][0-9]{0,3}|[12][0-9]{4}|30000)[ \t]*\r\n)*\r\n",  # what waits for nothing is in time
    re.IGNORECASE,
)
_PIECE = rb"[0-9a-f]{32}-(?:0|[1-9][0-9]{0,8})-(?:0|[1-9][0-9]{0,17})"  # numbers that are surely within bounds
_SESSION = re.compile(  # as our clients write it
    rb"^ls-consistency: session\r\nls-token: (%b(?:,%b)*)\r\n" % (_PIECE, _PIECE), re.IGNORECASE | re.MULTILINE
)
_HOST = re.compile(rb"^host:", re.IGNORECASE | re.MULTILINE)  # exactly one (RFC 9112, section 3.2)
_ACCEPT = re.compile(rb"^accept:[ \t]*([^ \t\r]*)", re.IGNORECASE | re.MULTILINE)
_DEADLINE = re.compile(rb"^ls-deadline:", re.IGNORECASE | re.MULTILINE)  # one at most
_TOKEN, _VARY = "\r\nls-token: ", "\r\nvary: accept"
_EPOCH_DIGITS = 32
_MAX_HEADS = 4_096  # harmless ones kept: a client sends the same headers again and again
_MAX_HEAD_BYTES = 8_192


class FastPath:
    """Answers to plain reads, made from the bytes of their requests; None for all the rest."""

    def __init__(self, catalog: Catalog, metrics: Metrics, request_log: RequestLog) -> None:
        self._catalog, self._metrics = catalog, metrics
        self._request_log, self._slow_s = request_log, request_log.slow_s
        self._cell_forms = CellForms()
        # heads, each to its very end: so no second request and no body follows; and what they accept
        self._harmless: dict[bytes, str] = {}

    def answer(self, data: bytes, default_head: str) -> bytes | None:
        """The whole answer to the whole request `data`.

        `default_head` is what every answer begins with behind its status line.
        """
        started = perf_counter()
        line = _LINE.match(data)
        if line is None:
            return None
        head, session = data[line.end() :], None
        accept = self._harmless.get(head) or self._judge(head)
        if accept is None:
            session = _SESSION.search(head)
            if session is None:
                return None
            head = head[: session.start()] + head[session.end() :]  # a second one is a header that is not harmless
            accept = self._harmless.get(head) or self._judge(head)
            if accept is None:
                return None
        try:
            answer = self._row(line, accept, default_head, session)
        except (Problem, LogStoreError):  # the ordinary way says it in full
            return None
        if answer is not None:
            took_s = perf_counter() - started
            self._metrics.count_fast(took_s)
            if took_s >= self._slow_s:
                self._request_log.slow_row(line[1], answer, took_s)
        return answer

    def _row(
        self, line: re.Match[bytes], accept: str, default_head: str, session: re.Match[bytes] | None
    ) -> bytes | None:
        name, key, query = line.groups()
        table = self._catalog.fast.get(name)
        if table is None:
            return None
        asked = None if table.wide is None else self._cell_forms.of(table.wide, query or b"", accept)
        if asked is None and (query is not None or accept != ANY):
            return None
        if b"%" in key:
            key = percent_decode(key, "bad-key")
        if len(key) > MAX_KEY_BYTES:
            return None
        served = table.served[table.place(key)]
        if served is None or served.reader is None or served.end is None:
            return None
        state, entry = served.reader.point(key)
        if len(state) != STATE_BYTES:
            return None
        token = None if session is None else _token(served, table.partitions, int.from_bytes(state[:8], "big"), session)
        if session is not None and token is None:
            return None
        from_base = entry is None
        if from_base and served.base is not None:
            entry = served.base.get(key)
        if not entry:  # an empty one is damaged
            return None
        body = _value(entry) if asked is None else _cells(served, asked, key, entry)
        if body is None:
            return None
        if state != served.stood:
            _note(served, state, served.end, "" if asked is None else _VARY)
        self._metrics.fast_from_base += from_base
        version = int.from_bytes(entry[1:9], "big")
        content_type, mark = (media_types.BYTES, "") if asked is None else asked[1:]
        tail = served.tail[from_base]
        if token:
            tail = tail.replace(f"{_TOKEN}{served.head}{int.from_bytes(state[:8], 'big')}", f"{_TOKEN}{token}")
        return (
            f"HTTP/1.1 200 OK\r\n{default_head}content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
            f'etag: "{served.head}{version}{mark}"\r\nls-partition: {served.partition}\r\nls-version: {version}\r\n'
            f"{tail}{next_number():x}\r\n\r\n"
        ).encode() + body

    def _judge(self, head: bytes) -> str | None:
        """Media type that these headers accept, where to their end they change nothing else; if so it is remembered."""
        if len(head) > _MAX_HEAD_BYTES or _HARMLESS.fullmatch(head) is None:
            return None
        if len(_HOST.findall(head)) != 1 or len(_DEADLINE.findall(head)) > 1:
            return None
        accepted = {one.decode() for one in _ACCEPT.findall(head)} or {ANY}
        if len(accepted) > 1:
            return None
        if len(self._harmless) >= _MAX_HEADS:
            self._harmless.clear()
        accept: str = accepted.pop().lower()
        self._harmless[head] = accept
        return accept


class NoFastPath(FastPath):
    """A fast path that answers nothing: every request goes the ordinary way, and is logged there."""

    def answer(self, data: bytes, default_head: str) -> bytes | None:  # noqa: ARG002 - as of the one that answers
        """Leave the request to the ordinary way."""
        return None


def _value(entry: bytes) -> bytes | None:
    """Body of the answer of a row that has one value; None: it is not to be told here."""
    return entry[HEAD_BYTES:] if entry[0] == VALUE else None


def _cells(served: ServedPartition, asked: CellsAsked, key: bytes, entry: bytes) -> bytes | None:
    """Body of the answer of a wide row; None: it is not to be told here. Raises Corrupted."""
    if entry[0] != CELLS or len(entry) > MAX_PARSED_BYTES or served.reader is None or served.reader.expiring:
        return None
    found = asked.cells.of(entry[HEAD_BYTES:])
    return asked.body(key, found, int.from_bytes(entry[1:9])) if found.cells and not found.ends else None


def _token(served: ServedPartition, partitions: int, applied: int, session: re.Match[bytes]) -> str | None:
    """Token of the answer where it is more than the partition's position, which is "" here; None: not to be told here.

    As `answer_token`: the session's, merged with what is read.
    """
    epoch = served.head[:_EPOCH_DIGITS]
    following = {served.partition: applied}
    for piece in session[1].decode().split(","):
        piece_epoch, partition, offset = piece.split("-")
        place, asked = int(partition), int(offset)
        if piece_epoch != epoch or place >= partitions or (place == served.partition and asked > applied):
            return None
        following[place] = max(following.get(place, 0), asked)
    if len(following) == 1:
        return ""
    return ",".join([f"{epoch}-{place}-{following[place]}" for place in sorted(following)])


def _note(served: ServedPartition, state: bytes, end: int, vary: str) -> None:
    """Draw the headers that change only with the state, once per state."""
    applied = int.from_bytes(state[:8], "big")
    before = f"ls-applied: {applied}\r\nls-lag: {max(end - applied, 0)}\r\nls-source: "
    # and a number: see `request.new_request_id`
    behind = f"{_TOKEN}{served.head}{applied}{vary}\r\nx-request-id: {process_id()}-"
    served.tail = before + VIEW + behind, before + SNAPSHOT + behind
    served.stood = state
