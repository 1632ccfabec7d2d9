import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from pyspark.errors import PySparkException
from pyspark.sql import functions as f
from support_jobs import LEFT_BY_A_SESSION, folded, make_table, write
from support_log import produce
from support_spark import context, spark

from batch.datasource import read, row_shape
from batch.datasource.key_filter import Keys
from batch.datasource.options import checked, keys_of
from batch.datasource.source import TableReader
from batch.jobs.archive import archive
from batch.jobs.compact import compact
from batch.tasks.fold import Fold
from examples.notebook import cells
from logstore.log.kafka import clients
from logstore.log.kafka.records import read_records
from logstore.log.read.ranges import committed_ends
from logstore.model.errors import LogStoreError, NoSuchSnapshot, UsageError
from logstore.model.folding.entry import TOMBSTONE, Entry
from logstore.model.partitioner import partition_of
from logstore.model.position import Position
from logstore.spark import reason, register

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def options(ctx, table, **more):
    return {
        "bootstrap": ctx.bootstrap,
        "table": table if isinstance(table, str) else table.name,
        "storage": ctx.storage.url,
        **more,
    }


def frame(ctx, table, **more):
    register(spark())
    return spark().read.format("logstore").options(**options(ctx, table, **more)).load()


def rows(found):
    return {bytes(row.key): (bytes(row.value), row.version, row.partition) for row in found.collect()}


def truth(ctx, table, ends):
    """What the definition makes of the log below `ends`, read in another way."""
    found = {}
    for partition, end in ends.items():
        for key, raw in folded(ctx.bootstrap, table, partition, end).entries.items():
            if raw[0] != TOMBSTONE:
                entry = Entry.decode(raw)
                found[key] = (entry.payload, entry.version, partition)
    return found


def token(table, ends):
    return Position({(table.epoch, partition): end for partition, end in ends.items()}).token


def trim(ctx, table, ends):
    client = clients.admin(ctx.bootstrap)  # its futures end with it
    for future in client.delete_records([TopicPartition(table.topic, p, end) for p, end in ends.items()]).values():
        future.result(60)


def looked_at(reader):
    """The keys that a reading gives, and how many rows or records it looked at."""
    keys = [
        key for part in reader.partitions() for batch in reader.read(part) for key in batch.column("key").to_pylist()
    ]
    return sorted(keys), reader.examined


def test_a_snapshot_reads_as_the_fold_below_its_cut(ctx):
    table = make_table(ctx, "src-snapshot", 3)
    write(ctx.bootstrap, table, 2_000)
    first = compact(ctx, table).manifest
    write(ctx.bootstrap, table, 300, seed=2)
    second = compact(ctx, table).manifest
    cuts = {
        name: {p: facts.cut for p, facts in manifest.parts.items()}
        for name, manifest in (("old", first), ("new", second))
    }
    assert rows(frame(ctx, table)) == rows(frame(ctx, table, snapshot="current")) == truth(ctx, table, cuts["new"])
    assert rows(frame(ctx, table, snapshot=first.name)) == truth(ctx, table, cuts["old"])
    assert frame(ctx, table).schema.simpleString() == (
        "struct<key:binary,value:binary,version:bigint,timestamp:timestamp,partition:int>"
    )  # fmt: skip


