"""Ordered tables end to end: made, written, read, scanned and quarantined on a real store, and in memory alike."""

import random

import pytest
from support_log import produce
from support_wait import until

from logstore import Admin, MemoryStore, NoSuchTable, Replica, Store, UsageError
from logstore.model.errors import BadDefinition

SPLITS = (b"m", b"t\xff")
DEADLINE_MS = 30_000
ROWS = {b"ada": b"1", b"lz": b"2", b"m": b"3", b"mm": b"4", b"t\xff": b"5", b"\xff\xff": b"6"}
HOMES = {b"ada": 0, b"lz": 0, b"m": 1, b"mm": 1, b"t\xff": 2, b"\xff\xff": 2}
SCANS = (
    {},
    {"reverse": True},
    {"prefix": "m"},
    {"start": b"lz", "end": b"t\xff"},
    {"start": b"m", "limit": 3},
    {"limit": 1, "reverse": True},
    {"keys_only": True},
    {"end": b"m"},
)


@pytest.fixture(scope="module")
def store(dev):
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as made:
        yield made


def make(dev, name, **more):
    with Admin(dev.facts["bootstrap"], timeout_s=60) as admin:
        return admin.create(name, splits=SPLITS, **more)


def in_memory(name, **more):
    memory = MemoryStore()
    memory.create(name, splits=SPLITS, **more)
    return memory


def seen(store, table, after):
    """What reads and scans give, but for offsets: (key, value, partition)."""
    many = store.get_many(table, [*ROWS, b"nobody"], after=after, deadline_ms=DEADLINE_MS)
    one = [store.get(table, key, after=after, deadline_ms=DEADLINE_MS) for key in (b"ada", b"t\xff", b"zz")]
    scans = [list(store.scan(table, after=after, deadline_ms=DEADLINE_MS, **scan)) for scan in SCANS]
    return [[row and (row.key, row.value, row.partition) for row in rows] for rows in ([*many], one, *scans)]


def changed(store, table):
    """Rows by put_many, a pipeline, put and delete; the position behind them."""
    positions = [store.put_many(table, {**ROWS, b"zz": b"7"})]
    with store.pipeline(table) as pipeline:
        pending = [pipeline.put(b"lz", b"22"), pipeline.put(b"\xff\xff", b"66")]
    positions += [one.result(30) for one in pending]
    positions += [store.put(table, b"mm", b"44"), store.delete(table, b"zz")]
    return positions[0].merge(positions[1:])


def test_a_store_a_replica_and_the_one_in_memory_answer_alike(dev, store):
    table = make(dev, "ordered-alike")
    assert (table.partitions, table.splits) == (3, SPLITS)
    memory = in_memory("ordered-alike")
    after, remembered = changed(store, table.name), changed(memory, table.name)
    expected = seen(memory, table.name, remembered)
    assert seen(store, table.name, after) == expected
    with Replica(dev.data) as replica:
        until("the replica knows the table", lambda: knows(replica, table.name))
        assert seen(replica, table.name, after) == expected
    assert {key: partition for key, _, partition in expected[2]} == HOMES
    assert expected[2] == sorted(expected[2])


def knows(replica, name):
    try:
        return replica.standing(name)
    except NoSuchTable:
        return None


def test_many_random_rows_are_scanned_in_order_page_by_page(dev, store):
    table, rng = make(dev, "ordered-many").name, random.Random(7)
    rows = {rng.choice([b"a", b"m", b"t\xff", b"z"]) + rng.randbytes(3): rng.randbytes(5) for _ in range(4_000)}
    after = store.put_many(table, rows)
    found = [(row.key, row.value) for row in store.scan(table, after=after, deadline_ms=DEADLINE_MS)]
    assert found == sorted(rows.items())
    backwards = store.scan(table, after=after, deadline_ms=DEADLINE_MS, reverse=True, start=b"b", limit=1_500)
    assert [row.key for row in backwards] == sorted((key for key in rows if key >= b"b"), reverse=True)[:1_500]


