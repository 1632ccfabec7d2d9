"""Fan-out: lists that span nodes. A reader asks the owners of partitions it does not serve, in msgpack, and merges.

The question is the same page, for a scan with the parameter `partitions`, and with the header `LS-Forwarded: 1`; a
reader that gets such a question for a partition it does not serve says so instead of asking further, so questions never
go in circles.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgpack

from logstore.model.key import to_base64url
from logstore.model.slots import slot_of
from logstore.model.table import Table
from logstore.serve.read import cursor
from logstore.serve.read.consistency import SESSION, Consistency
from logstore.serve.read.encoding import EncodedRow, FoundKey
from logstore.serve.read.page_merge import PagePart
from logstore.serve.read.scan_query import Query
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import WORDS, Problem
from logstore.serve.wire.request import Request

if TYPE_CHECKING:
    import httpx

_CONNECTIONS = 64
_THEIR_WORD = frozenset({"bad-level", "bad-token"})  # of a past that only the owner can judge
_OF_ITS_KEYS = frozenset({"partition-stopped", "starting", "not-owner", "overloaded", "log-unreachable"})

Owners = dict[str, list[int]]  # URL -> partitions to ask there


class FanOut:
    """The way to other nodes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    def split(
        self, table: Table, partitions: Iterable[int], request: Request, *, strict: bool = True
    ) -> tuple[list[int], Owners]:
        """(partitions to read here, partitions to ask for by owner).

        `strict`: a partition that nobody serves is a Problem; else it counts as here and fails there.
        """
        forwarded = request.header(b"ls-forwarded") is not None
        here: list[int] = []
        elsewhere: Owners = {}
        for partition in partitions:
            owner = None
            if not forwarded and (table.epoch, partition) not in self._catalog.served:
                owner = self._catalog.owner(slot_of(partition, self._catalog.slots))
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
        self, table: Table, owners: Owners, wanted: Sequence[tuple[bytes, int]], level: Consistency, deadline: float
    ) -> tuple[dict[bytes, FoundKey], dict[int, int]]:
        """(what became of each key that other nodes serve, the positions they were read at)."""
        asked = (
            self._keys_one(table, url, set(partitions), wanted, level, deadline) for url, partitions in owners.items()
        )
        found: dict[bytes, FoundKey] = {}
        positions: dict[int, int] = {}
        for some, at in await asyncio.gather(*asked):
            found.update(some)
            positions.update(at)
        return found, positions

    async def _scan_one(
        self, table: Table, url: str, partitions: list[int], query: Query, level: Consistency, deadline: float
    ) -> PagePart:
        params = {
            "key_encoding": "base64url", "start": to_base64url(query.start), "limit": str(query.limit),
            "reverse": str(query.reverse).lower(), "keys_only": str(query.keys_only).lower(),
            "partitions": ",".join(map(str, partitions)),
        }  # fmt: skip
        if query.end is not None:
            params["end"] = to_base64url(query.end)
        page = await self._ask("GET", url, f"/v1/tables/{table.name}/rows?{urlencode(params)}", level, deadline)
        rows = [EncodedRow(row["key"], row.get("value"), row["version"], row["partition"]) for row in page["rows"]]
        through = None if page["cursor"] is None else cursor.decode(page["cursor"])[0]
        return PagePart(rows, through, _positions(page))

    async def _keys_one(
        self,
        table: Table,
        url: str,
        partitions: set[int],
        wanted: Sequence[tuple[bytes, int]],
        level: Consistency,
        deadline: float,
    ) -> tuple[dict[bytes, FoundKey], dict[int, int]]:
        mine = {key: partition for key, partition in wanted if partition in partitions}
        try:
            content = msgpack.packb({"keys": list(mine)})
            page = await self._ask("POST", url, f"/v1/tables/{table.name}/rows:get", level, deadline, content)
        except Problem as problem:
            if problem.word not in _OF_ITS_KEYS:
                raise
            return {key: FoundKey(key, partition, reason=problem.word) for key, partition in mine.items()}, {}
        found = {
            r["key"]: FoundKey(r["key"], r["partition"], r.get("value"), r.get("version")) for r in page["results"]
        }
        left_out = {u["key"]: FoundKey(u["key"], mine[u["key"]], reason=u["reason"]) for u in page["unprocessed"]}
        return {**found, **left_out}, _positions(page)

    async def _ask(
        self, method: str, url: str, path: str, level: Consistency, deadline: float, content: bytes | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Ask one node; raises Problem for every way in which that can fail."""
        import httpx  # noqa: PLC0415 - only nodes of several need it

        left_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        headers = {
            "LS-Forwarded": "1",
            "Accept": media_types.MSGPACK,
            "Content-Type": media_types.MSGPACK,
            "LS-Deadline": str(max(int(left_s * 1000), 1)),
        }
        if level.name == SESSION:
            headers["LS-Token"] = level.token.token
        if level.as_of is not None:
            headers["LS-As-Of"] = level.as_of.text
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=_CONNECTIONS))
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._client.request(
                    method, url, headers=headers, content=content, timeout=left_s,
                    extensions={"target": path.encode()},  # as it stands: httpx takes no URL of more than 64 KiB
                )  # fmt: skip
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Problem("consistency-timeout", f"{url} did not answer within the deadline", owner=url) from error
        except httpx.HTTPError as error:
            raise Problem(
                "starting", f"{url}, which serves a part of this, does not answer ({error}); try again", owner=url
            ) from error
        return _read(response, url)


def _read(response: "httpx.Response", url: str) -> dict[str, Any]:
    if response.status_code == 200:
        page: dict[str, Any] = msgpack.unpackb(response.content)
        return page
    try:
        document: dict[str, Any] = response.json()
    except ValueError:
        document = {}
    word = str(document.get("type", "")).removeprefix("urn:logstore:")
    if word not in WORDS or (WORDS[word][0] < 500 and word not in _THEIR_WORD):
        word = "starting"  # the owner sees another store than we do: it moved, or it is a table behind
    fields = {
        key: value
        for key, value in document.items()
        if key in ("table", "partition", "offset", "reason", "cause", "asked", "applied", "key", "cuts")
    }
    raise Problem(word, f"from {url}: {document.get('detail', response.status_code)}", owner=url, **fields)


def _positions(page: dict[str, Any]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in page["positions"].items()}