@pytest.mark.slow
def test_a_state_as_of_any_position_is_the_fold_below_it(ctx):
    table = make_table(ctx, "src-asof", 2)
    write(ctx.bootstrap, table, 800)
    early = committed_ends(ctx.bootstrap, table)
    assert rows(frame(ctx, table, as_of="latest")) == truth(ctx, table, early)  # without any snapshot
    manifest = compact(ctx, table).manifest
    write(ctx.bootstrap, table, 400, seed=2, deletes=0.5)
    between = committed_ends(ctx.bootstrap, table)
    write(ctx.bootstrap, table, 200, seed=3)
    latest = committed_ends(ctx.bootstrap, table)
    for ends in (early, between, latest):
        assert rows(frame(ctx, table, as_of=token(table, ends))) == truth(ctx, table, ends)
    assert rows(frame(ctx, table, as_of="latest")) == truth(ctx, table, latest)
    half = {0: early[0] // 2, 1: between[1]}  # partition 0 before the snapshot, partition 1 after it
    assert rows(frame(ctx, table, as_of=token(table, half))) == truth(ctx, table, half)
    assert rows(frame(ctx, table, as_of=manifest.position.token)) == rows(frame(ctx, table))


def test_a_state_before_what_the_log_still_holds_comes_from_the_archive(ctx):
    table = make_table(ctx, "src-trimmed", 2)
    write(ctx.bootstrap, table, 600)
    early = committed_ends(ctx.bootstrap, table)
    write(ctx.bootstrap, table, 600, seed=2)
    latest = committed_ends(ctx.bootstrap, table)
    middle = {p: (early[p] + latest[p]) // 2 for p in early}
    expected = [truth(ctx, table, ends) for ends in (early, middle, latest)]
    versions = sorted((p, o) for p, end in latest.items() for o in range(end))
    archive(ctx, table, middle)
    trim(ctx, table, early)
    assert [rows(frame(ctx, table, as_of=token(table, ends))) for ends in (early, middle, latest)] == expected
    changes = frame(ctx, table, changes="earliest").collect()
    assert sorted((row.partition, row.version) for row in changes) == versions
    trim(ctx, table, {p: end - 1 for p, end in latest.items()})
    with pytest.raises(PySparkException) as raised:
        frame(ctx, table, as_of="latest").count()
    assert re.match("LogTruncated: offset .* is neither in the log", reason(raised.value))


def test_changes_are_the_puts_and_deletes_between_two_positions(ctx):
    table = make_table(ctx, "src-changes", 2)
    write(ctx.bootstrap, table, 300)
    start = committed_ends(ctx.bootstrap, table)
    compact(ctx, table)  # a control record in each partition: no change of a row
    here = next(key for key in (b"h%d" % n for n in range(99)) if partition_of(key, 2) == 0)
    there = next(key for key in (b"t%d" % n for n in range(99)) if partition_of(key, 2) == 1)
    offset = start[0] + 1
    produce(ctx.bootstrap, table.topic, [(here, b"kept")], 0, [("trace", b"1"), ("none", None)])
    produce(ctx.bootstrap, table.topic, [(there, b"misplaced")], 0)  # is quarantined by the fold
    produce(ctx.bootstrap, table.topic, [(here, None)], 0)
    produce(ctx.bootstrap, table.topic, [(None, b"no key")], 0)
    middle = committed_ends(ctx.bootstrap, table)
    found = frame(ctx, table, changes=token(table, start), until=token(table, middle)).orderBy("version").collect()
    assert [(bytes(r.key), r.value and bytes(r.value), r.version, r.partition) for r in found] == [
        (here, b"kept", offset, 0), (here, None, offset + 2, 0),
    ]  # fmt: skip
    assert [(h.key, h.value and bytes(h.value)) for h in found[0].headers] == [("trace", b"1"), ("none", None)]
    (record,) = read_records(ctx.bootstrap, table.topic, 0, offset, offset + 1)
    seen = (
        frame(ctx, table, changes=token(table, start))
        .where(f"version = {offset}")
        .select(f.unix_millis("timestamp"))
        .collect()
    )
    assert seen[0][0] == record.timestamp()[1]
    assert abs(datetime.fromtimestamp(seen[0][0] / 1000, UTC) - datetime.now(UTC)) < timedelta(minutes=10)
    assert frame(ctx, table, changes="earliest").count() == 302


@pytest.mark.slow
def test_reserved_headers_are_read_as_the_definition_reads_them(ctx):
    table = make_table(ctx, "src-odd", 1)
    write(ctx.bootstrap, table, 5, deletes=0)
    produce(ctx.bootstrap, table.topic, [(b"odd", b"x")], 0, [("ls.v", b"\x63")])
    for kind in ({"as_of": "latest"}, {"changes": "earliest"}):
        with pytest.raises(PySparkException) as raised:
            frame(ctx, table, **kind).where(f.col("key") == f.lit(b"else")).count()
        assert re.match(r"Unsupported: the record at offset 5 of src-odd/0", reason(raised.value))


def test_a_key_is_looked_for_in_its_partition_only(ctx):
    table = make_table(ctx, "src-point", 4)
    write(ctx.bootstrap, table, 2_000, deletes=0)
    compact(ctx, table)
    whole = frame(ctx, table)
    assert whole.rdd.getNumPartitions() == 4
    key, expected = next(iter(sorted(rows(whole).items())))
    for kind in ({}, {"as_of": "latest"}, {"changes": "earliest"}):
        found = frame(ctx, table, key=key.decode(), **kind)
        assert found.rdd.getNumPartitions() == 1
        assert expected[:2] in [(bytes(row.value), row.version) for row in found.collect()]
    assert frame(ctx, table, key="zzz").collect() == []
    assert looked_at(TableReader(options(ctx, table, key=key.decode()))) == ([key], 1)


@pytest.mark.slow
def test_a_range_of_keys_reads_no_row_beside_it(ctx):
    table = make_table(ctx, "src-range", 2)
    write(ctx.bootstrap, table, 3_000, deletes=0)
    compact(ctx, table)
    keys = sorted(rows(frame(ctx, table)))
    first, last = keys[10].decode(), keys[19].decode()
    assert looked_at(TableReader(options(ctx, table, start=first, end=last))) == (keys[10:19], 9)
    some = json.dumps([keys[3].decode(), keys[400].decode(), "absent"])
    assert looked_at(TableReader(options(ctx, table, keys=some))) == ([keys[3], keys[400]], 2)
    for asked, expected in (
        ({"start": first, "end": last}, keys[10:19]),
        ({"keys": some}, [keys[3], keys[400]]),
        ({"end": keys[0].decode()}, []),
        ({"prefix": "key-0001"}, [key for key in keys if key.startswith(b"key-0001")]),
        ({"prefix": "key-0001", "end": first}, [key for key in keys if b"key-0001" <= key < first.encode()]),
    ):
        assert sorted(rows(frame(ctx, table, **asked))) == expected
        assert sorted(rows(frame(ctx, table, as_of="latest", **asked))) == expected


def test_one_frame_may_be_asked_in_many_ways(ctx):
    table = make_table(ctx, "src-again", 2)
    write(ctx.bootstrap, table, 200, keys=40, deletes=0)
    spark().conf.set("spark.sql.python.filterPushdown.enabled", "true")  # others of a session's sources may want it
    try:
        whole = frame(ctx, table, as_of="latest")
        keys = sorted(rows(whole))
        one, other = (whole.where(f.col("key") == f.lit(key)) for key in keys[:2])
        assert sorted(rows(one.union(other))) == keys[:2]
        assert sorted(rows(whole.join(one, "key", "left_anti"))) == keys[1:]
        write(ctx.bootstrap, table, 200, keys=80, deletes=0)
        assert sorted(rows(whole)) == keys
        assert len(rows(frame(ctx, table, as_of="latest"))) > len(keys)
    finally:
        spark().conf.unset("spark.sql.python.filterPushdown.enabled")


def test_the_wanted_keys_of_options():
    assert keys_of({}) == Keys()
    assert keys_of({"key": "ä"}).points == ["ä".encode()]
    assert keys_of({"keys": '["b", "a"]', "start": "b"}).points == [b"b"]
    assert keys_of({"prefix": "_w", "key_encoding": "base64url"}) == Keys(start=b"\xff")
    assert keys_of({"prefix": "ab", "start": "aa", "end": "abz"}) == Keys(start=b"ab", end=b"abz")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"keys": "ada"}, "wants a JSON list"),
        ({"keys": "[1]"}, "wants a JSON list"),
        ({"key_encoding": "hex"}, "give text or base64url"),
        ({"key": "~", "key_encoding": "base64url"}, "base64url"),
    ],
)
def test_keys_that_cannot_be_say_what_to_write(given, said):
    with pytest.raises(LogStoreError, match=said):
        keys_of(given)


