"""Snapshots without Spark.

A table's log is folded again from offset 0 in plain Python, written as SSTables and published.
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack
from support_log import produce

from logstore.log.kafka.records import read_records
from logstore.log.read.tail import headers_of
from logstore.model.folding.digest import digest
from logstore.model.folding.entry import TOMBSTONE, Entry
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.table import Table
from logstore.snapshot.manifest import FileFacts, Manifest, PartFacts, levels_of
from logstore.snapshot.repository import Repository
from logstore.snapshot.sst import SstWriter, opened
from logstore.snapshot.storage import Storage
from logstore.snapshot.verdicts import PIN, Verdict

Entries = dict[bytes, bytes]


def cut(bootstrap: str, table: Table) -> dict[int, int]:
    """Append a cut to every partition; returns partition -> its offset."""
    value = msgpack.packb({"job": "test", "table": table.name})
    return dict(
        produce(bootstrap, table.topic, [(None, value)], partition, [("ls.op", b"cut")])[0]
        for partition in range(table.partitions)
    )


def records_of(bootstrap: str, table: Table, partition: int, upto: int) -> Records:
    """The log `[0, upto)`."""
    found = list(read_records(bootstrap, table.topic, partition, 0, upto))
    return Records(
        [r.offset() for r in found],
        [r.key() for r in found],
        [r.value() for r in found],
        [r.timestamp()[1] for r in found],
        headers_of(found),
    )


def folded(bootstrap: str, table: Table, partition: int, upto: int) -> tuple[Entries, PartFacts]:
    """The live entries of a partition at `upto` by key, and what a manifest says of them."""
    place = FoldRules.of(table, partition)
    result = fold_batch(records_of(bootstrap, table, partition, upto), place, 0, 0)
    assert result.refused is None
    live = {key: entry for key, entry in sorted(result.entries.items()) if entry[0] & 0x7F != TOMBSTONE}
    counts: dict[str, int] = {}
    for _, reason in result.quarantined:
        counts[reason] = counts.get(reason, 0) + 1
    amount = digest(live.items())
    return live, PartFacts(upto, result.log_time_ms, len(live), amount.hex, counts, result.quarantined[-1_000:])


def make_snapshot(
    bootstrap: str,
    table: Table,
    storage_url: str,
    *,
    cuts: dict[int, int] | None = None,
    change: Callable[[int, Entries], Entries] = lambda _, entries: entries,
    move: bool = True,
    word: str | None = None,
    upon: Manifest | None = None,
) -> Manifest:
    """Cut (or use these cuts), fold, write, publish, and make it current.

    `upon`: a snapshot that this one is deltas of. `change` plants what the fold would not have made. `word`:
    what a node that began at offset 0 says of it.
    """
    cuts = cut(bootstrap, table) if cuts is None else cuts
    job = secrets.token_hex(4)
    name = f"{int(time.time() * 1000):014d}-{job}"
    storage = Storage(storage_url)
    repository = Repository(storage, table.topic, table.epoch)
    parts: dict[int, PartFacts] = {}
    files: list[FileFacts] = []
    for partition, at in sorted(cuts.items()):
        entries, parts[partition] = folded(bootstrap, table, partition, at)
        entries = change(partition, dict(entries))
        amount = digest(entries.items())
        parts[partition] = parts[partition]._replace(digest=amount.hex, entries=amount.entries)
        below = upon.files_of(partition) if upon else []
        files += below
        files += _written(repository, name, partition, _changed(repository, below, entries), len(levels_of(below)))
    now_ms = int(time.time() * 1000)
    manifest = Manifest(
        name=name, table=table.name, topic=table.topic, epoch=table.epoch, partitions=table.partitions,
        max_value_bytes=table.max_value_bytes, kind="rebuild", parent=None, created_ms=now_ms, verified_ms=now_ms,
        job=job, build="test",
        parts=parts, files=files,
    )  # fmt: skip
    repository.publish(manifest)
    if word is not None:
        judge(repository, manifest, word)
    if move:
        repository.move(repository.current(), name, "test")
    return manifest


def judge(
    repository: Repository,
    manifest: Manifest,
    word: str,
    *,
    judge: str = "0123456789ab",
    root: str = "",
    how: str = PIN,
) -> None:
    """Have a node (or an audit) say its word on every partition of a snapshot."""
    parts = {p: Verdict(word, part.digest, part.entries, part.cut, how, root) for p, part in manifest.parts.items()}
    repository.verdicts().say(manifest.name, judge, parts)


def _changed(repository: Repository, below: list[FileFacts], entries: Entries) -> Entries:
    """What these entries change in what lies below, tombstones where they lack a row."""
    with opened([[_local(repository, file) for file in level] for level in levels_of(below)]) as reader:
        old = dict(reader.scan())
    gone = {key: Entry(TOMBSTONE, 0, 0).encode() for key in old.keys() - entries.keys()}
    return gone | {key: entry for key, entry in entries.items() if old.get(key) != entry}


def _local(repository: Repository, file: FileFacts) -> Path:
    return Path(str(repository.storage.local(repository.file_path(file.path))))


def _written(repository: Repository, name: str, partition: int, entries: Entries, level: int) -> list[FileFacts]:
    with TemporaryDirectory() as folder:
        local = Path(folder) / "one.sst"
        writer = SstWriter(local)
        for key, entry in sorted(entries.items()):
            writer.put(key, entry)
        facts = writer.close()
        if facts is None:
            return []
        path = f"{name}/p{partition:05d}-00000.sst"
        repository.storage.upload(local, repository.file_path(path))
    keys = (facts.first_key, facts.last_key)
    return [FileFacts(partition, path, facts.entries, facts.size_bytes, *keys, facts.checksum, level)]
