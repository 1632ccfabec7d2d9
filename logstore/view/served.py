"""Served state of a worker: what it last served, in `<data>/workers/<index>.json`.

A reader that starts without the worker serves from it, and the worker itself begins with it after a restart. It is JSON
of the feed's records (`logstore.view.feed`), read as leniently as they are:

    {"tables": TablesRecord, "nodes": NodesRecord, "slots": [a slot that is followed, ...],
     "views": [[table, epoch, partition, ViewRecord], ...]}
"""

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from logstore.view.feed.fields import each, number, read_array, read_map, text, unreadable
from logstore.view.feed.node_records import NodesRecord
from logstore.view.feed.table_records import TablesRecord
from logstore.view.feed.view_records import ViewKey, ViewRecord


class Served(NamedTuple):
    """State of a worker, as it was last served."""

    tables: TablesRecord = TablesRecord()
    nodes: NodesRecord = NodesRecord()
    slots: tuple[int, ...] = ()  # that it follows
    views: Mapping[ViewKey, ViewRecord] = {}

    def encode(self) -> bytes:
        """Content of the file."""
        tables = self.tables.encode()
        tables["tables"] = self.tables.tables and [raw.decode() for raw in self.tables.tables]
        views = [[key.table, key.epoch, key.partition, record.encode()] for key, record in self.views.items()]
        return orjson.dumps({"tables": tables, "nodes": self.nodes.encode(), "slots": list(self.slots), "views": views})

    @classmethod
    def decode(cls, content: bytes) -> "Served":
        """Served state of a file's content; raises UnreadableRecord, also where a crash has torn it."""
        try:
            raw = orjson.loads(content)
        except ValueError as error:
            raise unreadable(f"JSON ({error})", content) from error
        return read_map(
            cls, raw, tables=TablesRecord.decode, nodes=NodesRecord.decode, slots=each(number), views=_views
        )


class _View(NamedTuple):
    table: str = ""
    epoch: str = ""
    partition: int = -1
    record: ViewRecord = ViewRecord()


def _view(raw: object) -> _View:
    return read_array(_View, raw, table=text, epoch=text, partition=number, record=ViewRecord.decode)


def _views(raw: object) -> dict[ViewKey, ViewRecord]:
    return {ViewKey(view.table, view.epoch, view.partition): view.record for view in each(_view)(raw)}