def test_the_fold_of_a_long_tail_spills_and_batches_are_bounded(ctx, monkeypatch):
    table = make_table(ctx, "src-bounds", 1)
    write(ctx.bootstrap, table, 5_000, keys=3_000)
    spilled = []
    add = read.Fold.__init__

    def small(self, *args, **more):
        add(self, *args, **(more | {"buffer_bytes": 32_000}))
        spilled.append(self._runs)

    monkeypatch.setattr(Fold, "__init__", small)
    monkeypatch.setattr(row_shape, "BATCH_ROWS", 100)
    monkeypatch.setattr(row_shape, "BATCH_BYTES", 4_000)
    whole = read._records

    def pieces(*args):
        return (batch.slice(at, 500) for batch in whole(*args) for at in range(0, batch.num_rows, 500))

    monkeypatch.setattr(read, "_records", pieces)
    reader = TableReader(options(ctx, table, as_of="latest"))
    (part,) = reader.partitions()
    batches = list(reader.read(part))
    assert spilled[0]._made > 1
    assert max(batch.num_rows for batch in batches) <= 100
    assert max(sum(map(len, batch.column("value").to_pylist())) for batch in batches) < 4_200
    found = {key for batch in batches for key in batch.column("key").to_pylist()}
    assert found == set(truth(ctx, table, committed_ends(ctx.bootstrap, table)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"asof": "latest"}, "does not know the option 'asof'; there are bootstrap, table"),
        ({"as_of": "latest", "snapshot": "current"}, "snapshot and as_of exclude each other"),
        ({"until": "latest"}, "until goes with changes, not with snapshot"),
        ({"as_of": "earliest"}, "as_of cannot be 'earliest'"),
        ({"changes": "latest"}, "changes cannot be 'latest'"),
        ({"bootstrap": ""}, r"needs .option\(\"bootstrap\""),
        ({"table": ""}, r"needs .option\(\"table\""),
    ],
)
def test_options_that_cannot_be_say_what_to_write(more, said):
    with pytest.raises(UsageError, match=said):
        checked({"bootstrap": "localhost:1", "table": "t", **more})


