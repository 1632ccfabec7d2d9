"""Status pages: tables, partitions, cluster, quarantine, health."""

from collections import Counter
from typing import Any

import orjson

import logstore
from logstore.model.errors import LogStoreError
from logstore.model.slots import slot_of
from logstore.model.table import PartitionKey, Table
from logstore.serve import snapshot_page
from logstore.serve.read.encoding import json_bytes
from logstore.serve.settings import ReaderSettings
from logstore.serve.snapshot_page import base_of
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.feed_client import FeedClient
from logstore.serve.state.partition import ELSEWHERE, UNSERVED, ServedPartition
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request
from logstore.serve.wire.response import Response, page
from logstore.view.feed.node_records import NodeRecord
from logstore.view.feed.view_records import CATCHING_UP, STOPPED
from logstore.view.layout import MAX_QUARANTINED

_REASONS = 20
_MOST_QUARANTINED = 20_000  # records on one page


class Pages:
    """The pages that are no rows."""

    def __init__(self, settings: ReaderSettings, catalog: Catalog, feeds: FeedClient) -> None:
        self._settings, self._catalog, self._feeds = settings, catalog, feeds
        self._assigned = False  # every slot of the store was assigned once

    async def tables(self, request: Request) -> Response:
        """Definitions of all tables, `/v1/tables`."""
        request.params(())
        if self._catalog.tables is None:
            raise Problem("starting", "no worker of this node has named the tables yet; try again")
        return _json({"tables": list(self.table_rows().values()), "revision": self._catalog.revision})

    async def table(self, request: Request, name: str) -> Response:
        """Definition of a table, `/v1/tables/{table}`."""
        request.params(())
        return _json(_table(self._catalog.table(name)))

    async def partitions(self, request: Request) -> Response:
        """Partitions served here, `/v1/partitions`."""
        request.params(())
        return _json({"partitions": self.partition_rows()})

    async def snapshots(self, request: Request) -> Response:
        """`/v1/snapshots`: of the partitions that are served here."""
        request.params(())
        scheduled = snapshot_page.schedules(self._catalog, self._feeds.feeds)
        return _json({"snapshots": snapshot_page.rows(self._catalog), "schedules": scheduled})

    async def cluster(self, request: Request) -> Response:
        """Live workers of all nodes, `/v1/cluster`."""
        request.params(())
        known = self._catalog
        return _json(
            {
                "nodes": self.nodes(),
                "slots": known.slots,
                "revision": known.revision,
                "log": self.log(),
            }
        )

    async def quarantine(self, request: Request, name: str) -> Response:
        """Quarantine of the partitions that are served here, `/v1/tables/{table}/quarantine`.

        The newest records of each partition, so that a noisy one hides none; fewer of each where there are many.
        """
        request.params(())
        table = self._catalog.table(name)
        share = min(MAX_QUARANTINED, max(1, _MOST_QUARANTINED // table.partitions))
        counts: Counter[str] = Counter()
        records: list[dict[str, Any]] = []
        for partition in range(table.partitions):
            served = self._catalog.served.get((table.epoch, partition))
            if served is None or served.reader is None:
                continue
            with served.reader.reading() as reading:
                quarantine = reading.quarantine()
            counts.update(quarantine.counts)
            records += [
                {"partition": partition, "offset": offset, "reason": reason}
                for offset, reason in quarantine.records[-share:]
            ]
        return _json({"counts": dict(counts), "records": records, "dropped": counts.total() - len(records)})

    async def healthz(self, request: Request) -> Response:
        """The process lives."""
        request.params(())
        return _json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Reads can be answered here, or 503 with the reasons why not. Whether the log answers is said beside it."""
        request.params(())
        reasons = self.unready()
        if reasons:
            detail = "not ready: " + "; ".join(reasons[:3])
            raise Problem("starting", detail, reasons=reasons[:_REASONS], log=self.log())
        return _json({"status": "ready", "log": self.log()})

    async def version(self, request: Request) -> Response:
        """Version of the store, `/version`."""
        request.params(())
        return _json({"name": "logstore", "version": logstore.__version__, "api": "v1"})

    def table_rows(self) -> dict[str, dict[str, Any]]:
        """Documents of the tables, in the order of their names."""
        return {name: _table(table) for name, table in sorted((self._catalog.tables or {}).items())}

    def partition_rows(self) -> list[dict[str, Any]]:
        """Documents of all partitions, as this node sees them."""
        tables = sorted((self._catalog.tables or {}).items())
        return [self._partition(table, p) for _, table in tables for p in range(table.partitions)]

    def nodes(self) -> list[dict[str, Any]]:
        """Documents of all nodes, each of its workers' announcements; those that cannot be heard of now say so."""
        nodes: dict[str, dict[str, Any]] = {}
        for record, age_s in self._catalog.known_nodes():
            _join(nodes.setdefault(record.node, _node(record, age_s)), record)
        return list(nodes.values())

    def unready(self) -> list[str]:
        """Reasons why reads cannot be answered here yet; none: they can."""
        silent = [feed.worker for feed in self._feeds.feeds if not (feed.connected and feed.heard)]
        reasons = [f"worker {worker} has not said yet what it serves" for worker in silent]
        reasons += self._unplaced() if self._catalog.reachable is not False else []  # nobody hears of anybody then
        reasons += [f"the view of {missing} is not open yet" for missing in self._catalog.missing()]
        return reasons + [reason for served in self._catalog.served.values() if (reason := self._behind(served))]

    def _unplaced(self) -> list[str]:
        """Workers of this node, and slots of the store, that have no place in the group yet."""
        announced = {record.worker for record in self._catalog.own()}
        reasons = []
        reasons += [
            f"worker {feed.worker} is not announced yet" for feed in self._feeds.feeds if feed.worker not in announced
        ]
        slots = {slot for record in self._catalog.nodes for slot in record.slots}
        self._assigned = self._assigned or slots.issuperset(range(self._catalog.slots))
        if not self._assigned:
            reasons.append(f"{self._catalog.slots - len(slots)} slots are not assigned to anybody yet")
        return reasons

    def log(self) -> dict[str, bool | float | None]:
        """Whether the log answers; and how far the clock here is ahead of it, where that ends no rows therefore."""
        said: dict[str, bool | float | None] = {"reachable": self._catalog.reachable}
        clock = self._catalog.broker_clock
        ahead_ms = clock.ahead_ms
        return said if ahead_ms is None or not clock.is_ahead() else {**said, "clock_ahead_s": ahead_ms / 1000}

    def _behind(self, served: ServedPartition) -> str | None:
        if served.reader is None or served.state == STOPPED:
            return None
        if served.answers and not self._catalog.answers_log(
            (served.epoch, served.partition)
        ):  # nothing could be nearer
            return None
        try:
            lag = served.lag(served.reader.state().next_offset) or 0
        except LogStoreError:  # it answers as one that has stopped
            return None
        if served.state == CATCHING_UP or lag > self._settings.ready_lag:
            return f"partition {served.partition} of {served.table} is {lag:,} records behind"
        return None

    def _partition(self, table: Table, partition: int) -> dict[str, Any]:
        slot = slot_of(partition, self._catalog.slots)
        served = self._catalog.served.get((table.epoch, partition))
        row: dict[str, Any] = {
            "table": table.name, "partition": partition, "slot": slot, "applied": None, "end": None, "lag": None,
            "state": ELSEWHERE if self._catalog.live_elsewhere(partition) is not None else UNSERVED,
            "reason": "", "owner": self._catalog.owner(slot), "base": None, "bytes": None,
            "quarantined": {},
        }  # fmt: skip
        if served is None:
            return row
        own = self._catalog.own()
        row.update(
            end=served.end,
            state=served.state,
            reason=served.reason or ("" if served.answers else served.first_catch_up()),
            owner=own[0].url if own else None,
            base=base_of(self._catalog, served),
        )
        return self._advancing({**row, **_standing(served)}, (table.epoch, partition))

    def _advancing(self, row: dict[str, Any], key: PartitionKey) -> dict[str, Any]:
        """The row, without a lag where nobody hears what the log has: a lag of then is none of now."""
        away = self._catalog.why_unheard(key)
        if row["state"] == STOPPED or not away:
            return row
        return {**row, "lag": None, "reason": row["reason"] or f"it does not advance: {away}"}


def _standing(served: ServedPartition) -> dict[str, Any]:
    """State of the view itself."""
    if served.reader is None:
        return {}
    try:
        state, quarantined = served.reader.state(), served.reader.quarantine_counts()
    except LogStoreError as error:
        return {"state": STOPPED, "reason": str(error)}
    standing = {
        "applied": state.next_offset, "lag": served.lag(state.next_offset), "bytes": served.reader.size_bytes(),
        "quarantined": dict(quarantined),
    }  # fmt: skip
    return {**standing, "state": STOPPED, "reason": state.stop.detail} if state.stop else standing


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name, "topic": table.topic, "epoch": table.epoch, "partitions": table.partitions,
        "model": "wide" if table.wide else "kv",
        "max_value_bytes": table.max_value_bytes, "adopted": table.adopted, "description": table.description,
        "skips": {str(partition): ranges for partition, ranges in table.skips.items()},
        "conditional": table.conditional, **_model(table), **_window(table), **_splits(table),
    }  # fmt: skip


def _model(table: Table) -> dict[str, Any]:
    """Kind of the rows, where they are not one value each."""
    if table.wide:
        return {"families": table.families, "multi_row": table.multi_row}
    return {"siblings": True} if table.siblings else {}


def _window(table: Table) -> dict[str, int]:
    """The window for which outcomes and ids are remembered; a plain table has none."""
    if not table.conditional:
        return {}
    return {"dedup_window_ms": table.dedup_window_ms, "dedup_records": table.dedup_records}


def _splits(table: Table) -> dict[str, Any]:
    """The split points of an ordered table; a hash table has none."""
    return {"splits": [json_bytes(split) for split in table.splits]} if table.splits else {}


def _node(record: NodeRecord, age_s: float | None) -> dict[str, Any]:
    pids: dict[str, Any] = {"node": None, "kafka": None, "workers": [], "readers": []}
    named: dict[str, Any] = {"node": record.node, "url": record.url, "group": record.group, "zone": record.zone}
    named |= {"current": age_s is None, "age_s": round(age_s or 0.0, 1)}
    return {**named, "slots": [], "live": [], "workers": 0, "pids": pids}


def _join(node: dict[str, Any], record: NodeRecord) -> None:
    """Add one worker's record to its node."""
    node["workers"] += 1
    node["slots"] = sorted({*node["slots"], *record.slots})
    node["live"] = sorted({*node["live"], *record.live})
    theirs, pids = record.pids, node["pids"]
    pids["node"], pids["kafka"] = theirs.node or pids["node"], theirs.kafka or pids["kafka"]
    pids["workers"] = sorted({*pids["workers"], *theirs.workers})
    pids["readers"] = sorted({*pids["readers"], *theirs.readers})


def _json(document: dict[str, Any]) -> Response:
    return page(orjson.dumps(document))
