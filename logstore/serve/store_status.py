"""Store status: nodes, tables, partitions and schedules of the whole store, `/v1/status`, asked of every node.

1 this node tells its own
2 the others are asked at once for their pages of partitions and snapshots, which ask nobody further
3 of a group's nodes the one that has a partition is believed; a node that does not answer is named (`silent`)
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from logstore.serve import snapshot_page
from logstore.serve.read.peers.peer_page import read_body
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.feed_client import FeedClient
from logstore.serve.state.partition import ELSEWHERE, UNSERVED
from logstore.serve.status_pages import Pages
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response, page

if TYPE_CHECKING:
    import httpx

ASK_S = 3.0
_MOST_BYTES = 32 << 20  # of one page of another node
_CONNECTIONS = 64
_NOT_HERE = (ELSEWHERE, UNSERVED)
_SNAPSHOT = ("base", "cut", "candidate", "state", "reason", "fetched_bytes", "total_bytes", "proof")

Row = dict[str, Any]


class _NodeSays:
    """Rows of one node, its own or as they came over HTTP. Raises Problem where they are none."""

    def __init__(self, url: str, group: str, partitions: Row, snapshots: Row) -> None:
        self.url, self.group = url, group
        self.partitions = _rows(url, partitions, "partitions")
        self.snapshots = _rows(url, snapshots, "snapshots")
        self.schedules = _rows(url, snapshots, "schedules", needed=("table",))


class StoreStatus:
    """The page, and the connections to other nodes. Close it."""

    def __init__(self, catalog: Catalog, feeds: FeedClient, pages: Pages) -> None:
        self._catalog, self._feeds, self._pages = catalog, feeds, pages
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def status(self, request: Request) -> Response:
        """The whole store, `/v1/status`."""
        request.params(())
        if self._catalog.tables is None:
            raise Problem("starting", "no worker of this node has named the tables yet; try again")
        nodes = self._pages.nodes()
        others = [node for node in nodes if node["node"] != self._catalog.node]
        heard = await asyncio.gather(*(self._ask(node) for node in others))
        silent = [one for one in heard if isinstance(one, dict)]
        said = [self._own(nodes), *(one for one in heard if isinstance(one, _NodeSays))]
        return page(orjson.dumps(self._document(nodes, said, silent)))

    def _own(self, nodes: Iterable[Row]) -> _NodeSays:
        mine = next((node for node in nodes if node["node"] == self._catalog.node), {"url": "", "group": ""})
        snapshots = {
            "snapshots": snapshot_page.rows(self._catalog),
            "schedules": snapshot_page.schedules(self._catalog, self._feeds.feeds),
        }
        return _NodeSays(mine["url"], mine["group"], {"partitions": self._pages.partition_rows()}, snapshots)

    async def _ask(self, node: Row) -> _NodeSays | Row:
        """Rows of a node, or how it failed to tell them."""
        url = node["url"]
        try:
            asked = (self._page(url, path) for path in ("/v1/partitions", "/v1/snapshots"))
            return _NodeSays(url, node["group"], *await asyncio.gather(*asked))
        except Problem as problem:
            return {"node": node["node"], "url": url, "error": problem.detail}

    async def _page(self, url: str, path: str) -> Row:
        import httpx  # noqa: PLC0415 - only nodes of several need it

        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=_CONNECTIONS))
        headers = {"Accept-Encoding": "identity"}  # what is bounded is what arrives
        try:
            async with (
                asyncio.timeout(ASK_S),
                self._client.stream("GET", url + path, headers=headers, timeout=ASK_S) as response,
            ):
                found = orjson.loads(await read_body(response, _MOST_BYTES))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Problem("starting", f"{url} does not answer within {ASK_S:g} s; is that node well?") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Problem("starting", f"{url} does not answer ({error}); is that node running?") from error
        except ValueError as error:
            raise _no_page(url) from error
        if not isinstance(found, dict):
            raise _no_page(url)
        if response.status_code != 200:
            raise Problem("starting", f"{url}{path}: {str(found.get('detail', response.status_code))[:1_000]}")
        return found

    def _document(self, nodes: list[Row], said: list[_NodeSays], silent: list[Row]) -> Row:
        partitions = _believed(said)
        gone = {node["url"] for node in silent}
        for row in partitions:
            if row["state"] == ELSEWHERE and row.get("owner") in gone:
                row.update(state=UNSERVED, reason=f"{row['owner']}, which has it, does not answer")
        tables = [table for _, table in sorted(self._pages.table_rows().items())]
        quarantined = _quarantined(partitions)
        return {
            "log": self._pages.log(), "nodes": nodes, "silent": silent,
            "tables": [{**table, "quarantined": quarantined.get(table["name"], {})} for table in tables],
            "partitions": partitions,
            "schedules": sorted((row for one in said for row in one.schedules), key=lambda row: str(row["table"])),
        }  # fmt: skip


def _believed(said: Iterable[_NodeSays]) -> list[Row]:
    """A row for each partition of each group, of whom has it, with its snapshot."""
    found: dict[tuple[str, int, str], Row] = {}
    snapshots: dict[tuple[str, int, str, str], Row] = {}
    for one in said:
        for row in one.partitions:
            key = row["table"], row["partition"], one.group
            if key not in found or found[key]["state"] in _NOT_HERE:
                found[key] = {**row, "group": one.group, "said_by": one.url}
        snapshots |= {(row["table"], row["partition"], one.group, one.url): row for row in one.snapshots}
    for (table, partition, group), row in found.items():
        snapshot = snapshots.get((table, partition, group, row.pop("said_by")))
        if snapshot is not None:
            row["snapshot"] = {name: snapshot.get(name) for name in _SNAPSHOT}
    return [row for _, row in sorted(found.items())]


def _quarantined(partitions: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Skipped records by table and reason."""
    found: dict[str, dict[str, int]] = {}
    for row in partitions:
        counts = row.get("quarantined")
        for reason, count in counts.items() if isinstance(counts, dict) else ():
            of_table = found.setdefault(row["table"], {})
            of_table[reason] = of_table.get(reason, 0) + count
    return found


def _rows(url: str, document: Row, name: str, needed: tuple[str, ...] = ("table", "partition", "state")) -> list[Row]:
    """The rows of a page. A node of an earlier version has none of a later kind."""
    rows = document.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_sound(row, needed) for row in rows):
        raise _no_page(url)
    return rows


def _is_sound(row: Row, needed: tuple[str, ...]) -> bool:
    kinds = {"table": str, "partition": int, "state": str}
    counts = row.get("quarantined") or {}
    counted = isinstance(counts, dict) and all(isinstance(count, int) for count in counts.values())
    return counted and all(isinstance(row.get(name), kinds[name]) for name in needed)


def _no_page(url: str) -> Problem:
    return Problem("starting", f"{url} answers with what is no page of logstore's; is that node's URL right?")
