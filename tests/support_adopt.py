"""What the feed says of adoption, and a view that equals its log."""

from pathlib import Path

from support_log import produce
from support_snapshot import folded

from logstore.log.tables.registry import Registry
from logstore.model.folding.entry import TOMBSTONE
from logstore.snapshot.repository import Repository
from logstore.snapshot.sst import SstReader
from logstore.snapshot.storage import Storage
from logstore.view import paths
from logstore.view.feed.adoption_records import AdoptionKey
from logstore.view.feed.view_records import ViewKey, ViewRecord
from logstore.view.reader import ViewReader

WAIT_S = 100.0


def storage_of(worker):
    """The store's definition's storage, if a node of another test recorded one, else where a worker looks then."""
    return Registry(worker.bootstrap).read().storage or paths.default_storage(worker.data_dir)


def repository(worker, table):
    return Repository(Storage(storage_of(worker)), table.topic, table.epoch)


def snapshot_is(worker, table, state, partition=0, **more):
    """Wait until the feed says so of a partition's snapshots; returns what it says."""
    key = AdoptionKey(table.name, table.epoch, partition)

    def found(values):
        shown = values.get(key)
        return shown if shown and shown.state == state and more.items() <= shown._asdict().items() else None

    return worker.watch.until(f"{key} is {state} {more}", found, WAIT_S)


def adopted(worker, table, manifest):
    for partition in range(table.partitions):
        snapshot_is(worker, table, "adopted", partition, base=manifest.name)
        key = ViewKey(table.name, table.epoch, partition)
        worker.watch.until(
            f"{key} stands on {manifest.name}", lambda values, key=key: _base(values, key) == manifest.name, WAIT_S
        )


def _base(values, key):
    base = values.get(key, ViewRecord()).base
    return base and base.snapshot


def merged(shown):
    """(position, live entries) of a view and its base, read as the feed says."""
    reader = ViewReader.open(Path(shown.path))
    base = SstReader.open(Path(shown.base.path)) if shown.base else None
    with reader.reading() as reading:
        entries = {**dict(base.scan() if base else ()), **dict(reading.scan())}
        position = reading.state.next_offset
        if shown.base:
            assert all(int.from_bytes(entry[1:9], "big") >= shown.base.cut for _, entry in reading.scan())
    reader.close()
    if base:
        base.close()
    return position, {key: entry for key, entry in entries.items() if entry[0] & 0x7F != TOMBSTONE}


def assert_equals_the_log(kafka, worker, table):
    for partition in range(table.partitions):
        position, entries = merged(worker.watch.values[ViewKey(table.name, table.epoch, partition)])
        assert entries == folded(kafka.bootstrap, table, partition, position)[0]


def some(rng, count, keys=2_000):
    """Puts, deletes and garbage."""
    for _ in range(count):
        key = b"k%d" % rng.randrange(keys) if rng.random() < 0.95 else b"long" * 200 + b"%d" % rng.randrange(20)
        yield (key, None if rng.random() < 0.2 else rng.randbytes(rng.randrange(60)))
    yield (None, b"garbage")


def write(kafka, worker, table, rows):
    for partition, offset in dict(
        produce(kafka.bootstrap, table.topic, list(rows))
    ).items():  # the last one of each partition
        worker.watch.position(table, partition, offset + 1)
