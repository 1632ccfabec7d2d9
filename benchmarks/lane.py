"""Lane apply against a bare loop of librdkafka consume and LMDB putmulti.

The same log, the same records, one process each.
"""

import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lmdb
from confluent_kafka import Producer, TopicPartition

from benchmarks.bare import bare_consumer
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.kafka.descriptions import topic_ids
from logstore.model.slots import slot_of
from logstore.model.table import Table
from logstore.view.feed.server import FeedServer
from logstore.view.reader import ViewReader
from streaming.digest.client import DigestClient
from streaming.lane.cuts import Cuts
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.lane import Lane, Targets
from streaming.lane.target import Target

PARTITIONS = 4
KEYS = 200_000
DEADLINE_S = 120


def run(bootstrap: str, records: int = 1_000_000, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, spread} for 100-byte and 1,000-byte values."""
    rows = []
    for value_bytes, share in ((100, 1.0), (1_000, 0.25)):
        count = int(records * share)
        table = _fill(bootstrap, f"bench-lane-{value_bytes}-{random.randrange(1 << 30):x}", count, value_bytes)
        pairs = [(_ours(bootstrap, table, count), _bare(bootstrap, table, count)) for _ in range(rounds)]
        ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [mine / raw for mine, raw in pairs]
        rows.append(
            {
                "name": f"lane apply, {value_bytes:,} B values", "ours": ours, "ceiling": bare,
                "ratio": statistics.median(ratios),
                "unit": "records/s", "spread": [min(ratios), max(ratios)], "aim": 0.8,
                "ceiling_is": "librdkafka consume + LMDB putmulti",
            }
        )  # fmt: skip
        topics.delete(admin(bootstrap), table.topic)
    return rows


def _fill(bootstrap: str, topic: str, count: int, value_bytes: int) -> Table:
    client = admin(bootstrap)
    topics.create(client, topic, PARTITIONS, 1, topics.wal_settings(1_000_000, 1))
    rng = random.Random(1)
    keys = [b"%016d" % rng.randrange(KEYS) for _ in range(count)]
    value = rng.randbytes(value_bytes)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1 << 20,
        }
    )
    for at in range(0, count, 10_000):
        batch = [{"key": key, "value": value} for key in keys[at : at + 10_000]]
        while batch:
            producer.produce_batch(topic, batch)
            batch = [message for message in batch if message.pop("_error", None)]
            producer.poll(0.05 if batch else 0)
    assert producer.flush(60) == 0
    return Table(topic, topic, topic_ids(client, [topic])[topic], PARTITIONS)


def _ours(bootstrap: str, table: Table, count: int) -> float:
    home = Path(tempfile.mkdtemp(prefix="logstore-bench-"))
    feed = FeedServer(home / "run" / "bench.sock")
    cuts = Cuts(DigestClient(), lambda *_: None)  # no cut comes
    lane = Lane(
        bootstrap,
        home,
        feed,
        group="logstore.bench",
        sync="none",
        queued_kbytes=65_536,
        cuts=cuts,
        bootstrapper=lambda _: Bootstrap(),
    )
    targets = [Target(table, partition, slot_of(partition, 16)) for partition in range(PARTITIONS)]
    started = time.perf_counter()
    lane.follow(Targets(1, {target.key: target for target in targets}))
    lane.start()
    deadline = time.monotonic() + DEADLINE_S
    while lane.applied < count:
        if lane.failure is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the lane applied {lane.applied:,} of {count:,}: {lane.failure or 'too slow'}")
        lane.join(0.005)
    rate = count / (time.perf_counter() - started)
    lane.close()
    feed.close()
    _check(home, table, count)
    shutil.rmtree(home)
    return rate


def _check(home: Path, table: Table, count: int) -> None:
    """Every record is applied, and no view holds more rows than there are keys."""
    readers = [ViewReader.open(path.parent) for path in (home / "views").rglob("data.mdb")]
    applied, rows, skipped = 0, 0, 0
    for reader in readers:
        with reader.reading() as reading:
            applied, rows = applied + reading.state.next_offset, rows + reading.count()
            skipped += sum(reading.quarantine().counts.values())
        reader.close()
    if len(readers) != table.partitions or applied != count or skipped or not 0 < rows <= KEYS:
        raise RuntimeError(
            f"{len(readers)} views applied {applied:,} of {count:,} records, skipped {skipped:,}, hold {rows:,} rows"
        )


def _bare(bootstrap: str, table: Table, count: int) -> float:
    home = Path(tempfile.mkdtemp(prefix="logstore-bench-"))
    envs = {}
    for partition in range(PARTITIONS):
        (home / str(partition)).mkdir()
        where = str(home / str(partition))
        env = lmdb.open(where, map_size=32 << 30, max_dbs=4, sync=False, metasync=False, writemap=True, readahead=False)
        envs[partition] = env, env.open_db(b"entries")
    consumer = bare_consumer(bootstrap)
    started = time.perf_counter()
    consumer.assign([TopicPartition(table.topic, partition, 0) for partition in range(PARTITIONS)])
    applied = 0
    while applied < count:
        first = consumer.poll(1)
        if first is None:
            continue
        records = [first, *consumer.consume(9_999, 0)]
        newest: dict[int, dict[bytes, bytes]] = {}
        for record in records:
            newest.setdefault(record.partition(), {})[record.key()] = record.value()
        for partition, rows in newest.items():
            env, entries = envs[partition]
            with env.begin(write=True) as txn:
                txn.cursor(db=entries).putmulti(sorted(rows.items()))
        applied += len(records)
    rate = count / (time.perf_counter() - started)
    consumer.close()
    for env, _ in envs.values():
        env.close()
    shutil.rmtree(home)
    return rate
