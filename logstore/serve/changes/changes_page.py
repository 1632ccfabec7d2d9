"""Changes page, `GET /v1/tables/{table}/changes`: a long poll with `wait=`, else a stream of server-sent events."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgpack
import orjson

from logstore.model.changes.resume_point import NOW, START, ResumePoint
from logstore.model.key import MAX_KEY_BYTES
from logstore.model.point_in_time import read_moment
from logstore.model.position import Position
from logstore.serve.changes.change_feed import ChangeFeed
from logstore.serve.changes.encoding import RESET, documents
from logstore.serve.changes.event_stream import EventStream
from logstore.serve.changes.snapshot_part import SnapshotPart
from logstore.serve.changes.subscription import Batch, Interest, Subscription
from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.read.encoding import json_bytes, negotiate
from logstore.serve.read.parameters.row_key import encoded
from logstore.serve.read.parameters.scan_query import listed_partitions
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.settings import MAX_DEADLINE_MS
from logstore.serve.state.catalog import Catalog
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request, boolean, integer, text
from logstore.serve.wire.response import Response, page

_PARAMS = frozenset({"since", "prefix", "key_encoding", "partitions", "before", "wait"})
EVENT_STREAM = "text/event-stream"
_DEADLINE_MS = 2_000


class ChangesPage:
    """The page of changes."""

    def __init__(
        self, catalog: Catalog, consistency_wait: ConsistencyWait, fan_out: FanOut, feed: ChangeFeed
    ) -> None:  # fmt: skip
        self._catalog, self._consistency_wait, self._feed = catalog, consistency_wait, feed
        self._pages = SnapshotPart(catalog, consistency_wait, fan_out)

    async def get(self, request: Request, name: str) -> Response:
        """Answer a long poll, or begin a stream. Raises Problem."""
        params = request.params(_PARAMS)
        subscription = Subscription(
            request,
            name,
            Interest(_prefix(params), listed_partitions(params)),
            self._feed,
            self._pages,
            self._catalog,
            self._consistency_wait,
        )
        before = boolean(params.get("before"), "before")
        if "wait" in params:
            media_type = negotiate(request, (media_types.JSON, media_types.MSGPACK))
            wait_ms = integer(text(params["wait"], "wait"), "wait", 0, MAX_DEADLINE_MS)
            with self._feed.subscribed():
                batch = await self._polled(subscription, _since(request, params), wait_ms / 1000)
                return _list(media_type, batch, before=before)
        negotiate(request, (EVENT_STREAM,))
        stream = EventStream(subscription, self._feed, before=before)
        await stream.begin(await self._begin(subscription, _since(request, params)))
        head = [
            (b"content-type", EVENT_STREAM.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        return Response(200, head, b"", stream.events())

    async def _polled(self, subscription: Subscription, since: str, wait_s: float) -> Batch:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        point = await self._begin(subscription, since)
        while True:
            batch = await subscription.next(point, max(deadline - loop.time(), 0.0))
            if batch.reset or any(chunk.changes for chunk in batch.chunks) or point.scanned is not None:
                break
            if not batch.chunks:
                break
            point = batch.point  # all of it was of other rows than those of the prefix
        self._feed.events += sum(len(chunk.changes) for chunk in batch.chunks)
        return batch

    async def _begin(self, subscription: Subscription, since: str) -> ResumePoint:
        """The point that `since` means. Raises Problem, BadToken."""
        if since == NOW:
            return await subscription.now(await subscription.table(START, _DEADLINE_MS))
        if ":" not in since:
            return ResumePoint.parse(since)
        moment = read_moment(since)
        table = await subscription.table(START, _DEADLINE_MS)
        assert isinstance(moment, int), "what has a colon is a time"
        offsets = await self._feed.later_than(table, moment)
        wanted = {partition: offsets[partition] for partition in subscription.partitions(table)}
        return ResumePoint(Position({(table.epoch, partition): offset for partition, offset in wanted.items()}))


def _since(request: Request, params: Mapping[str, bytes]) -> str:
    """The id that a client which reconnects names, else the parameter, else now."""
    last = request.header(b"last-event-id")
    if last:
        return last
    return text(params["since"], "since") if "since" in params else NOW


def _prefix(params: Mapping[str, bytes]) -> bytes:
    prefix = encoded(params.get("prefix", b""), params)
    if len(prefix) > MAX_KEY_BYTES:
        raise Problem("bad-key", f"prefix has at most {MAX_KEY_BYTES:,} bytes, this one has {len(prefix):,}")
    return prefix


def _list(media_type: str, batch: Batch, *, before: bool) -> Response:
    in_msgpack = media_type == media_types.MSGPACK
    found: list[dict[str, Any]] = documents(batch.chunks, bytes if in_msgpack else json_bytes, before=before)
    if batch.reset is not None:
        found.append({"event": RESET, "epoch": batch.reset})
    answer = {"events": found, "next": batch.point.text, "live": batch.point.scanned is None}
    return page(msgpack.packb(answer) if in_msgpack else orjson.dumps(answer), media_type)