@pytest.mark.slow
def test_errors_reach_the_caller_as_one_sentence(ctx):
    table = make_table(ctx, "src-errors", 2)
    other = make_table(ctx, "src-other", 2)
    write(ctx.bootstrap, table, 10)
    ends = committed_ends(ctx.bootstrap, table)

    def said(named=table, **more):
        with pytest.raises(PySparkException) as raised:
            frame(ctx, named, **more).count()
        return reason(raised.value)

    assert said(nonsense="1").startswith("UsageError: logstore does not know the option 'nonsense'")
    assert said("no-such").startswith("NoSuchTable: there is no table 'no-such'")
    assert said().startswith("NoSuchSnapshot: table src-errors has no snapshot yet")
    assert said(snapshot="x").startswith("NoSuchSnapshot: there is no snapshot 'x'")
    assert said(as_of="x").startswith("BadToken: not a token: 'x'")
    assert "has no piece for partition 1" in said(as_of=f"{table.epoch}-0-1")
    assert "has no piece for partition 0" in said(as_of=token(other, ends))
    assert "its log ends at" in said(as_of=token(table, {p: end + 1 for p, end in ends.items()}))
    assert "swap them" in said(changes=token(table, ends), until=token(table, dict.fromkeys(ends, 0)))
    assert reason(ValueError("something else")) is None
    with pytest.raises(NoSuchSnapshot):
        TableReader(options(ctx, table)).partitions()


def test_a_damaged_snapshot_is_an_error_and_never_an_answer(ctx):
    table = make_table(ctx, "src-damaged", 1)
    write(ctx.bootstrap, table, 200)
    manifest = compact(ctx, table).manifest
    path = ctx.storage.local(ctx.repository(table).file_path(manifest.files[0].path))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(PySparkException) as raised:
        frame(ctx, table).count()
    assert re.match("Corrupted: .* is damaged", reason(raised.value))


PROGRAM = """
import sys
from pyspark.sql import SparkSession
from logstore.spark import register
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
reading = spark.read.format("logstore").option("bootstrap", sys.argv[1]).option("table", sys.argv[2])
found = reading.option("changes", "earliest").load()
print(found.where("version < 5").count(), found.count())
register(spark)
print(len(reading.load().columns))
"""


def test_a_session_of_ones_own_finds_the_source_and_may_register_it(ctx):
    table = make_table(ctx, "src-register", 1)
    write(ctx.bootstrap, table, 20, deletes=0)
    plain = {name: value for name, value in os.environ.items() if name not in LEFT_BY_A_SESSION}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ctx.bootstrap, table.name], capture_output=True, timeout=800, check=False,
        env={**plain, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path),
             "SPARK_LOCAL_IP": "127.0.0.1"},
    )  # fmt: skip
    assert done.stdout.decode().splitlines() == ["5 20", "6"], done.stderr.decode()[-2_000:]


@pytest.mark.slow
def test_the_notebook_shows_state_changes_and_the_past(ctx):
    table = make_table(ctx, "src-notebook", 2)
    write(ctx.bootstrap, table, 400)
    before = truth(ctx, table, committed_ends(ctx.bootstrap, table))
    then = compact(ctx, table).manifest.position.token
    write(ctx.bootstrap, table, 200, seed=2, deletes=0.5)
    now = truth(ctx, table, committed_ends(ctx.bootstrap, table))
    place = cells.TablePlace(ctx.bootstrap, table.name, ctx.storage.url)
    holdings = cells.holdings(spark(), place).collect()
    assert sum(row.rows for row in holdings) == len(now)
    assert sum(row.value_bytes for row in holdings) == sum(len(value) for value, *_ in now.values())
    hours = cells.changes_per_hour(spark(), place).collect()
    assert sum(row.puts + row.deletes for row in hours) == 600
    fates = {row.fate: row.rows for row in cells.since(spark(), place, then).collect()}
    assert fates == {
        "added": len(now.keys() - before.keys()), "deleted": len(before.keys() - now.keys()),
        "changed": sum(now[k] != before[k] for k in now.keys() & before.keys()),
        "unchanged": sum(now[k] == before[k] for k in now.keys() & before.keys()),
    }  # fmt: skip
    some = sorted(before)[5:9]
    assert [bytes(row.key) for row in cells.rows_between(spark(), place, some[0], some[-1]).collect()] == some[:-1]


def test_the_notebook_runs_as_a_program(ctx):
    table = make_table(ctx, "src-program", 1)
    write(ctx.bootstrap, table, 50)
    argv = [
        sys.executable,
        "-m",
        "examples.notebook",
        "--bootstrap",
        ctx.bootstrap,
        "--table",
        table.name,
        "--storage",
        ctx.storage.url,
    ]
    env = {name: value for name, value in os.environ.items() if name not in LEFT_BY_A_SESSION}
    run = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT, env=env)
    assert run.returncode == 0, run.stderr
    assert "value_bytes" in run.stdout
    assert "deletes" in run.stdout
