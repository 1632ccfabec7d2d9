"""Request log: lines about requests that were slow or failed, or about all of them, each with its request id."""

from typing import Any

import orjson

from logstore.process import logs
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response

_MOST_BYTES = 200  # of a path: a key may have 64 KiB
_ID = b"\r\nx-request-id: "

log = logs.get(__name__)
access_log = logs.get(logs.ACCESS)


class RequestLog:
    """Lines of a reader about its requests. `slow_s`: a request that takes so long is worth a line."""

    def __init__(self, slow_s: float, *, every: bool = False) -> None:
        """`every`: an access log, a line for each request at INFO."""
        self.slow_s, self._every = slow_s, every

    def answered(self, request: Request, route: str, answer: Response, took_s: float) -> None:
        """Take note of an answer of the application."""
        slow, failed = took_s >= self.slow_s, answer.status >= 500
        if not (slow or failed or self._every):
            return
        fields = {**place_of(request), "route": route, "status": answer.status, "ms": round(took_s * 1000, 3)}
        if failed:
            log.info("a request failed", **fields, **_problem_of(answer))
        if slow:
            log.warning("a request was slow", **fields)
        if self._every:
            access_log.info("a request was answered", **fields)

    def slow_row(self, table: bytes, answer: bytes, took_s: float) -> None:
        """Take note of a row that the fast path was slow to find."""
        request_id = answer.partition(_ID)[2].partition(b"\r\n")[0].decode()
        log.warning(
            "a request was slow", request_id=request_id, method="GET", route="row", status=200,
            table=table.decode(), ms=round(took_s * 1000, 3),
        )  # fmt: skip


def place_of(request: Request) -> dict[str, str]:
    """The request's id, method and the beginning of its path."""
    path = request.path[:_MOST_BYTES].decode("latin-1")
    return {"request_id": request.request_id, "method": request.method, "path": path}


def _problem_of(answer: Response) -> dict[str, Any]:
    """Word and detail of a problem document; an answer to HEAD has one too, which is not sent."""
    document = orjson.loads(answer.body)
    return {"problem": document["type"], "detail": document["detail"]}
