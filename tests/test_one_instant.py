"""Lists whose rows may expire, of partitions and nodes that stand at several log times: every one shows one instant."""

import io
import random
import time
from dataclasses import replace

import msgpack
import pyarrow as pa
import pytest
from support_stretch import StretchState, columns
from support_wait import until
from test_packed import PackedHistories

from logstore.model.folding.sibling import Sibling
from logstore.model.table import Table
from logstore.model.wide.cell import PackedCells, RowCells
from logstore.model.wide.selection import CellSelection
from logstore.serve.read.encoding import EncodedRow, FoundKey
from logstore.serve.read.one_instant import found_at, last_end, rows_at, to_be_cut, visible_ends
from logstore.serve.read.parameters.scan_query import Query
from logstore.serve.read.peers.peer_page import PeerPage
from logstore.serve.state.partition import Cell
from logstore.serve.wire.problems import Problem
from tests.support_serve import SLOTS, Node, Reader, epoch_of

PARTITIONS = 4
AHEAD_MS = 55_000  # of the log time on one node: so far a token may be ahead of a reader's clock, and a little less
MSGPACK = {"Accept": "application/msgpack"}
COLUMNS = {"Accept": "application/vnd.logstore.columns+msgpack"}
ARROW = {"Accept": "application/vnd.apache.arrow.stream"}
TABLES = {
    "values": {},
    "ranges": {"splits": (b"b", b"c", b"d")},
    "cells": {"wide": True, "families": {"f": {"versions": 3}}},
    "beside": {"siblings": True},
}
SPANS = {"LS-Deadline": "20000"}


