"""Logs of wide tables, and of tables that keep siblings, in Kafka: random edits that meet each other."""

import random

import msgpack
from confluent_kafka import Producer
from support_conditional_log import TTLS_MS

FAMILIES = {"content": {"versions": 3}, "count": {}, "anchor": {"versions": 2}}
EXPIRING_FAMILIES = {**FAMILIES, "anchor": {"versions": 2, "ttl_ms": 1_500}}


def wide_fields(*, expiring=False, **more):
    """Fields of the definition of a wide table."""
    families = EXPIRING_FAMILIES if expiring else FAMILIES
    return {"conditional": True, "wide": True, "families": families, "expiring": expiring, **more}


def sibling_fields(*, expiring=False, **more):
    """Fields of the definition of a table that keeps siblings."""
    return {"conditional": True, "siblings": True, "expiring": expiring, **more}


def write_rows(bootstrap, table, count, *, seed=1, keys=30):
    """Append mutations of random keys to a wide table, or to one that keeps siblings."""
    rng, make = random.Random(seed), _edited if table.wide else _side_by_side
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    for n in range(count):
        value, headers = make(rng, table, n)
        if rng.random() < 0.3:
            headers.append(("ls.id", b"%016d" % rng.randrange(count)))
        if table.expiring and rng.random() < 0.4:
            headers.append(("ls.ttl", rng.choice(TTLS_MS).to_bytes(8)))
        producer.produce(table.topic, value, b"key-%03d" % rng.randrange(keys), headers=headers)
        producer.poll(0)
    assert producer.flush(30) == 0


def _side_by_side(rng, _table, n):
    headers = [("ls.seen", b"%d" % rng.choice([-1, rng.randrange(n + 1)]))] if rng.random() < 0.8 else []
    return (None if rng.random() < 0.15 else b"value-%d" % rng.randrange(9)), headers


def _edited(rng, table, n):
    kind = rng.randrange(10)
    if kind == 0:
        return None, []
    if kind == 1:
        return b"plain-%d" % n, []
    headers = [("ls.op", b"edit")]
    if rng.random() < 0.2:
        cell = rng.choice(["content:q1", "count:hits"]).encode()
        headers.append(("ls.if", rng.choice([b"absent", b"present", b"version:%d@%b" % (rng.randrange(n + 1), cell)])))
    edits = [_edit(rng, table) for _ in range(rng.choice([1, 1, 2, 4]))]
    if table.multi_row and rng.random() < 0.3:
        edits.append(["row", b"key-%03d" % rng.randrange(30), [_edit(rng, table)]])
    return msgpack.packb(edits), headers


def _edit(rng, table):
    qualifier = b"q%d" % rng.randrange(4)
    verb = rng.choice(["set", "set", "set", "incr", "append", "del", "del-family", "del-row"])
    if verb == "incr":
        return [verb, "count", b"hits", rng.choice([1, -1, 7])]
    family = rng.choice(["content", "anchor"])
    if verb == "set":
        own_ttl = [rng.choice(TTLS_MS)] if table.expiring and rng.random() < 0.4 else []
        return [verb, family, qualifier, b"v%d" % rng.randrange(5), *own_ttl]
    rest = {"append": [family, qualifier, b"+"], "del": [family, qualifier], "del-family": [family], "del-row": []}
    return [verb, *rest[verb]]
