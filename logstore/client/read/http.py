"""HTTP: a reader that blocks, one of the two drivers of a conversation; `loop_reader` is the other."""

import time
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from logstore.client.checks import Text
from logstore.client.lazily import CLOSED
from logstore.client.read.budget import Budget
from logstore.client.read.conversation.conversation import Conversation
from logstore.client.read.conversation.exchange import OK
from logstore.client.read.conversation.scan import Scan
from logstore.client.read.conversation.steps import Ask, Pause, SendAhead, Step, Steps, TakeAhead
from logstore.client.read.point import After
from logstore.client.read.row import Row
from logstore.client.read.scan_pages import ScanPages
from logstore.client.transport.answer import HttpAnswer, Malformed
from logstore.client.transport.origin import Origin
from logstore.client.transport.request import request_bytes
from logstore.client.transport.sockets import SocketPool
from logstore.model.errors import ServerUnreachable, UsageError
from logstore.model.key import to_bytes
from logstore.model.position import Position

if TYPE_CHECKING:
    from ssl import SSLContext

    from logstore.client.transport.ahead import Ahead
    from logstore.client.wide.row import WideRow
    from logstore.model.wide.selection import CellSelection

T = TypeVar("T")


class HttpReader:
    """Reads rows, blocking. Thread-safe."""

    def __init__(self, url: str, tls: "SSLContext | None" = None) -> None:
        """`url`: any node of the store; raises UsageError when it is none."""
        self._conversation, self._tls = Conversation(url), tls
        self._pools: dict[str, SocketPool] = {}
        self._closed = False

    def get(self, table: str, key: Text, *, after: After, deadline_ms: int) -> Row | None:
        """Read a row, or None, as `Store.get`.

        The steps of `Conversation.get`, taken by hand: a generator for one request is a twentieth of all that it costs.
        """
        conversation, raw, budget = self._conversation, to_bytes(key), Budget.of(deadline_ms)
        first = self._ask(conversation.first_ask(table, raw, after, deadline_ms, budget))
        if isinstance(first, HttpAnswer) and first.status == OK:
            return conversation.row_of(table, raw, first)
        row: Row | None = self._run(conversation.get_on(table, raw, after, budget, first))
        return row

    def get_many(self, table: str, keys: Sequence[Text], *, after: After, deadline_ms: int) -> list[Row | None]:
        """Read many rows, as `Store.get_many`."""
        return self._run(self._conversation.get_many(table, keys, after, deadline_ms))

    def get_wide(
        self, table: str, key: Text, cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "WideRow | None":
        """Read a wide row, or None, as `Store.get_row`. By hand, as `get`."""
        conversation, raw, budget = self._conversation, to_bytes(key), Budget.of(deadline_ms)
        first = self._ask(conversation.first_ask(table, raw, after, deadline_ms, budget, cells))
        if isinstance(first, HttpAnswer) and first.status == OK:
            return conversation.wide_row_of(table, raw, first)
        row: WideRow | None = self._run(conversation.get_on(table, raw, after, budget, first, cells))
        return row

    def get_many_wide(
        self, table: str, keys: Sequence[Text], cells: "CellSelection", *, after: After, deadline_ms: int
    ) -> "list[WideRow | None]":
        """Read many wide rows, as `Store.get_rows`."""
        return self._run(self._conversation.get_many_wide(table, keys, cells, after, deadline_ms))

    def changes(self, table: str, query: Mapping[str, bytes | str], wait_ms: int) -> HttpAnswer:
        """Ask for a page of a table's changes, for which the server waits `wait_ms`."""
        return self._run(self._conversation.changes(table, query, wait_ms))

    def about_row(
        self, table: str, key: bytes, below: str, *, after: After, deadline_ms: int, content: bytes | None = None
    ) -> HttpAnswer:  # fmt: skip
        """Read a page about a row, as `Conversation.about_row`."""
        return self._run(self._conversation.about_row(table, key, below, after, deadline_ms, content))

    def reach(self, table: str, position: Position, deadline_ms: int) -> None:
        """Wait until a position has been applied, as `Conversation.reach`."""
        self._run(self._conversation.reach(table, position, deadline_ms))

    def scan(self, table: str, pages: ScanPages, *, after: After, deadline_ms: int) -> Iterator[Any]:
        """Read rows in order, as `Store.scan`."""
        return self._rows(self._conversation.scan(table, pages, after, deadline_ms))

    def _rows(self, scan: Scan) -> Iterator[Any]:
        try:
            while not scan.is_done:
                yield from self._run(scan.page()).rows
        finally:
            scan.drop()

    def close(self) -> None:
        """Close the connections; those in use are closed when their answer is there."""
        self._closed = True
        for pool in list(self._pools.values()):
            pool.close()

    def _run(self, steps: Steps[T]) -> T:
        """Go through the steps. Raises what they raise."""
        try:
            step = next(steps)
            while True:
                step = steps.send(self._ask(step) if isinstance(step, Ask) else self._do(step))
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Step) -> "float | Ahead | HttpAnswer | None":
        """Answer to a step that is rare."""
        if isinstance(step, SendAhead):
            return self._send_ahead(step.ask)
        if isinstance(step, TakeAhead):
            if self._closed:
                raise UsageError(CLOSED)
            answer: HttpAnswer | None = step.sent.answer()
            return answer
        assert isinstance(step, Pause), "the fourth kind of step"
        if step.seconds:
            time.sleep(step.seconds)
        return monotonic()

    def _ask(self, ask: Ask) -> HttpAnswer | float:
        if self._closed:
            raise UsageError(CLOSED)
        pool = self._pools.get(ask.base) or self._pools.setdefault(ask.base, SocketPool(Origin.of(ask.base), self._tls))
        request = request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content)
        try:
            return pool.ask(request, ask.end)
        except (OSError, Malformed) as error:
            raise_final(ask.base, error)
        return monotonic()

    def _send_ahead(self, ask: Ask) -> "Ahead | None":
        """A request that nobody waits for yet, over a connection that is there."""
        pool = self._pools.get(ask.base)
        if pool is None:
            return None
        return pool.send_ahead(request_bytes(pool.origin, ask.method, ask.path, ask.headers, ask.content), ask.end)


def raise_final(base: str, error: Exception) -> None:
    """Raise ServerUnreachable for what would come again; whatever else kept an answer away may pass."""
    if isinstance(error, Malformed):
        raise ServerUnreachable(f"what {base} sent is no HTTP answer: {error}; is it the URL of a node?") from error
    if hasattr(error, "verify_message"):  # ssl.SSLCertVerificationError, without loading OpenSSL for it
        raise ServerUnreachable(
            f"{base} has no certificate that is trusted here: {error.verify_message}; SSL_CERT_FILE, or "
            "Store(tls=...), says which are"
        ) from error