def test_an_adopted_snapshot_answers_as_the_view_did_and_histories_look_in_the_right_partition(dev, store):
    table = make(dev, "ordered-adopted").name
    after = changed(store, table)
    before = seen(store, table, after)
    dev("batch", "compact", table, "--engine", "local", "--wait", "60")
    assert seen(store, table, after) == before
    assert store.get(table, b"m", after=after, deadline_ms=DEADLINE_MS).source == "snapshot"
    assert [one.value for one in store.history(table, b"\xff\xff")] == [b"66", b"6"]


def test_conditional_writes_are_decided_where_the_row_is(dev, store):
    table = make(dev, "ordered-conditional", conditional=True).name
    memory = in_memory(table, conditional=True)
    for one in (store, memory):
        won, lost = (one.put_if(table, "tz", value, absent=True) for value in ("1", "2"))
        assert (won.applied, lost.applied) == (True, False)
        assert won.position.pieces.keys() == lost.position.pieces.keys()
        assert [partition for _, partition in won.position.pieces] == [1]
        counted = one.incr(table, b"\xffcount", 5)
        assert counted.applied
        assert [partition for _, partition in counted.position.pieces] == [2]


def test_what_stands_in_another_partition_than_its_range_is_quarantined_loudly(dev, store):
    table = make(dev, "ordered-foreign")
    produce(dev.facts["bootstrap"], table.topic, [(b"ada", b"wrong"), (b"mm", b"right")], partition=1)
    after = store.put(table.name, b"mz", b"behind")
    assert store.get(table.name, b"mm", after=after, deadline_ms=DEADLINE_MS).value == b"right"
    assert store.get(table.name, b"ada", after=after, deadline_ms=DEADLINE_MS) is None

    def counted():
        return [one["quarantined"] for one in dev.json("status")["tables"] if one["name"] == table.name]

    until("status counts it", lambda: counted() == [{"wrong-partition": 1}])


def test_the_commands_make_and_show_one(dev):
    created = dev.json("table", "create", "ordered-cli", "--ordered", "--splits", "m,t")
    assert (created["partitions"], created["splits"]) == (3, ["m", "t"])
    assert dev.json("table", "describe", "ordered-cli")["splits"] == ["m", "t"]
    dev("put", "ordered-cli", "zebra", "last")
    assert b"zebra" in dev("scan", "ordered-cli", "--prefix", "z").stdout
    binary = dev.json(
        "table", "create", "ordered-cli-b", "--ordered", "--splits", "bQ,dP8", "--key-encoding", "base64url"
    )
    assert binary["splits"] == ["m", {"base64": "dP8="}]


def test_split_points_of_a_file_may_hold_anything_but_line_ends(dev, tmp_path):
    file = tmp_path / "splits"
    file.write_bytes(b"a,b\nm\xff\n")
    found = dev.json("table", "create", "ordered-file", "--ordered", "--splits-file", str(file))
    assert found["splits"] == ["a,b", {"base64": "bf8="}]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ordered"], b"--splits m,t"),
        (["--splits", "m"], b"add --ordered"),
        (["--ordered", "--splits", "t,m"], b"sort them as bytes"),
        (["--ordered", "--splits", "m,,t"], b"a split point is a key"),
        (["--ordered", "--splits", "m", "--partitions", "5"], b"leave the number of partitions away"),
        (["--ordered", "--splits", "m", "--topic", "other"], b"a topic of its own"),
        (["--ordered", "--splits", "?", "--key-encoding", "base64url"], b"not base64url"),
    ],
)
def test_what_cannot_be_an_ordered_table_says_what_to_write(dev, options, says):
    refused = dev("table", "create", "ordered-wrong", *options, status=2)
    assert says in refused.stderr.replace(b"\n", b" ")


def test_both_stores_refuse_split_points_that_are_none(dev):
    for wrong in ((b"t", b"m"), "mt", [b""], [7]):
        with pytest.raises(UsageError):
            MemoryStore().create("t", splits=wrong)
        with Admin(dev.facts["bootstrap"]) as admin, pytest.raises(UsageError):
            admin.create("ordered-none", splits=wrong)
    with pytest.raises(BadDefinition, match="leave the number of partitions away"):
        MemoryStore().create("t", splits=[b"m"], partitions=4)
