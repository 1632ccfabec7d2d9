"""App: the raw ASGI callable that answers everything the fast path does not.

Every error becomes a problem document here; what nobody expected becomes `internal` with the request id, and its trace
goes to the log. Whatever is logged while a request is answered has its id.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.model.errors import LogStoreError
from logstore.process import logs
from logstore.serve.changes.changes_page import ChangesPage
from logstore.serve.metrics.page import CONTENT_TYPE, MetricsPage
from logstore.serve.read.multiget import MultiGet
from logstore.serve.read.outcomes import OutcomePages
from logstore.serve.read.point import PointRead
from logstore.serve.read.scan import ScanPage
from logstore.serve.request_log import RequestLog, place_of
from logstore.serve.status_pages import Pages
from logstore.serve.store_status import StoreStatus
from logstore.serve.wire.problems import Problem, problem_of
from logstore.serve.wire.request import CLIENT_GONE, ClientGoneError, Request, percent_decode
from logstore.serve.wire.response import Response, page

if TYPE_CHECKING:
    from logstore.serve.writes.pages import WritePages  # loads librdkafka, which readers do without

_READ = ("GET", "HEAD")
_WRITTEN = (*_READ, "PUT", "DELETE", "PATCH")
_NO_WRITES = "; writes over HTTP are off: `--writes` (LOGSTORE_WRITES) of the node turns them on"
log = logs.get(__name__)


class Route(NamedTuple):
    """Target of a path: `name` is the label in metrics."""

    name: str
    methods: tuple[str, ...]
    handle: Callable[[], Awaitable[Response]]
    hint: str = ""  # beside the refusal of another method


class App:
    """The ASGI application of a reader."""

    def __init__(
        self,
        rows: PointRead,
        scan: ScanPage,
        multiget: MultiGet,
        outcomes: OutcomePages,
        changes: ChangesPage,
        pages: Pages,
        store: StoreStatus,
        metrics: MetricsPage,
        request_log: RequestLog,
        writes: "WritePages | None" = None,
    ) -> None:
        """`writes`: where this reader takes some."""
        self._request_log = request_log
        self._rows, self._scan, self._multiget, self._outcomes = rows, scan, multiget, outcomes
        self._changes, self._writes = changes, writes
        self._metrics, self._metrics_text = metrics.counts, metrics.text
        self._pages = pages
        self._plain: dict[bytes, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            b"/healthz": ("healthz", pages.healthz),
            b"/livez": ("livez", pages.healthz),
            b"/readyz": ("readyz", pages.readyz),
            b"/version": ("version", pages.version),
            b"/metrics": ("metrics", self._metrics_page),
            b"/openapi.json": ("openapi", self._openapi),
            b"/v1/tables": ("tables", pages.tables),
            b"/v1/partitions": ("partitions", pages.partitions),
            b"/v1/snapshots": ("snapshots", pages.snapshots),
            b"/v1/cluster": ("cluster", pages.cluster),
            b"/v1/status": ("status", store.status),
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        started = perf_counter()
        request = Request(scope, receive)
        logs.REQUEST_ID.set(request.request_id)  # each request runs in a task of its own
        try:
            route, answer = await self._answer(request)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            if scope.get(CLIENT_GONE):
                return
            raise
        headers = [*answer.headers, (b"x-request-id", request.request_id.encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        took_s = perf_counter() - started  # of a stream: until it begins
        if answer.stream is not None:
            async with contextlib.aclosing(answer.stream) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})
        took_s = took_s if answer.stream is not None else perf_counter() - started
        self._metrics.count(_label(request.method), route, answer.status, took_s)
        self._request_log.answered(request, route, answer, took_s)

    async def _answer(self, request: Request) -> tuple[str, Response]:
        route = "none"
        try:
            found = self._route(request)
            route = found.name
            _check_method(request, found)
            return route, await found.handle()
        except Problem as problem:
            return route, problem.answer()
        except LogStoreError as error:
            return route, problem_of(error).answer()
        except ClientGoneError:
            raise
        except Exception:  # the edge: a fault of ours is an answer, and the reader goes on
            log.exception("a request failed by a fault of ours", **place_of(request), route=route)
            detail = "the request id finds the cause in this reader's log"
            return route, Problem("internal", detail, request_id=request.request_id).answer()

    def _route(self, request: Request) -> Route:
        plain = self._plain.get(request.path)
        if plain is not None:
            return Route(plain[0], _READ, lambda: plain[1](request))
        prefix, _, rest = request.path.partition(b"/v1/tables/")
        if prefix or not rest:
            raise _no_page(request)
        raw_table, slash, below = rest.partition(b"/")
        table = percent_decode(raw_table, "bad-request").decode("utf-8", "replace")
        if not slash:
            return Route("table", _READ, lambda: self._pages.table(request, table))
        return self._below_table(request, table, below)

    def _below_table(self, request: Request, table: str, below: bytes) -> Route:
        if below == b"rows":
            return Route("scan", _READ, lambda: self._scan.get(request, table))
        if below == b"rows:write":
            return self._many_writes(request, table)
        if below == b"rows:get":
            return Route("multiget", ("POST",), lambda: self._multiget.post(request, table))
        if below == b"changes":
            return Route("changes", ("GET",), lambda: self._changes.get(request, table))
        if below == b"quarantine":
            return Route("quarantine", _READ, lambda: self._pages.quarantine(request, table))
        if below == b"outcomes:get":
            return Route("outcome-list", ("POST",), lambda: self._outcomes.many(request, table))
        if below == b"outcomes":
            return Route("outcome-by-id", _READ, lambda: self._outcomes.by_id(request, table))
        if below.startswith(b"outcomes/"):
            return Route("outcome", _READ, lambda: self._outcomes.at(request, table, below[9:]))
        if below.startswith(
            b"rows/"
        ):  # all that follows is the key: nothing comes behind it, so a bare slash is part of it
            return self._one_row(request, table, below[5:])
        raise _no_page(request)

    def _one_row(self, request: Request, table: str, key: bytes) -> Route:
        writes = self._writes
        if writes is None:
            return Route("row", _READ, lambda: self._rows.get(request, table, key), _NO_WRITES)
        if request.method == "PUT":
            return Route("row", _WRITTEN, lambda: writes.row.put(request, table, key))
        if request.method == "DELETE":
            return Route("row", _WRITTEN, lambda: writes.row.delete(request, table, key))
        if request.method == "PATCH":
            return Route("row", _WRITTEN, lambda: writes.row.patch(request, table, key))
        return Route("row", _WRITTEN, lambda: self._rows.get(request, table, key))

    def _many_writes(self, request: Request, table: str) -> Route:
        writes = self._writes
        if writes is None:
            return Route("batch-write", (), lambda: self._pages.table(request, table), _NO_WRITES)
        return Route("batch-write", ("POST",), lambda: writes.batch.post(request, table))

    async def _metrics_page(self, request: Request) -> Response:
        request.params(())
        return page(self._metrics_text(), CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        request.params(())
        return page(files("logstore.serve").joinpath("openapi.json").read_bytes())


def _check_method(request: Request, route: Route) -> None:
    if request.method not in route.methods:
        allowed = ", ".join(route.methods)
        raise Problem(
            "method-not-allowed",
            f"this page takes {allowed or 'no method'}, not {request.method}{route.hint}",
            headers=((b"allow", allowed.encode()),),
        )


def _no_page(request: Request) -> Problem:
    return Problem(
        "no-such-page", f"there is no page {request.path[:200].decode('latin-1')!r}; /openapi.json lists what there is"
    )


def _label(method: str) -> str:
    """Methods are the client's words: labels must not grow with them."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