def keys_of(table, partition, most=3):
    stem = "abcd"[partition] if table.splits else "k"
    found = (b"%b%02d" % (stem.encode(), n) for n in range(99))
    return [key for key in found if table.partitioning.of(key) == partition][:most]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two nodes: on the first the logs stand at a later time, by which rows of the second have ended."""
    nodes = [
        Node(tmp_path_factory.mktemp(name), name=name, slots=range(first, SLOTS, 2))
        for first, name in enumerate(("even", "odd"))
    ]
    readers = [Reader(node.data_dir, node=node.name) for node in nodes]
    for node, reader in zip(nodes, readers, strict=True):
        node.url = reader.url
        reader.http.headers.update(SPANS)
    at_ms = time.time_ns() // 1_000_000
    for node, other in (nodes, nodes[::-1]):
        node.others = [other.record()]
        for name, fields in TABLES.items():
            node.create(name, PARTITIONS, conditional=True, expiring=True, **fields)
    for name in TABLES:
        fill(nodes, name, at_ms)
    for reader in readers:
        reader.wait_ready()
        for name in TABLES:
            until("it serves all rows", lambda one=reader, table=name: len(scan(one, table)["positions"]) == PARTITIONS)
    yield nodes, readers, at_ms
    for part in (*readers, *nodes):
        part.close()


def fill(nodes, name, at_ms):
    """In each partition three rows: one that stays, one that ends, one of which a part ends.

    On the first node records of a later time follow.
    """
    for partition in range(PARTITIONS):
        node = nodes[partition % 2]
        table = node.tables[name]
        stays, ends, partly = keys_of(table, partition)
        ttl = {"ls.ttl": (AHEAD_MS - 5_000).to_bytes(8)}
        for key, records in {stays: [(b"stays", {})], ends: [(b"ends", ttl)], partly: part_ends(name, ttl)}.items():
            mine = [(key, cell(value) if name == "cells" else value, wide(name) | own) for value, own in records]
            node.decide(name, mine, at_ms=at_ms)
        if node is nodes[0]:
            node.decide(name, [(stays, cell(b"stays") if name == "cells" else b"stays", wide(name))],
                        at_ms=at_ms + AHEAD_MS)  # fmt: skip


def part_ends(name, ttl):
    """Records of a row of which something is left."""
    if name == "beside":
        return [(b"old", {"ls.seen": b"-1"}), (b"ended", {"ls.seen": b"-1", **ttl})]
    if name == "cells":
        return [(b"1", {}), (b"2", ttl), (b"3", {})]  # the oldest takes the place of the one between
    return [(b"stays too", {})]


def wide(name):
    return {"ls.op": b"edit"} if name == "cells" else {}


def cell(value):
    return msgpack.packb([["set", "f", "q", value]])


def left_of(name, key_number):
    """What the rows of a partition hold, once what ends has ended."""
    if key_number == 0:
        return {"cells": [b"stays"]} if name == "cells" else {"value": b"stays"}
    if key_number == 1:
        return None
    if name == "cells":
        return {"cells": [b"3", b"1"]}
    return {"value": b"old"} if name == "beside" else {"value": b"stays too"}


def expected(node, name):
    every = {}
    for partition in range(PARTITIONS):
        for number, key in enumerate(keys_of(node.tables[name], partition)):
            every[key] = left_of(name, number)
    return every


def params_of(name, **more):
    return {"versions": 2, **more} if name == "cells" else more


def scan(reader, name, **more):
    answer = reader.get(f"/v1/tables/{name}/rows", params=params_of(name, **more), headers=MSGPACK)
    return msgpack.unpackb(answer.content) if answer.status_code == 200 else {"positions": {}}


def shown(row):
    """What a row of a list shows."""
    if "cells" in row:
        held = [one["value"] for one in row["cells"]]
        return {"cells": [b"stays"]} if set(held) == {b"stays"} else {"cells": held}
    return {name: row[name] for name in ("value", "siblings") if name in row} or None


@pytest.mark.parametrize("name", TABLES)
def test_a_page_of_two_nodes_shows_what_is_left_at_the_instant_that_it_names(store, name):
    nodes, readers, at_ms = store
    wanted = {key: held for key, held in expected(nodes[0], name).items() if held is not None}
    for reader in readers:
        answer = reader.get(f"/v1/tables/{name}/rows", params=params_of(name), headers=MSGPACK)
        page = msgpack.unpackb(answer.content)
        assert int(answer.headers["ls-time"]) >= at_ms + AHEAD_MS
        assert {row["key"]: shown(row) for row in page["rows"]} == wanted
        assert [row["key"] for row in page["rows"]] == sorted(wanted)
        assert (len(page["positions"]), page["cursor"], "ends" in page) == (PARTITIONS, None, False)
        json_page = reader.get(f"/v1/tables/{name}/rows", params=params_of(name)).json()
        assert [row["key"].encode() for row in json_page["rows"]] == sorted(wanted)
        table = pa.ipc.open_stream(
            io.BytesIO(reader.get(f"/v1/tables/{name}/rows", params=params_of(name), headers=ARROW).content)
        ).read_all()
        assert set(table["key"].to_pylist()) == set(wanted)
        in_columns = msgpack.unpackb(
            reader.get(f"/v1/tables/{name}/rows", params=params_of(name), headers=COLUMNS).content
        )["columns"]
        assert in_columns["key"] == sorted(wanted)
        keys_only = scan(reader, name, keys_only="true")
        assert [row["key"] for row in keys_only["rows"]] == sorted(wanted)


@pytest.mark.parametrize("reverse", ["false", "true"])
@pytest.mark.parametrize("name", TABLES)
def test_short_pages_skip_no_row(store, name, reverse):
    nodes, readers, _ = store
    wanted = sorted(key for key, held in expected(nodes[0], name).items() if held is not None)
    for limit in (1, 2, 5):
        keys, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            more = {"limit": limit, "reverse": reverse, **({"cursor": cursor} if cursor else {})}
            found = scan(readers[pages % 2], name, **more)
            assert len(found["rows"]) <= limit
            keys += [row["key"] for row in found["rows"]]
            cursor, pages = found["cursor"], pages + 1
        if name == "ranges":  # a page of the second node alone is seen by its clock, at which what ends may live yet
            assert set(wanted) <= set(keys)
            assert keys == sorted(set(keys), reverse=reverse == "true")
        else:
            assert keys == sorted(wanted, reverse=reverse == "true")


@pytest.mark.parametrize("headers", [{}, MSGPACK, COLUMNS])
@pytest.mark.parametrize("name", TABLES)
def test_many_keys_of_two_nodes_are_seen_at_the_instant_that_the_answer_names(store, name, headers):
    nodes, readers, at_ms = store
    wanted = expected(nodes[0], name)
    for reader in readers:
        body = {"keys": [key.decode() for key in wanted]}
        answer = reader.http.post(f"/v1/tables/{name}/rows:get", json=body, params=params_of(name), headers=headers)
        assert int(answer.headers["ls-time"]) >= at_ms + AHEAD_MS
        if headers == COLUMNS:
            in_columns = msgpack.unpackb(answer.content)["columns"]
            held = in_columns["cells"] if name == "cells" else in_columns["value"]
            assert [one is not None for one in held] == [one is not None for one in wanted.values()]
        else:
            page = msgpack.unpackb(answer.content) if headers else answer.json()
            assert [row["found"] for row in page["results"]] == [one is not None for one in wanted.values()]
            if headers:
                assert {row["key"]: shown(row) for row in page["results"]} == wanted


def row_of(key, raw, now_ms, cells):
    """A row of a page at an instant; None: there is none."""
    seen = Cell(raw, now_ms=now_ms)
    held = seen.payload
    if isinstance(held, PackedCells):
        held = cells.of(held, now_ms) or None
    return None if held is None else EncodedRow(key, held, seen.version, 0, visible_ends(held, seen))


def plain(row):
    held = row.value.cells if isinstance(row.value, RowCells) else row.value
    return row._replace(value=held)


@pytest.mark.parametrize("kind", ["wide", "siblings"])
def test_what_is_left_of_a_row_is_what_a_read_at_that_instant_shows(kind):
    met = 0
    for seed in range(60):
        state = StretchState(PackedHistories(seed, kind).rules)
        state.take(columns(PackedHistories(seed, kind).log(40), 0, 40))
        source = random.Random(seed)
        first_ms = source.randrange(1_000, 1_150)
        then_ms = first_ms + source.randrange(1, 80)
        for versions in (1, 2, 3):
            cells = CellSelection((), versions)
            early = [row for key, raw in state.rows.items() if (row := row_of(key, raw, first_ms, to_be_cut(cells)))]
            wanted = [row for key, raw in state.rows.items() if (row := row_of(key, raw, then_ms, cells))]
            left = rows_at(early, then_ms, cells)
            assert list(map(plain, left)) == list(map(plain, wanted)), seed
            found = [found_at(FoundKey(row.key, 0, row.value, row.version, ends=row.ends), then_ms, cells)
                     for row in early]  # fmt: skip
            assert [one.key for one in found if one.value is not None] == [row.key for row in wanted], seed
            keys = [row._replace(value=None, ends=last_end(row.value, row.ends)) for row in early]
            assert [row.key for row in rows_at(keys, then_ms, cells)] == [row.key for row in wanted], seed
            met += list(map(plain, left)) != list(map(plain, early))
    assert met > 5


TABLE = Table("t", "t", epoch_of("t"), 4, conditional=True, expiring=True)
ROW = {"key": b"a", "value": b"v", "version": 1, "partition": 1}
SIBLINGS = {"key": b"a", "version": 2, "partition": 1, "siblings": [{"version": n, "value": b"v"} for n in (1, 2)]}
SOUND = {"rows": [ROW], "cursor": None, "token": f"{TABLE.epoch}-1-9,t5", "positions": {"1": 9}, "ends": [[7]]}
ALL = Query(b"", None, 10, reverse=False, keys_only=False, partitions=None, ends=True)


def test_the_ends_of_another_nodes_rows_are_read():
    found = PeerPage("http://n", TABLE, [1], msgpack.packb(SOUND)).part(ALL, [1])
    assert (found.rows, found.time_ms) == ([EncodedRow(b"a", b"v", 1, 1, (7,))], 5)
    several = msgpack.packb({**SOUND, "rows": [SIBLINGS], "ends": [[None, 7]]})
    (row,) = PeerPage("http://n", TABLE, [1], several).part(ALL, [1]).rows
    assert row == EncodedRow(b"a", (Sibling(1, b"v"), Sibling(2, b"v")), 2, 1, (None, 7))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ends": None}, {"ends": []}, {"ends": [[7], [7]]}, {"ends": [["7"]]}, {"ends": [[-1]]}, {"ends": [[True]]},
        {"ends": [7]}, {"ends": [[7, 7]]}, {"rows": [SIBLINGS]}, {"rows": [SIBLINGS], "ends": [7]},
        {"rows": [SIBLINGS], "ends": [[7, "7"]]},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_does_not_tell_when_its_rows_end_is_not_merged(wrong):
    """As that of a node of an earlier build: they may have ended at the instant at which the rows here are seen."""
    document = {name: value for name, value in {**SOUND, **wrong}.items() if value is not None}
    with pytest.raises(Problem) as raised:
        PeerPage("http://n", TABLE, [1], msgpack.packb(document)).part(ALL, [1])
    assert raised.value.word == "starting"


def test_the_instant_of_a_token_is_none_of_a_table_whose_rows_stay():
    stays = replace(TABLE, expiring=False)
    assert PeerPage("http://n", stays, [1], msgpack.packb(SOUND)).part(ALL, [1]).time_ms == 0
