"""Tables without a registry, and what is in their logs."""

import uuid

from confluent_kafka.admin import AdminClient, NewTopic
from support_wait import until

from logstore.log.kafka import clients, offsets
from logstore.log.kafka.descriptions import topic_ids
from logstore.log.kafka.records import read_records
from logstore.model.errors import (
    LogUnreachable,
    NoSuchTable,
)
from logstore.model.table import Table


class Fixed:
    """Definitions without a registry."""

    def __init__(self, *tables):
        self.named = {table.name: table for table in tables}

    def table(self, name):
        if name not in self.named:
            raise NoSuchTable(name)
        return self.named[name]

    def close(self):
        pass


def make_table(bootstrap, partitions=4, config=None, **fields):
    name, client = f"client-{uuid.uuid4().hex[:12]}", AdminClient({"bootstrap.servers": bootstrap})
    for future in client.create_topics([NewTopic(name, partitions, 1, config=config or {})]).values():
        future.result()
    return Table(name, name, until("the topic is there", lambda: id_of(client, name)), partitions, **fields)


def bounds_of(client, table):
    """The log's bounds; None as long as its leaders do not answer."""
    try:
        return offsets.bounds(client, table.topic, list(range(table.partitions)))
    except (LogUnreachable, KeyError):
        return None


def id_of(client, name):
    """The topic's id; None as long as the broker does not know it."""
    try:
        return topic_ids(client, [name]).get(name)
    except LogUnreachable:
        return None


def read_log(bootstrap, table):
    """(partition, offset) -> (key, value) of everything in the topic."""
    client = clients.admin(bootstrap)
    bounds = until("its leaders answer", lambda: bounds_of(client, table))
    return {
        (partition, record.offset()): (record.key(), record.value())
        for partition, bound in bounds.items()
        for record in read_records(bootstrap, table.topic, partition, bound.start, bound.end)
    }


def where(position):
    return position.partition, position.offset
