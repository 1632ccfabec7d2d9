"""Histories of many clients at once, at all levels, while processes stand still and are killed: every answer is right.

And readers with a planted bug are found out by the same check.
"""

import random
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from support_checker import LEVELS, Author, Observer, Truth, violations
from support_free_port import free_port
from support_store import running
from support_wait import until
from support_worker import make_table
from test_consistency_levels import standing

from logstore import Store
from logstore.model.partitioner import partition_of

AUTHORS, OBSERVERS = 3, 4
KINDS = ("one value", "siblings")


@pytest.fixture(scope="module")
def tables(kafka):
    """Tables whose rows expire."""
    return {
        kind: make_table(kafka.bootstrap, 2, conditional=True, expiring=True, siblings=kind == "siblings")
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def node(kafka, tables, tmp_path_factory):
    """A node of its own with the tables."""
    group = tables["one value"].name
    options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--group", group, "--readers", "2")
    with running("node", tmp_path_factory.mktemp("histories") / "node", *options) as node:
        until("it answers", lambda: all(answers(node.url, table) for table in tables.values()))
        yield node


def answers(url, table):
    try:
        where = f"{url}/v1/tables/{table.name}/rows/first"
        return httpx.get(where, headers={"ls-consistency": "latest"}, trust_env=False, timeout=60).status_code == 404
    except httpx.TransportError:
        return False


def history(table, bootstrap, url, wanted, disturb):
    """Run clients against `url` until `wanted` reads are there; all violations, and the reads."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with Store(bootstrap, url, delivery_timeout_s=60) as store:
        authors = [Author(store, table, seed + n) for n in range(AUTHORS)]
        observers = [Observer(url, table, authors, seed + 100 + n) for n in range(OBSERVERS)]
        clients = [*authors, *observers]
        for client in clients:
            client.start()
        while all(client.is_alive() for client in clients) and sum(len(one.reads) for one in observers) < wanted:
            disturb(rng)
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join(90)
            assert not client.is_alive()
        assert [client.error for client in clients] == [None] * len(clients)
        ends = {p: store.put(table.name, key, "end").offset + 1 for p, key in homes(table).items()}
    truth = Truth(bootstrap, table, ends)
    return violations(truth, observers, authors), observers


def homes(table):
    """A key of each partition."""
    keys = (f"end-{n}" for n in range(100))
    return {partition_of(key.encode(), table.partitions): key for key in keys}


def pauses(node):
    """Workers that stand still for a moment, so that views lag."""

    def disturb(rng):
        with standing(node):
            time.sleep(rng.uniform(0.02, 0.2))  # the length of a lag, no wait for anything
        time.sleep(rng.uniform(0.02, 0.1))

    return disturb


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_that_of_the_log_while_views_lag(node, tables, kafka, kind):
    found, observers = history(tables[kind], kafka.bootstrap, node.url, 800, pauses(node))
    assert found == [], found
    assert {read.level for one in observers for read in one.reads} == set(LEVELS)


def test_every_answer_is_that_of_the_log_while_processes_are_killed(node, tables, kafka):
    kinds = iter(["workers", "readers", "workers"])

    def disturb(rng):
        kind = next(kinds, None)
        if kind is not None:
            node.kill_one(kind, 0)
        time.sleep(rng.uniform(0.3, 0.8))  # between two kills

    found, _ = history(tables["one value"], kafka.bootstrap, node.url, 1_200, disturb)
    assert found == [], found


BUGS = {  # what is wrong -> how, and what the check says of it
    "a token is waited for but for its last record": ("""
from logstore.serve.read.consistency_wait import ConsistencyWait
needed = ConsistencyWait._needed
async def short(self, *args):
    offset = await needed(self, *args)
    return offset and offset - 1
ConsistencyWait._needed = short
""", "short of the token's"),
    "scans ignore the token": ("""
from logstore.serve.read import scan
level_of = scan.read_level
def without(request, params):
    level = level_of(request, params)
    return level._replace(name="eventual") if level.name == "session" else level
scan.read_level = without
""", "short of the token's"),
    "rows end by a clock that is late": ("""
from logstore.serve.read import merged_read
merged_read._instant = lambda served, raw_state, as_of, floor: floor.time_ms - 2_000
""", "when it was asked for"),
    "an outcome is told before its record is applied": ("""
from logstore.serve.read import outcomes
outcomes._reaching = lambda level, *place: level._replace(name="eventual")
""", "has no outcome"),
    "siblings are merged by time": ("""
from logstore.model.hard_rows.packed import unpack_row
from logstore.serve.state import partition
def newest(entry, now_ms):
    members = [one for one in next(iter(unpack_row(entry).cells.values())).members if not one.expired(now_ms)]
    last = max(members, key=lambda one: one.timestamp_ms, default=None)
    return (None, ()) if last is None else (last.payload, (last.expires_ms,))
partition.side_by_side = newest
""", "value=(Sibling("),
    "the barrier is not awaited": ("""
from logstore.serve.read.consistency_wait import ConsistencyWait
async def not_awaited(self, table, place, level, deadline):
    return 0
ConsistencyWait._point = not_awaited
""", "was acknowledged"),
}  # fmt: skip
RUN = "import runpy\nrunpy.run_module('logstore.serve', run_name='__main__', alter_sys=True)\n"


@contextmanager
def planted(node, table, bug):
    """A reader of the node with a bug; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-P", "-c", BUGS[bug][0] + RUN, "--data-dir", str(node.data_dir), "--port", str(port)]
    process = subprocess.Popen([*argv, "--node", "planted"])
    try:
        until("it answers", lambda: answers(url, table))
        yield url
    finally:
        process.terminate()
        process.wait(90)


@pytest.mark.parametrize("bug", BUGS)
def test_a_reader_with_a_planted_bug_is_found_out(node, tables, kafka, bug):
    table = tables["siblings" if "siblings" in bug else "one value"]
    with planted(node, table, bug) as url:
        found, _ = history(table, kafka.bootstrap, url, 400, pauses(node))
    assert any(BUGS[bug][1] in one for one in found), found[:5]
