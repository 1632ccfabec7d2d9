"""Nodes in the feed: what every live worker of every node announced."""

from dataclasses import dataclass
from typing import NamedTuple

from logstore.view.feed.fields import each, number, read_map, text
from logstore.view.feed.key import FeedKey


class ProcessIds(NamedTuple):
    """Processes of one node."""

    node: int | None = None
    kafka: int | None = None
    workers: tuple[int, ...] = ()
    readers: tuple[int, ...] = ()

    @classmethod
    def decode(cls, raw: object) -> "ProcessIds":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(cls, raw, node=number, kafka=number, workers=each(number), readers=each(number))


class NodeRecord(NamedTuple):
    """Worker of any node, as it announced itself (`logstore.log.membership.nodes`)."""

    node: str = ""
    worker: int = -1
    url: str = ""
    group: str = ""
    zone: str = ""
    slots: tuple[int, ...] = ()  # assigned
    live: tuple[int, ...] = ()  # served, caught up
    pids: ProcessIds = ProcessIds()
    tables: int = -1  # revision of the definitions that all its readers serve

    def encode(self) -> dict[str, object]:
        """The record as a msgpack value."""
        return {**self._asdict(), "pids": self.pids._asdict()}

    @classmethod
    def decode(cls, raw: object) -> "NodeRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, node=text, worker=number, url=text, group=text, zone=text, slots=each(number),
            live=each(number), pids=ProcessIds.decode, tables=number,
        )  # fmt: skip


class NodesRecord(NamedTuple):
    """Live workers of all nodes."""

    nodes: tuple[NodeRecord, ...] = ()

    def encode(self) -> object:
        """The record as a msgpack value."""
        return [node.encode() for node in self.nodes]

    @classmethod
    def decode(cls, raw: object) -> "NodesRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return cls(each(NodeRecord.decode)(raw))


@dataclass(frozen=True, slots=True)
class NodesKey(FeedKey[NodesRecord]):
    """Key of the workers of all nodes."""

    word, record = "nodes", NodesRecord
