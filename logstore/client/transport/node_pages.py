"""Node pages: documents that nodes give of themselves (JSON), as commands read them."""

from time import monotonic
from typing import Any, NamedTuple

import orjson

from logstore.client.transport.answer import HttpAnswer, Malformed
from logstore.client.transport.origin import Origin
from logstore.client.transport.request import request_bytes
from logstore.client.transport.sockets import SocketPool
from logstore.model.errors import LogStoreError, ServerUnreachable


class Page(NamedTuple):
    """A page of a node."""

    status: int  # of HTTP
    document: Any


class NodePages:
    """Pages of nodes; a connection to each is kept for the next one. Close it, or use it in a `with` block."""

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: for a whole page."""
        self._timeout_s, self._pools = timeout_s, dict[str, SocketPool]()

    def get(self, url: str, path: str) -> Page:
        """A page. Raises UsageError (no URL), ServerUnreachable, LogStoreError for what is no JSON document."""
        answer = self.answer(url, path)
        try:
            return Page(answer.status, orjson.loads(answer.content))
        except ValueError as error:
            raise LogStoreError(f"{url}{path} is not a page of logstore's; is the URL right?") from error

    def answer(self, url: str, path: str) -> HttpAnswer:
        """Answer of a node, whatever it holds. Raises UsageError (no URL), ServerUnreachable."""
        pool = self._pools.get(url) or self._pools.setdefault(url, SocketPool(Origin.of(url), None))
        try:
            return pool.ask(request_bytes(pool.origin, "GET", path, {}), monotonic() + self._timeout_s)
        except (OSError, Malformed) as error:
            raise ServerUnreachable(
                f"{url} does not answer ({error}); is the node running? `logstore dev` starts one"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()

    def __enter__(self) -> "NodePages":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def page_of(url: str, path: str, timeout_s: float) -> Page:
    """One page, over a connection of its own; raises like `NodePages.get`."""
    with NodePages(timeout_s) as pages:
        return pages.get(url, path)
