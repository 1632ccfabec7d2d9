"""Logs of conditional tables in Kafka, and what the lane makes of them."""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from confluent_kafka import Producer
from support_snapshot import records_of
from xxhash import xxh3_128_digest

from logstore.model.folding.bucket import unpack_bucket
from logstore.model.folding.digest import Digest
from logstore.model.hard_rows.decisions import ID_KIND
from logstore.model.table import Table
from logstore.snapshot.manifest import Manifest
from logstore.view.reader import Reading
from streaming.digest.view_digest import digest_of
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

TTLS_MS = (0, 50, 400, 1_500, 3_600_000)  # some end between two compactions of a test

Headers = list[tuple[str, bytes]]


def write_hard(bootstrap: str, table: Table, count: int, *, seed: int = 1, keys: int = 40) -> None:
    """Append plain and hard mutations of random keys; ids come back, with the same content and with another one."""
    rng = random.Random(seed)
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    for n in range(count):
        key = b"key-%03d" % rng.randrange(keys)
        value, headers = _mutation(rng, n)
        if rng.random() < 0.5:
            headers.append(("ls.id", b"%016d" % rng.randrange(count)))
        if table.expiring and rng.random() < 0.5:
            headers.append(("ls.ttl", rng.choice(TTLS_MS).to_bytes(8)))
        producer.produce(table.topic, value, key, headers=headers)
        producer.poll(0)
    assert producer.flush(30) == 0


def _mutation(rng: random.Random, n: int) -> tuple[bytes | None, Headers]:
    kind = rng.randrange(8)
    if kind < 2:
        return None if kind else b"plain-%d" % rng.randrange(4), []
    if kind < 4:
        delta = rng.choice([1, -1, 7]).to_bytes(8, signed=True)
        return delta, [("ls.op", b"incr")]
    if kind == 4:
        return b"+%d" % rng.randrange(9), [("ls.op", b"append")]
    if kind == 5:
        return bytes(8), []  # so that some rows are counters
    conditions = [
        b"absent", b"present", b"version:%d" % rng.randrange(n + 1),
        b"value:" + xxh3_128_digest(b"plain-%d" % rng.randrange(4)),
    ]  # fmt: skip
    return (bytes(8) if rng.random() < 0.5 else None), [("ls.if", rng.choice(conditions))]


@contextmanager
def lane_reading(bootstrap: str, table: Table, partition: int, cut: int, folder: Path) -> Iterator[Reading]:
    """A reading of the view in which the lane has folded everything below the cut."""
    folder.mkdir(parents=True)
    with closing(FollowedPartition(Target(table, partition, 0), folder)) as followed:
        records = records_of(bootstrap, table, partition, cut)
        for at in range(0, len(records.offsets), 97):
            assert followed.take(records.slice(at, at + 97), 0), followed.reason
        with followed.view.reader().reading() as reading:
            yield reading


def lane_facts(
    bootstrap: str, table: Table, manifest: Manifest, folder: Path
) -> dict[int, tuple[Digest, int, int, int]]:
    """By partition what engines are compared by, at the manifest's cuts: digest, counter, decisions, log time."""
    found = {}
    for partition, part in manifest.parts.items():
        with lane_reading(bootstrap, table, partition, part.cut, folder / str(partition)) as reading:
            decided = reading.decisions
            assert decided is not None
            count = sum(1 for _ in whole(decided.items()))
            found[partition] = digest_of(reading, None, None), decided.counter, count, reading.state.log_time_ms
    return found


def facts(manifest: Manifest) -> dict[int, tuple[Digest, int, int, int]]:
    """The same, as a manifest has it."""
    return {
        p: (Digest.from_hex(part.digest, part.entries), part.counter, part.decisions, part.log_time_ms)
        for p, part in manifest.parts.items()
    }


def whole(items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Outcomes and ids, each under its whole key."""
    for key, value in items:
        if key[:1] == ID_KIND:
            yield from unpack_bucket(value)
        else:
            yield key, value
