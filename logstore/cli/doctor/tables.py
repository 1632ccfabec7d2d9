"""Tables, as `doctor` looks at them: definitions, topics, age of snapshots, what the archive lacks."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from logstore.cli.doctor.check import FAIL, OK, WARN, Check
from logstore.log import topics
from logstore.log.kafka.descriptions import describe
from logstore.log.kafka.offsets import Bounds, bounds
from logstore.log.tables import repairs
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import LogStoreError
from logstore.model.table import TABLES_TOPIC, Table
from logstore.snapshot.archive.gap import archive_gap
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url

OLD_S = 259_200.0  # as the alert LogstoreSnapshotOld
MANY = 10_000_000  # mutations without a snapshot: some minutes of folding after a restart

Ends = Mapping[int, Bounds]


def examine(registry: Registry, definitions: Definitions, storage: str | None, data_dir: Path) -> Iterator[Check]:
    """Checks of the definitions, and of each table."""
    yield from _definitions(definitions)
    tables = {name: table for name, table in definitions.tables.items() if not table.dropped}
    place: Storage | None = None
    try:
        place = Storage(storage_url(storage, definitions.known_storage(), data_dir)) if tables else None
    except LogStoreError as error:
        yield Check(WARN, "storage", str(error), "logstore doctor --storage URL, or LOGSTORE_STORAGE=URL")
    for name in sorted(tables):
        yield from _table(registry, tables[name], place)


def _definitions(definitions: Definitions) -> Iterator[Check]:
    """Records of `logstore.tables` that cannot be read."""
    for name, why in sorted(definitions.unreadable.items()):
        state = FAIL if definitions.stopped(name) else WARN
        yield Check(state, f"table {name}", str(why), f"logstore table repair {name} --definition")
    if definitions.storage_problem is not None:
        state = WARN if definitions.storage else FAIL
        yield Check(state, "storage", definitions.storage_problem, "logstore node --storage URL")
    if definitions.foreign:
        what = f"{definitions.foreign:,} records under keys that no table can have: somebody else writes there"
        yield Check(
            WARN, TABLES_TOPIC, what, f"kafka-acls --topic {TABLES_TOPIC}: only the store's own may write there"
        )


def _table(registry: Registry, table: Table, storage: Storage | None) -> Iterator[Check]:
    what = f"table {table.name}"
    now = describe(registry.admin, [table.topic]).get(table.topic)
    if now is None:
        why = f"its topic {table.topic} is gone; {repairs.when_gone(table)}"
        yield Check(FAIL, what, why, f"logstore table drop {table.name}, or restore the topic")
        return
    if now.topic_id != table.epoch:
        fix = f"logstore table repair {table.name} --new-epoch"
        yield Check(FAIL, what, f"its topic was created again; `{fix}` accepts the new one", fix)
        return
    yield from _topic(registry, table)
    if storage is not None:
        yield from _stored(registry, table, storage)


def _topic(registry: Registry, table: Table) -> Iterator[Check]:
    what, findings = f"table {table.name}", topics.check(registry.admin, table)
    for finding in findings:
        fix = f"logstore table alter {table.name} --topic-config {finding.setting}={finding.wanted}"
        change = f"; `{fix}` changes it" if finding.is_to_change else ""
        copy = f"logstore batch restore {table.name} --as NEW: a copy to a topic that is as it should be"
        yield Check(FAIL if finding.fatal else WARN, what, f"{finding}{change}", fix if finding.is_to_change else copy)
    if not findings:
        yield Check(OK, what, "its topic is as it should be")


def _stored(registry: Registry, table: Table, storage: Storage) -> Iterator[Check]:
    """Snapshot and archive of a table."""
    what = f"snapshot of {table.name}"
    try:
        repository = Repository(storage, table.topic, table.epoch)
        ends = bounds(registry.admin, table.topic, list(range(table.partitions)))
        pointer = repository.current()
        current = None if pointer is None else repository.manifest(pointer.name)
        yield snapshot_age(table.name, current, ends, time.time())
        yield archive_state(table.name, current, ArchiveIndex(storage, table.topic, table.epoch), ends)
    except LogStoreError as error:
        yield Check(WARN, what, str(error), f"logstore snapshot list {table.name}")


def snapshot_age(name: str, current: Manifest | None, ends: Ends, now_s: float) -> Check:
    """Age of the current snapshot, and how much was written since."""
    what, fix = f"snapshot of {name}", f"logstore batch compact {name}"
    if current is None:
        written = sum(held.end - held.start for held in ends.values())
        text = f"there is none: a node that begins anew folds {written:,} records"
        return Check(WARN, what, text, fix) if written >= MANY else Check(OK, what, text)
    since = sum(max(ends[p].end - part.cut, 0) for p, part in current.parts.items())
    age_s = now_s - current.created_ms / 1000
    text = f"{current.name} is {_span(age_s)} old, {since:,} records were written since"
    if age_s > OLD_S and since > len(current.parts):  # a cut of its own is a record too
        return Check(WARN, what, text, f"{fix}; logstore batch schedule {name} says why it was not made by itself")
    return Check(OK, what, text)


def archive_state(name: str, current: Manifest | None, archive: ArchiveIndex, ends: Ends) -> Check:
    """Gaps of the archive: of what the log does not hold any more, or of what a trim would delete."""
    what, fix = f"archive of {name}", f"logstore batch archive {name}"
    reach = archive.next_offsets()
    lost = {p: (reach.get(p, 0), held.start) for p, held in ends.items() if held.start > reach.get(p, 0)}
    if lost and reach:
        partition, (end, start) = next(iter(lost.items()))
        text = (
            f"it ends at {end:,} in partition {partition}, where the log begins at {start:,}: what lies between is gone"
        )
        return Check(WARN, what, text, f"logstore batch audit {name} --explain")
    if not reach:
        return Check(OK, what, "there is none: the log is the whole history, and cannot be trimmed")
    gap = 0 if current is None else sum(archive_gap(current, archive).values())
    if gap:
        return Check(WARN, what, f"it lacks {gap:,} records below the current snapshot: they cannot be trimmed", fix)
    behind = sum(held.end - reach.get(p, 0) for p, held in ends.items())
    return Check(OK, what, f"it lacks the newest {behind:,} records")


def _span(seconds: float) -> str:
    for unit, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:,.0f} s"
