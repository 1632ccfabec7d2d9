"""Scans of an ordered table by a real reader: the rows of a hash table, from the partitions of the range alone."""

import random

import msgpack
import pytest
from support_wait import until

from logstore.model.key import to_base64url
from logstore.model.position import Position
from logstore.serve.read.encoding import EncodedRow
from logstore.serve.read.page_merge import PageOfLegs, PagePart
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.settings import MAX_EXAMINED
from tests.support_serve import SLOTS, Node, Reader, epoch_of, problem, serving

SEED = 20_261_130
MSGPACK = {"Accept": "application/msgpack"}
SPLITS = (b"b", b"m", b"m\0", b"t\xff\xfe")
PARTITIONS = len(SPLITS) + 1


def made_up():
    """Rows around the split points, and far from them."""
    print("seed", SEED)
    source = random.Random(SEED)
    stems = [b"a", b"b", b"k", b"m", b"m\0", b"t\xff\xfd", b"t\xff\xfe", b"z", b"\0", b"\xff"]
    keys = {source.choice(stems) + source.randbytes(source.randrange(4)) for _ in range(500)} | {*SPLITS}
    return {key: source.randbytes(source.randrange(30)) for key in sorted(keys)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("node")) as (node, reader):
        for name in ("ranges", "stops", "graves"):
            node.create(name, PARTITIONS, splits=SPLITS)
        node.create("hashed", PARTITIONS)
        reader.wait_ready()
        rows = made_up()
        dead = sorted(rows)[::7]
        for name in ("ranges", "hashed"):
            node.put_many(name, rows)
            node.put_many(name, dict.fromkeys(dead))
        node.put_many("stops", rows)
        yield node, reader, {key: value for key, value in rows.items() if key not in dead}


def asked(reader, table, headers=(), **params):
    """The answer to a scan whose bounds are bytes."""
    texts = {name: to_base64url(one) if isinstance(one, bytes) else one for name, one in params.items()}
    query = {"key_encoding": "base64url", **texts}
    return reader.get(f"/v1/tables/{table}/rows", params=query, headers={**MSGPACK, **dict(headers)})


def page(reader, table, **params):
    answer = asked(reader, table, **params)
    assert answer.status_code == 200, answer.text
    return msgpack.unpackb(answer.content)


def scan(readers, table, **params):
    """Rows of all pages, taken from the readers in turn, as (key, value); and the partitions that each page read."""
    rows, read, cursor = [], [], None
    for turn in range(10_000):
        found = page(readers[turn % len(readers)], table, **params, **({"cursor": cursor} if cursor else {}))
        rows += [(row["key"], row.get("value")) for row in found["rows"]]
        read.append(sorted(map(int, found["positions"])))
        cursor = found["cursor"]
        if cursor is None:
            return rows, read
    raise AssertionError("a scan without an end")


@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_its_order_is_that_of_a_hash_table_with_the_same_rows(store, limit, reverse):
    _, reader, rows = store
    found, _ = scan([reader], "ranges", limit=limit, reverse=reverse)
    assert found == scan([reader], "hashed", limit=limit, reverse=reverse)[0]
    assert found == sorted(rows.items(), reverse=reverse == "true")


def test_any_range_is_that_of_a_hash_table_and_reads_no_partition_beside_it(store):
    _, reader, rows = store
    source = random.Random(SEED)
    keys = [*rows, *SPLITS, b"n", b"\xff\xff\xff"]
    for _ in range(60):
        start, end = source.choice(keys), source.choice(keys)
        query = {"start": start, "end": end, "limit": source.choice([3, 40, 1000])}
        query |= {"reverse": source.choice(["true", "false"]), "keys_only": source.choice(["true", "false"])}
        found, read = scan([reader], "ranges", **query)
        assert found == scan([reader], "hashed", **query)[0]
        homes = {sum(split <= key for split in SPLITS) for key in (start, max(start, end))}
        assert {partition for one in read for partition in one} <= set(range(min(homes), max(homes) + 1))


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ({"prefix": b"k"}, [1]),
        ({"prefix": b"m"}, [2, 3]),
        ({"start": b"b", "end": b"m"}, [1]),
        ({"start": b"b", "end": b"m\0"}, [1, 2]),
        ({"start": b"m", "end": b"m\0"}, [2]),
        ({"end": b"b"}, [0]),
        ({"start": b"z"}, [4]),
        ({"start": b"z", "end": b"b"}, [4]),
        ({}, [0, 1, 2, 3, 4]),
    ],
)
@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_page_asks_the_partitions_of_its_range_and_no_others(store, query, read, reverse):
    _, reader, _ = store
    assert scan([reader], "ranges", limit=1000, reverse=reverse, **query)[1] == [read]


@pytest.mark.parametrize(("reverse", "first"), [("false", 0), ("true", 4)])
def test_a_limit_costs_the_first_partition(store, reverse, first):
    _, reader, _ = store
    assert list(map(int, page(reader, "ranges", limit=5, reverse=reverse)["positions"])) == [first]


def test_a_page_that_is_full_where_a_partition_ends_goes_on_in_the_next_one(store):
    _, reader, rows = store
    low = [key for key in sorted(rows) if key < SPLITS[0]]
    found = page(reader, "ranges", limit=len(low))
    assert [row["key"] for row in found["rows"]] == low
    assert found["cursor"] is not None
    assert page(reader, "ranges", limit=1, cursor=found["cursor"])["rows"][0]["key"] == min(rows.keys() - {*low})


