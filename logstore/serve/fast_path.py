"""Fast path: whole, simple GETs of single rows, answered straight from the bytes of the request.

Simple means: one request, HTTP/1.1, no query, and only headers that change nothing; or besides them a session's token
of positions in the row's own table, of which that in the row's partition is applied by now, so that nothing has to be
waited for. Everything else is not answered here (None) and goes the ordinary way, which gives the same bytes for what
both can answer.
"""

import re
from time import perf_counter

from logstore.model.errors import LogStoreError
from logstore.model.folding.entry import HEAD_BYTES, VALUE
from logstore.model.key import MAX_KEY_BYTES
from logstore.serve.metrics.counts import Metrics
from logstore.serve.request_log import RequestLog
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import SNAPSHOT, VIEW, ServedPartition
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import next_number, percent_decode, process_id
from logstore.view.layout import STATE_BYTES

_LINE = re.compile(rb"GET /v1/tables/([a-z0-9._-]+)/rows/([A-Za-z0-9._~!$&'()*+,;=:@/%-]+) HTTP/1\.1\r\n")
_HARMLESS = re.compile(
    rb"(?:(?:host|user-agent|accept-encoding|accept-language|cache-control|pragma|referer|origin):[\t -~]*\r\n"
    rb"|accept:[ \t]*\*/\*[ \t]*\r\n|connection:[ \t]*keep-alive[ \t]*\r\n"
    rb"|ls-deadline:[ \t]*(?:[1-9][0-9]{0,3}|[12][0-9]{4}|30000)[ \t]*\r\n)*\r\n",  # what waits for nothing is in time
    re.IGNORECASE,
)
_PIECE = rb"[0-9a-f]{32}-(?:0|[1-9][0-9]{0,8})-(?:0|[1-9][0-9]{0,17})"  # numbers that are surely within bounds
_SESSION = re.compile(  # as our clients write it
    rb"^ls-consistency: session\r\nls-token: (%b(?:,%b)*)\r\n" % (_PIECE, _PIECE), re.IGNORECASE | re.MULTILINE
)
_HOST = re.compile(rb"^host:", re.IGNORECASE | re.MULTILINE)  # exactly one (RFC 9112, section 3.2)
_DEADLINE = re.compile(rb"^ls-deadline:", re.IGNORECASE | re.MULTILINE)  # one at most
_TOKEN = "\r\nls-token: "
_EPOCH_DIGITS = 32
_MAX_HEADS = 4_096  # harmless ones kept: a client sends the same headers again and again
_MAX_HEAD_BYTES = 8_192


class FastPath:
    """Answers to plain reads, made from the bytes of their requests; None for all the rest."""

    def __init__(self, catalog: Catalog, metrics: Metrics, request_log: RequestLog) -> None:
        self._catalog, self._metrics = catalog, metrics
        self._request_log, self._slow_s = request_log, request_log.slow_s
        self._harmless: set[bytes] = set()  # heads, each to its very end: so no second request and no body follows

    def answer(self, data: bytes, default_head: str) -> bytes | None:
        """The whole answer to the whole request `data`.

        `default_head` is what every answer begins with behind its status line.
        """
        started = perf_counter()
        line = _LINE.match(data)
        if line is None:
            return None
        head, session = data[line.end() :], None
        if head not in self._harmless and not self._judge(head):
            session = _SESSION.search(head)
            if session is None:
                return None
            head = head[: session.start()] + head[session.end() :]  # a second one is a header that is not harmless
            if head not in self._harmless and not self._judge(head):
                return None
        try:
            answer = self._row(line[1], line[2], default_head, session)
        except (Problem, LogStoreError):  # the ordinary way says it in full
            return None
        if answer is not None:
            took_s = perf_counter() - started
            self._metrics.count_fast(took_s)
            if took_s >= self._slow_s:
                self._request_log.slow_row(line[1], answer, took_s)
        return answer

    def _row(self, name: bytes, key: bytes, default_head: str, session: re.Match[bytes] | None) -> bytes | None:
        table = self._catalog.fast.get(name)
        if table is None:
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
        if not entry or entry[0] != VALUE:  # an empty one is damaged
            return None
        if state != served.stood:
            _note(served, state, served.end)
        self._metrics.fast_from_base += from_base
        version, tail = int.from_bytes(entry[1:9], "big"), served.tail[from_base]
        if token:
            tail = tail.replace(f"{_TOKEN}{served.head}{int.from_bytes(state[:8], 'big')}", f"{_TOKEN}{token}")
        return (
            f"HTTP/1.1 200 OK\r\n{default_head}content-type: application/octet-stream\r\ncontent-length: "
            f"{len(entry) - HEAD_BYTES}\r\n"
            f'etag: "{served.head}{version}"\r\nls-partition: {served.partition}\r\nls-version: {version}\r\n'
            f"{tail}{next_number():x}\r\n\r\n"
        ).encode() + entry[HEAD_BYTES:]

    def _judge(self, head: bytes) -> bool:
        """Judge whether these headers, to their end, leave the answer unchanged; if so that is remembered."""
        if len(head) > _MAX_HEAD_BYTES or _HARMLESS.fullmatch(head) is None:
            return False
        if len(_HOST.findall(head)) != 1 or len(_DEADLINE.findall(head)) > 1:
            return False
        if len(self._harmless) >= _MAX_HEADS:
            self._harmless.clear()
        self._harmless.add(head)
        return True


class NoFastPath(FastPath):
    """A fast path that answers nothing: every request goes the ordinary way, and is logged there."""

    def answer(self, data: bytes, default_head: str) -> bytes | None:  # noqa: ARG002 - as of the one that answers
        """Leave the request to the ordinary way."""
        return None


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


def _note(served: ServedPartition, state: bytes, end: int) -> None:
    """Draw the headers that change only with the state, once per state."""
    applied = int.from_bytes(state[:8], "big")
    before = f"ls-applied: {applied}\r\nls-lag: {max(end - applied, 0)}\r\nls-source: "
    # and a number: see `request.new_request_id`
    behind = f"{_TOKEN}{served.head}{applied}\r\nx-request-id: {process_id()}-"
    served.tail = before + VIEW + behind, before + SNAPSHOT + behind
    served.stood = state
