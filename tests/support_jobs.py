"""A store of a table to run batch jobs on, and one pool of processes that runs their tasks.

Jobs do not know what runs their tasks: `tests/test_engines.py` holds that Spark gives the same. So only tests of what
Spark itself does start it (`support_spark`).
"""

import atexit
import functools
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from batch import failpoints
from batch.context import Context
from batch.defaults import LOCAL
from batch.engine.choice import Engines
from batch.engine.local import LocalEngine
from batch.engine.protocol import Engine, attempt, result
from logstore.log import topics
from logstore.log.kafka import clients
from logstore.log.kafka.records import read_records
from logstore.log.read.ranges import committed_ends
from logstore.log.tables.registry import Registry
from logstore.model.folding.entry import TOMBSTONE
from logstore.model.folding.fold import Folded, FoldRules, Records, fold_batch
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot import sst
from logstore.snapshot.manifest import Manifest, levels_of
from logstore.snapshot.storage import Storage

LEFT_BY_A_SESSION = ("PYSPARK_PYTHON", "PYTHONPATH", "SPARK_LOCAL_HOSTNAME")
ROOT = Path(__file__).parent.parent


@functools.cache
def pool() -> LocalEngine:
    """The pool that the tests of a process share."""
    made = LocalEngine(2)
    atexit.register(made.close)
    return made


class InProcess:
    """An engine whose tasks see what a test has changed in this process."""

    name = LOCAL

    def start(self) -> None:
        """Nothing is waited for."""

    def run(self, step: str, function: Any, items: Any, saw: Any) -> list[Any]:
        """One task after the other."""
        found = [result(attempt(function, item, 1)) for item in items]
        saw(len(found))
        return found

    def remote_places(self) -> int:
        """It all runs here."""
        return 0

    def at_once(self) -> int:
        """One task after the other."""
        return 1

    def close(self) -> None:
        """Nothing was started."""


def context(bootstrap: str, directory: Path, engine: Engine | None = None) -> Context:
    """A batch context on a broker, with storage under `directory`; tasks run in the shared pool."""
    registry = Registry(bootstrap)
    registry.ensure_store()
    storage = Storage(f"file://{directory}/storage")
    return Context(bootstrap, registry, registry.read(), storage, engines=engines(engine), lease_s=5)


def engines(engine: Engine | None = None) -> Engines:
    """The one engine, else the shared pool, for every job."""
    return Engines(LOCAL, made={LOCAL: engine or pool()})


def make_table(ctx: Context, name: str, partitions: int = 2, **more: Any) -> Table:
    """A table with a topic of its own."""
    client = clients.admin(ctx.bootstrap)
    topics.create(client, name, partitions, 1, topics.wal_settings(more.get("max_value_bytes", 1_000_000), 1))
    table = Table(name, name, topics.topic_ids(client, [name])[name], partitions, **more)
    return replace(table, revision=ctx.registry.write(table))


def write(bootstrap: str, table: Table, count: int, *, seed: int = 1, keys: int = 500, deletes: float = 0.2) -> None:
    """Append puts and deletes of random keys."""
    rng = random.Random(seed)
    producer: Any = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    for n in range(count):
        value = None if rng.random() < deletes else b"%d-%d-" % (seed, n) + rng.randbytes(rng.randrange(60))
        producer.produce(table.topic, value, b"key-%05d" % rng.randrange(keys))
        producer.poll(0)
    assert producer.flush(30) == 0


def folded(bootstrap: str, table: Table, partition: int, cut: int) -> Folded:
    """What the definition makes of the log below the cut, read in another way than the jobs do."""
    records = list(read_records(bootstrap, table.topic, partition, 0, cut))
    columns = Records(
        [r.offset() for r in records], [r.key() for r in records], [r.value() for r in records],
        [r.timestamp()[1] for r in records],
        [r.headers() for r in records],
    )  # fmt: skip
    return fold_batch(columns, FoldRules.of(table, partition), 0, 0)


def live(bootstrap: str, table: Table, partition: int, cut: int) -> dict[bytes, bytes]:
    """The entries a snapshot at the cut has to hold."""
    return {
        key: entry for key, entry in folded(bootstrap, table, partition, cut).entries.items() if entry[0] != TOMBSTONE
    }


def content(ctx: Context, manifest: Manifest, partition: int) -> dict[bytes, bytes]:
    """The entries that a snapshot's files hold."""
    root = f"{manifest.topic}/{manifest.epoch}/snapshots"
    files = levels_of(manifest.files_of(partition))
    levels = [[Path(str(ctx.storage.local(f"{root}/{file.path}"))) for file in level] for level in files]
    with sst.opened(levels) as reader:
        return dict(reader.scan())


def digests(manifest: Manifest) -> dict[int, str]:
    """Partition -> digest."""
    return {partition: part.digest for partition, part in manifest.parts.items()}


def token(table: Table, offsets: dict[int, int]) -> str:
    """A token that names every partition."""
    return Position({(table.epoch, partition): offset for partition, offset in offsets.items()}).token


def ends(ctx: Context, table: Table) -> dict[int, int]:
    """Partition -> end of the log."""
    return committed_ends(ctx.bootstrap, table)


DRIVER = """
import json, sys
from batch.context import Context
from batch.engine.choice import Engines
from batch.jobs import archive, compact, restore
from logstore.log.tables.registry import Registry
from logstore.snapshot.storage import Storage
bootstrap, storage, table, job, engines, task_bytes = sys.argv[1:]
registry = Registry(bootstrap)
ctx = Context(
    bootstrap, registry, registry.read(), Storage(storage), engines=Engines(**json.loads(engines)), lease_s=1,
    task_bytes=int(task_bytes),
)
job, *more = job.split()
if job == "restore":  # and the position, and the new table's name
    restore.restore(ctx, table, *more)
else:
    {"archive": archive.archive, "compact": compact.compact, "rebuild": compact.rebuild}[job](ctx, ctx.table(table))


def seen(_):
    import importlib.util, logstore
    return logstore.__file__, importlib.util.find_spec("batch") is None


print(json.dumps(ctx.run("look", seen, [0, 1]) if ctx.engine.name == "spark" else None))
ctx.close()
"""


def crash_folder(directory: Path) -> str:
    """A folder that lets processes be killed at their failpoints; the value of LOGSTORE_TEST_CRASH_DIR."""
    folder = directory / "crashes"
    folder.mkdir()
    (folder / "may-crash").write_text(failpoints.CONSENT)
    return str(folder)


def drive(
    ctx: Context, table: Table, job: str, engines: dict[str, Any] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a job in a process of its own, which may be told to die. `engines`: fields of Engines."""
    chosen = json.dumps(engines or {"wanted": LOCAL, "processes": 2})
    argv = [sys.executable, "-c", DRIVER, ctx.bootstrap, ctx.storage.url, table.name, job, chosen, str(ctx.task_bytes)]
    env = {name: value for name, value in os.environ.items() if name not in LEFT_BY_A_SESSION}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env={**env, **environment}
    )