def test_a_page_that_has_examined_enough_ends_where_a_partition_does(store):
    node, reader, _ = store
    graves = {b"a%06d" % n: None for n in range(MAX_EXAMINED)}
    node.put_many("graves", graves)
    node.put_many("graves", {b"c": b"behind them", b"z": b"last"})
    found = page(reader, "graves", limit=10)
    assert (found["rows"], sorted(found["positions"])) == ([], ["0"])
    rows, read = scan([reader], "graves", limit=10)
    assert rows == [(b"c", b"behind them"), (b"z", b"last")]
    assert {partition for one in read for partition in one} == set(range(PARTITIONS))


def test_only_partitions_that_are_read_are_waited_for(store):
    _, reader, rows = store
    epoch = epoch_of("ranges")
    later = {"LS-Token": Position({(epoch, 4): 1_000_000}).token, "LS-Consistency": "session", "LS-Deadline": "50"}
    found = asked(reader, "ranges", later, prefix=b"k")
    assert found.status_code == 200, found.text
    assert [row["key"] for row in msgpack.unpackb(found.content)["rows"]] == [k for k in sorted(rows) if k[:1] == b"k"]
    problem(asked(reader, "ranges", later, start=b"z"), 504, "consistency-timeout")


def test_a_stopped_partition_stops_the_scans_that_reach_it(store):
    node, reader, _ = store
    node.stop("stops", 3)

    def stopped():
        return asked(reader, "stops", start=b"n", limit=1000).status_code == 503

    until("the partition has stopped", stopped)
    assert page(reader, "stops", start=b"b", end=b"m", limit=1000)["cursor"] is None
    problem(asked(reader, "stops", start=b"b", limit=1000), 503, "partition-stopped")


def test_its_page_shows_the_split_points(store):
    _, reader, _ = store
    table = reader.get("/v1/tables/ranges").json()
    assert (table["partitions"], table["splits"]) == (5, ["b", "m", "m\0", {"base64": "dP/+"}])
    assert "splits" not in reader.get("/v1/tables/hashed").json()


@pytest.fixture
def pair(tmp_path):
    """Two nodes that share the partitions, each with a reader that knows of both, and all rows of `made_up`."""
    halves = (("even", range(0, SLOTS, 2)), ("odd", range(1, SLOTS, 2)))
    nodes = [Node(tmp_path / name, name=name, slots=slots) for name, slots in halves]
    readers = [Reader(node.data_dir, node=node.name) for node in nodes]
    for node, reader in zip(nodes, readers, strict=True):
        node.url = reader.url
        reader.http.headers["LS-Deadline"] = "20000"  # one asks the other, which may have to wait for a processor
    for node, other in (nodes, nodes[::-1]):
        node.others = [other.record()]
        table = node.create("ranges", PARTITIONS, splits=SPLITS)
        node.put_many("ranges", {k: v for k, v in made_up().items() if table.partitioning.of(k) in node.slots})
    for reader in readers:
        reader.wait_ready()
    yield nodes, readers
    for part in (*readers, *nodes):
        part.close()


def test_scans_span_nodes_and_their_cursors_work_on_both(pair):
    _, readers = pair
    rows = made_up()
    for reader in readers:
        until("it has heard of the other one", lambda one=reader: asked(one, "ranges", limit=1000).status_code == 200)
    for limit in (3, 1000):
        for reverse in ("false", "true"):
            found, read = scan(readers, "ranges", limit=limit, reverse=reverse)
            assert found == sorted(rows.items(), reverse=reverse == "true")
            assert {partition for one in read for partition in one} == set(range(PARTITIONS))
    assert scan(readers, "ranges", prefix=b"k") == ([(k, v) for k, v in rows.items() if k[:1] == b"k"], [[1]])


LEGS = [
    PagePart([EncodedRow(b"a", b"1", 1, 0), EncodedRow(b"c", b"1", 1, 0)], None, {0: 9}, 5, b"d", 0.1),
    PagePart([], None, {1: 9}, 6, b"", 0.0),
    PagePart([EncodedRow(b"x", b"1", 1, 2)], None, {2: 9}, 7, b"x", 0.1),
]


@pytest.mark.parametrize(
    ("limit", "taken", "through"),
    [
        (10, 3, None),
        (3, 3, None),
        (2, 1, b"d"),
    ],
)
def test_a_page_grows_until_it_is_full(limit, taken, through):
    query = Query(b"", None, limit, reverse=False, keys_only=False, partitions=None)
    growing, left = PageOfLegs(query), list(LEGS)
    while left and not growing.is_full:
        growing.take([left.pop(0)])
    found = growing.page(is_last=not left)
    assert len(left) == len(LEGS) - taken
    assert found.rows == [row for leg in LEGS[:taken] for row in leg.rows]
    assert (found.through, found.time_ms) == (through, LEGS[taken - 1].time_ms)
    assert found.positions == dict.fromkeys(range(taken), 9)


def test_a_page_that_has_looked_enough_takes_no_other_leg():
    growing = PageOfLegs(Query(b"", None, 10, reverse=False, keys_only=False, partitions=None))
    for _ in range(2):
        assert not growing.is_full
        growing.take([PagePart([], None, {0: 1}, 0, b"grave", 0.6)])
    assert growing.is_full
    assert growing.page(is_last=False).through == b"grave"
    assert growing.page(is_last=True).through is None
