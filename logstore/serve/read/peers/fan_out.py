"""Fan-out: lists that span nodes. A reader asks the owners of partitions it does not serve, in msgpack, and merges.

The question is the same page, for a scan with the parameter `partitions`, and with the header `LS-Forwarded: 1`; a
reader that gets such a question for a partition it does not serve says so instead of asking further, so questions never
go in circles. It carries the table's epoch (`LS-Epoch`): nodes hear of a promotion one after the other, and an answer
from another epoch is of another table, never merged. Of a table whose rows may expire the answer has `ends` beside its
rows, by which the whole is shown as of one instant (`one_instant`).
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgpack
import orjson

from logstore.model.key import to_base64url
from logstore.model.slots import slot_of
from logstore.model.table import MAX_ROW_BYTES, Table
from logstore.model.wide.selection import CellSelection
from logstore.serve.read.consistency import EVENTUAL, SESSION, Consistency, check_instant
from logstore.serve.read.encoding import FoundKey
from logstore.serve.read.one_instant import to_be_cut
from logstore.serve.read.page_merge import PagePart
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.read.peers.peer_outcome import PeerOutcome, read_peer_outcomes
from logstore.serve.read.peers.peer_page import PeerPage, most_bytes, read_body
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import WORDS, Problem
from logstore.serve.wire.request import Request

if TYPE_CHECKING:
    import httpx

_CONNECTIONS = 64
_POLLS = 256  # of the change feed, one for each partition that is followed
_POLL_S = 15.0  # for the answer of a poll, when its wait is over
_ROWS_OF_ONE_EDIT = 16  # of the largest size, that a page of changes may have beyond its bound
_THEIR_WORD = frozenset({"bad-level", "bad-token", "not-retained"})  # of a past that only the owner can judge
_OF_ITS_KEYS = frozenset({"partition-stopped", "starting", "not-owner", "overloaded", "log-unreachable"})

Owners = dict[str, list[int]]  # URL -> partitions to ask there


class FanOut:
    """The way to other nodes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._client: httpx.AsyncClient | None = None
        self._polls: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        for client in (self._client, self._polls):
            if client is not None:
                await client.aclose()

    def split(
        self, table: Table, partitions: Iterable[int], request: Request, *, strict: bool = True
    ) -> tuple[list[int], Owners]:
        """Partitions to read here, and those to ask for, by owner.

        `strict`: a partition that nobody serves is a Problem; else it counts as here and fails there.
        """
        forwarded = request.header(b"ls-forwarded") is not None
        epoch = request.header(b"ls-epoch")
        if forwarded and epoch is not None and epoch != table.epoch:
            raise Problem(
                "starting", f"{table.name!r} is of epoch {table.epoch} here, the question is about "
                f"{epoch[:40]!r}: one of two nodes has not heard of a change yet; try again", table=table.name,
            )  # fmt: skip
        here: list[int] = []
        elsewhere: Owners = {}
        for partition in partitions:
            owner = None
            served = self._catalog.served.get((table.epoch, partition))
            if forwarded:
                pass
            elif served is None:
                owner = self._catalog.owner(slot_of(partition, self._catalog.slots))
            elif not served.answers:
                owner = self._catalog.live_elsewhere(partition)
            if owner is not None:
                elsewhere.setdefault(owner, []).append(partition)
            else:
                here.append(partition)
                if strict:
                    self._catalog.locate(table, partition)
        return here, elsewhere

    async def scan(
        self, table: Table, owners: Owners, query: Query, level: Consistency, deadline: float
    ) -> list[PagePart]:
        """The parts of a page that other nodes serve; raises Problem when one of them fails."""
        asked = (self._scan_one(table, url, partitions, query, level, deadline) for url, partitions in owners.items())
        return list(await asyncio.gather(*asked))

    async def keys(
        self, table: Table, owners: Owners, wanted: Sequence[tuple[bytes, int]], level: Consistency, deadline: float,
        cells: CellSelection | None = None,
    ) -> tuple[dict[bytes, FoundKey], dict[int, int], int]:  # fmt: skip
        """Results of the keys that other nodes serve, the positions they were read at, and the latest instant."""
        asked = (
            self._keys_one(table, url, set(partitions), wanted, level, deadline, cells)
            for url, partitions in owners.items()
        )
        found: dict[bytes, FoundKey] = {}
        positions: dict[int, int] = {}
        time_ms = 0
        for some, at, instant_ms in await asyncio.gather(*asked):
            found.update(some)
            positions.update(at)
            time_ms = max(time_ms, instant_ms)
        return found, positions, time_ms

    async def outcomes(
        self, table: Table, url: str, partition: int, offsets: list[int], level: Consistency, deadline: float
    ) -> dict[int, PeerOutcome]:
        """Outcomes of records of one partition, of another node. Raises Problem."""
        path, content = f"/v1/tables/{table.name}/outcomes:get", {"partition": partition, "offsets": offsets}
        body = await self._ask("POST", url, path, table, level, deadline, msgpack.packb(content))
        return read_peer_outcomes(url, body, partition, offsets)

    async def reach(self, table: Table, url: str, partition: int, level: Consistency, deadline: float) -> None:
        """Wait until another node has applied the level's token in one of its partitions. Raises Problem."""
        query = Query(b"", None, 1, False, True, (partition,))
        part = await self._scan_one(table, url, [partition], query, level, deadline)
        if part.positions.get(partition, 0) < level.token.pieces[table.epoch, partition]:
            raise Problem("starting", f"{url} answers from a state before the one asked for", owner=url)

    async def changes(self, table: Table, url: str, partitions: list[int], since: str, wait_ms: int) -> bytes:
        """A page of the change feed of another node, which waits `wait_ms` for an event. Raises Problem.

        Polls have connections of their own: scans never wait for them.
        """
        if self._polls is None:
            self._polls = _client(_POLLS)
        listed = ",".join(map(str, partitions))
        query = {"since": since, "wait": wait_ms, "partitions": listed}
        path = f"/v1/tables/{table.name}/changes?{urlencode(query | ({'before': 'true'} if table.wide else {}))}"
        deadline = asyncio.get_running_loop().time() + wait_ms / 1000 + _POLL_S
        more = _ROWS_OF_ONE_EDIT * MAX_ROW_BYTES if table.multi_row else 0
        return await self._ask("GET", url, path, table, Consistency(), deadline, client=self._polls, more_bytes=more)

    async def _scan_one(
        self, table: Table, url: str, partitions: list[int], query: Query, level: Consistency, deadline: float
    ) -> PagePart:
        params = {
            "key_encoding": "base64url", "start": to_base64url(query.start), "limit": str(query.limit),
            "reverse": str(query.reverse).lower(), "keys_only": str(query.keys_only).lower(),
            "partitions": ",".join(map(str, partitions)), **({"ends": "true"} if query.ends else {}),
            **(query.cells.params() if query.cells else {}),
        }  # fmt: skip
        if query.end is not None:
            params["end"] = to_base64url(query.end)
        path = f"/v1/tables/{table.name}/rows?{urlencode(params)}"
        page = PeerPage(url, table, partitions, await self._ask("GET", url, path, table, level, deadline))
        check_instant(page.time_ms, url, self._catalog.broker_clock)
        return page.part(query, partitions)

    async def _keys_one(
        self,
        table: Table,
        url: str,
        partitions: set[int],
        wanted: Sequence[tuple[bytes, int]],
        level: Consistency,
        deadline: float,
        cells: CellSelection | None,
    ) -> tuple[dict[bytes, FoundKey], dict[int, int], int]:
        mine = {key: partition for key, partition in wanted if partition in partitions}
        cells = to_be_cut(cells) if table.expiring else cells
        params = {**(cells.params() if cells else {}), **({"ends": "true"} if table.expiring else {})}
        try:
            content = msgpack.packb({"keys": list(mine)})
            path = f"/v1/tables/{table.name}/rows:get" + (f"?{urlencode(params)}" if params else "")
            page = PeerPage(url, table, partitions, await self._ask("POST", url, path, table, level, deadline, content))
            check_instant(page.time_ms, url, self._catalog.broker_clock)
            return page.keys(mine), page.positions, page.time_ms
        except Problem as problem:
            if problem.word not in _OF_ITS_KEYS:
                raise
            return {key: FoundKey(key, partition, reason=problem.word) for key, partition in mine.items()}, {}, 0

    async def _ask(
        self, method: str, url: str, path: str, table: Table, level: Consistency, deadline: float,
        content: bytes | None = None, client: "httpx.AsyncClient | None" = None, more_bytes: int = 0,
    ) -> bytes:  # fmt: skip
        """Ask one node; raises Problem for every way in which that can fail."""
        import httpx  # noqa: PLC0415 - only nodes of several need it

        left_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        headers = {
            "LS-Forwarded": "1",
            "LS-Epoch": table.epoch,
            "Accept": media_types.MSGPACK,
            "Accept-Encoding": "identity",  # what is bounded is what arrives
            "Content-Type": media_types.MSGPACK,
            "LS-Deadline": str(max(int(left_s * 1000), 1)),
        }
        if level.name != EVENTUAL and level.token:
            headers["LS-Token"] = level.token.token
        if level.name not in (EVENTUAL, SESSION):  # it counts from the arrival there: later, so no less
            headers["LS-Consistency"] = level.name
        if level.max_lag_ms is not None:
            headers["LS-Max-Lag"] = str(level.max_lag_ms)
        if level.as_of is not None:
            headers["LS-As-Of"] = level.as_of.text
        if self._client is None:
            self._client = _client(_CONNECTIONS)
        try:
            async with asyncio.timeout_at(deadline):
                most = most_bytes(table, len(content or b"") + more_bytes)
                async with (client or self._client).stream(
                    method, url, headers=headers, content=content, timeout=left_s,
                    extensions={"target": path.encode()},  # as it stands: httpx takes no URL of more than 64 KiB
                ) as response:  # fmt: skip
                    body = await read_body(response, most)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Problem("consistency-timeout", f"{url} did not answer within the deadline", owner=url) from error
        except httpx.HTTPError as error:
            raise Problem(
                "starting", f"{url}, which serves a part of this, does not answer ({error}); try again", owner=url
            ) from error
        if response.status_code != 200:
            raise _problem(response.status_code, body, url)
        return body


def _client(connections: int) -> "httpx.AsyncClient":
    import httpx  # noqa: PLC0415 - only nodes of several need it

    return httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=connections))


def _problem(status: int, body: bytes, url: str) -> Problem:
    """The problem that a node's problem is to whoever asked this one."""
    try:
        found = orjson.loads(body)
    except ValueError:
        found = None
    document: dict[str, Any] = found if isinstance(found, dict) else {}
    word = str(document.get("type", "")).removeprefix("urn:logstore:")
    if word not in WORDS or (WORDS[word][0] < 500 and word not in _THEIR_WORD):
        word = "starting"  # the owner sees another store than we do: it moved, or it is a table behind
    fields = {
        key: value
        for key, value in document.items()
        if key in ("table", "partition", "offset", "reason", "cause", "asked", "applied", "key", "cuts")
    }
    return Problem(word, f"from {url}: {str(document.get('detail', status))[:1_000]}", owner=url, **fields)
