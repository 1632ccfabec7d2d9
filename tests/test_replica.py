"""Replica: a node's views read in this process, while their worker, in another one, goes on writing them."""

import itertools
import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support_fork import in_child
from support_replica import replicated
from support_serve import ROWS, epoch_of
from support_wait import until

from logstore import (
    ConsistencyTimeout,
    EpochChanged,
    LogUnreachable,
    NoSuchTable,
    NotYet,
    Position,
    Replica,
    SeveralValues,
    Sibling,
    Stopped,
    UsageError,
)
from logstore.model.errors import NotOwner, SetupError, Starting
from logstore.model.partitioner import partition_of
from logstore.replica.followers import Followers
from logstore.view.feed.log_records import LogKey, LogRecord
from logstore.view.feed.node_records import NodeRecord

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads at a fork
NUMBERS = itertools.count()
LONG_MS = 30_000
HERE = []  # what processes of the tests were given


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with replicated(tmp_path_factory.mktemp("replica") / "node") as both:
        yield both


@pytest.fixture
def node(pair):
    return pair[0]


@pytest.fixture
def replica(pair):
    return pair[1]


@pytest.fixture
def table(node, replica):
    """A table of four partitions with ROWS, which the replica knows."""
    name = f"t{next(NUMBERS)}"
    node.create(name)
    node.put_many(name, ROWS)
    until("the replica knows the table", lambda: known(replica, name))
    return name


def known(replica, name):
    """The rows of a table, once it answers."""
    try:
        return list(replica.scan(name, limit=1))
    except (NoSuchTable, Starting):
        return []


def rows_of(replica, name, **more):
    return {row.key: row.value for row in replica.scan(name, deadline_ms=LONG_MS, **more)}


def mapped():
    return Path("/proc/self/maps").read_text()


def position(name, written):
    return Position().merge([Position.of_write(epoch_of(name), *where) for where in written.values()])


def test_rows_are_those_of_the_view(replica, table):
    row = replica.get(table, "k001")
    place = partition_of(b"k001", 4)
    assert (row.key, row.value, row.partition, row.source) == (b"k001", b"v1", place, "view")
    assert row.position.covers(Position.of_write(epoch_of(table), place, row.version))
    assert replica.get(table, b"nobody") is None
    found = replica.get_many(table, ["k002", "nobody", "k001", b"k002"])
    assert [one and one.value for one in found] == [b"v2", None, b"v1", b"v2"]
    assert rows_of(replica, table) == ROWS
    assert [row.key for row in replica.scan(table, prefix="k00", reverse=True, limit=2)] == [b"k009", b"k008"]
    assert [row.value for row in replica.scan(table, start="k198", keys_only=True)] == [b"", b""]


def test_a_read_waits_for_what_it_is_to_see(node, replica, table):
    ahead = Position({(epoch_of(table), partition_of(b"k001", 4)): replica.get(table, "k001").position.offset + 2})
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(replica.get, table, "k001", after=ahead, deadline_ms=LONG_MS),
            pool.submit(replica.get_many, table, ["k001"], after=ahead.token, deadline_ms=LONG_MS),
            pool.submit(lambda: list(replica.scan(table, start="k001", limit=1, after=ahead, deadline_ms=LONG_MS))),
        ]
        node.put(table, b"k001", b"new")
        one, (of_many,), (of_scan,) = [each.result(60) for each in asked]
    assert {one.value, of_many.value, of_scan.value} == {b"new"}
    assert all(row.position.covers(ahead) for row in (one, of_many, of_scan))


def test_long_keys_and_deleted_rows(node, replica, table):
    keys = [b"l" * 496 + bytes([n]) for n in range(3)] + [b"l" * 65_535]
    written = node.put_many(table, dict.fromkeys(keys, b"long"))
    written[b"k001"] = node.delete(table, b"k001")
    seen = position(table, written)
    assert [row.value for row in replica.get_many(table, keys, after=seen, deadline_ms=LONG_MS)] == [b"long"] * 4
    assert [replica.get(table, key).value for key in keys] == [b"long"] * 4
    assert replica.get(table, "k001") is None
    assert [row.key for row in replica.scan(table, prefix="l")] == sorted(keys)


def test_siblings_are_given_whole_and_never_one_of_them(node, replica):
    name = f"t{next(NUMBERS)}"
    node.create(name, conditional=True, siblings=True)
    place, first = node.decide(name, [(b"cart", value, {"ls.seen": b"-1"}) for value in (b"milk", b"eggs")])
    until("the replica knows the table", lambda: known(replica, name))
    seen = Position.of_write(epoch_of(name), place, first + 1)
    for row in (
        replica.get(name, "cart", after=seen, deadline_ms=LONG_MS), replica.get(name, "cart"),
        replica.get_many(name, ["nobody", "cart"])[1], *replica.scan(name),
    ):  # fmt: skip
        assert row.siblings == (Sibling(first, b"milk"), Sibling(first + 1, b"eggs"))
        with pytest.raises(SeveralValues, match=f"seen={first + 1}"):
            _ = row.value
    with replica.view(name) as view, pytest.raises(SeveralValues) as raised:
        view.get("cart")
    assert raised.value.siblings == row.siblings
    _, last = node.decide(name, [(b"cart", None, {"ls.seen": b"%d" % first})])
    (left,) = replica.scan(name, after=Position.of_write(epoch_of(name), place, last), deadline_ms=LONG_MS)
    assert (left.value, left.version, replica.get(name, "cart")[:3]) == (b"eggs", last, left[:3])
    with replica.view(name) as view:
        assert bytes(view.get("cart").value) == b"eggs"


def test_generations_change_under_readers_who_never_see_less(node, replica, table):
    wrong, done = [], threading.Event()

    def look():
        rng = itertools.cycle(ROWS)
        while not done.is_set():
            some = list(itertools.islice(rng, 20))
            found = [replica.get(table, key) for key in some] + replica.get_many(table, some)
            wrong.extend(key for key, row in zip(some * 2, found, strict=True) if row is None or row.value != ROWS[key])
            if len(page := rows_of(replica, table)) != len(ROWS):
                wrong.append(page)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            for partition in range(4):
                node.adopt(table, partition)
            node.put_many(table, dict(list(ROWS.items())[::7]))
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    sources = {replica.get(table, key).source for key in ROWS}
    assert sources == {"view", "snapshot"}


def test_a_generation_that_is_past_is_let_go(node, replica, table):
    before = node.view_path(table, 0)
    assert rows_of(replica, table) == ROWS
    assert str(before) in mapped()
    node.adopt(table, 0)
    until("it is not mapped any more", lambda: str(before) not in mapped())
    assert rows_of(replica, table) == ROWS


def test_two_replicas_share_what_is_open(node, replica, table):
    link = node.data_dir.with_name("another-way")
    link.symlink_to(node.data_dir)
    with Replica(link) as second:
        assert rows_of(second, table) == ROWS
        until("both are one to the worker", lambda: len(node.demands()) == 1)
    with pytest.raises(UsageError, match="closed"):
        second.get(table, "k001")
    with pytest.raises(UsageError, match="closed"), second:
        pass
    assert "closed" in repr(second)
    assert rows_of(replica, table) == ROWS


def test_a_point_of_the_past_is_read_as_over_http(node, replica, table):
    cut = node.next_offset(table, 1)
    node.adopt(table, 1)
    key = next(key for key in ROWS if partition_of(key, 4) == 1)
    then = Position({(epoch_of(table), 1): cut})
    written = {key: node.put(table, key, b"later")}
    assert replica.get(table, key, after=position(table, written), deadline_ms=LONG_MS).value == b"later"
    assert replica.get(table, key, as_of=then, deadline_ms=LONG_MS).value == ROWS[key]


def test_rows_with_an_end_are_seen_at_an_instant(node, replica):
    name, now_ms = f"e{next(NUMBERS)}", time.time_ns() // 1_000_000
    node.create(name, 1, conditional=True, expiring=True)
    for key, ttl_ms in ((b"ended", 5), (b"lives", 3_600_000)):
        node.decide(name, [(key, b"v", {"ls.ttl": ttl_ms.to_bytes(8)})], at_ms=now_ms - 60_000)
    until("the table is known", lambda: known(replica, name))
    row = replica.get(name, "lives")
    assert row.value == b"v"
    assert row.position.time_ms >= now_ms
    assert replica.get(name, "ended") is None
    for some in (list(replica.scan(name)), replica.get_many(name, ["lives"])):
        assert [(one.key, one.position.time_ms >= now_ms) for one in some] == [(b"lives", True)]
    assert replica.get_many(name, ["ended"], after=row.token) == [None]
    with pytest.raises(ConsistencyTimeout, match="clocks is wrong"):
        replica.get(name, "lives", after=f"t{now_ms + 3_600_000}")


def test_many_rows_are_seen_at_the_instant_that_their_token_names(node, replica):
    name, now_ms, hour_ms = f"e{next(NUMBERS)}", time.time_ns() // 1_000_000, 3_600_000
    node.create(name, 2, conditional=True, expiring=True)
    keys = {partition_of(key, 2): key for key in (b"k%d" % n for n in range(20))}
    node.decide(name, [(keys[0], b"ends", {"ls.ttl": hour_ms.to_bytes(8)})], at_ms=now_ms)
    node.decide(name, [(keys[1], b"stays", {})], at_ms=now_ms + 2 * hour_ms)  # by a broker whose clock is ahead
    until("the table is known", lambda: known(replica, name))
    until("both are applied", lambda: replica.get(name, keys[1]) is not None and replica.get(name, keys[0]) is not None)
    ended, row = replica.get_many(name, [keys[0], keys[1]])
    assert (ended, row.value, row.position.time_ms) == (None, b"stays", now_ms + 2 * hour_ms)


def test_what_does_not_answer_says_why(node, replica, table):
    with pytest.raises(NoSuchTable):
        replica.get("none", "k")
    with pytest.raises(ConsistencyTimeout):
        replica.get(table, "k001", after="0" * 32 + "-0-1", deadline_ms=50)
    with pytest.raises(UsageError, match="name of a table"):
        replica.get(["t"], "k")
    with pytest.raises(UsageError):
        replica.standing("")
    node.stop(table, 2, "offset 5 is missing; `logstore table repair` helps")
    there, gone = ([key for key in ROWS if (partition_of(key, 4) == 2) is is_gone] for is_gone in (False, True))
    for call in (
        lambda: replica.get(table, gone[0]), lambda: replica.get_many(table, [there[0], gone[0]]),
        lambda: rows_of(replica, table), lambda: replica.get(table, gone[0], after=f"{epoch_of(table)}-2-1"),
    ):  # fmt: skip
        with pytest.raises(Stopped, match="offset 5 is missing"):
            call()
    assert replica.get(table, there[0]).value == ROWS[there[0]]


def test_a_table_that_was_made_again_is_another(node, replica, table):
    old = replica.get(table, "k001")
    node.create(table, former=(epoch_of(table),), incarnation=1)

    def changed():
        try:
            return replica.get(table, "k001", after=old.token, deadline_ms=50) is not old and False
        except EpochChanged:
            return True

    until("the token is of another log", changed)


def test_partitions_of_other_nodes_name_their_owner(tmp_path):
    with replicated(tmp_path / "node") as (node, replica):
        node.set_slots([0, 2])
        other = NodeRecord("node-b", 0, "http://other:1", "main", "", (1, 3), (1, 3))
        node.set_others([other])
        node.create("t", 4)
        node.put_many("t", {key: value for key, value in ROWS.items() if partition_of(key, 4) in (0, 2)})
        here, there = (next(key for key in ROWS if partition_of(key, 4) == place) for place in (0, 1))
        until("the first is known", lambda: not_yet(lambda: replica.get("t", here)))
        with pytest.raises(NotOwner) as caught:
            replica.get("t", there)
        assert caught.value.owner == "http://other:1"
        with pytest.raises(NotOwner):
            rows_of(replica, "t")
        assert [one.state for one in replica.standing("t")] == ["live", "elsewhere"] * 2
        assert str(tmp_path) in mapped()
        replica.close()
        assert str(tmp_path) not in mapped(), "it lets everything go"


def not_yet(call):
    try:
        return call()
    except (NoSuchTable, Starting):
        return None


def test_a_node_that_was_killed_is_read_as_it_was_and_found_again(tmp_path):
    with replicated(tmp_path / "node") as (node, replica):
        node.create("t", 4)
        written = node.put_many("t", ROWS)
        seen = position("t", written)
        assert replica.get("t", "k001", after=seen, deadline_ms=LONG_MS).value == b"v1"
        assert {one.age_s for one in replica.standing("t")} == {0.0}
        node.publish(LogKey(), LogRecord(True))
        node.leave_served_file()
        node.kill()
        until("it is missed", lambda: all(one.age_s for one in replica.standing("t")))
        assert rows_of(replica, "t") == ROWS
        assert replica.get("t", "k001", after=seen).value == b"v1"
        ahead = Position({where: following + 1 for where, following in seen.pieces.items()})
        for more in ({"after": ahead}, {"consistency": "latest"}, {"consistency": "linearizable"}):
            with pytest.raises((ConsistencyTimeout, LogUnreachable)):
                replica.get("t", "k001", deadline_ms=50, **more)
        with Replica(tmp_path / "node") as late:  # begun while nobody is there
            assert late.get("t", "k001", deadline_ms=LONG_MS).value == b"v1"
        node.start()
        node.create("t", 4)  # as a worker that opens its views again
        node.put_many("t", {key: value + b"!" for key, value in ROWS.items()})
        found = replica.get_many("t", list(ROWS), after=ahead, deadline_ms=LONG_MS)
        assert [row.value for row in found] == [value + b"!" for value in ROWS.values()]
        until("it is heard", lambda: {one.age_s for one in replica.standing("t")} == {0.0})


def test_a_forked_child_reads_for_itself_and_its_parent_goes_on(node, replica, table, monkeypatch):
    monkeypatch.setattr("logstore.view.shared.gate.PATIENCE_S", 60.0)  # the threads may wait for a processor
    done, wrong = threading.Event(), []

    def look():
        while not done.is_set():
            wrong.extend(key for key in ROWS if replica.get(table, key).value != ROWS[key])

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert in_child(lambda: rows_of(replica, table) == ROWS and replica.get(table, "k001").value) == "b'v1'"
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    written = node.put(table, b"k001", b"after the forks")
    seen = position(table, {b"k001": written})
    assert replica.get(table, "k001", after=seen, deadline_ms=LONG_MS).value == b"after the forks"


def test_processes_of_the_host_read_while_generations_change(node, table, tmp_path):
    context = multiprocessing.get_context("spawn")
    begun, done = context.Barrier(3), context.Event()
    with context.Pool(2, _know, (node.data_dir, begun, done)) as pool:
        found = [pool.apply_async(_look, (table,)) for _ in range(2)]
        begun.wait(180)
        for partition in range(4):
            node.adopt(table, partition)
        done.set()
        assert [each.get(180) for each in found] == [[]] * 2


def _know(*here):
    HERE.extend(here)


def _look(table):
    """What was not right of the rows that a process of its own has read."""
    data_dir, begun, done = HERE
    wrong = []
    with Replica(data_dir) as replica:
        begun.wait(180)
        while not done.is_set():
            wrong += [key for key in ROWS if replica.get(table, key, deadline_ms=LONG_MS).value != ROWS[key]]
            if rows_of(replica, table) != ROWS:
                wrong.append("a scan")
    return wrong


def test_rows_are_read_in_place(node, replica, table):
    node.put_many(table, {b"l" * 600: b"long", b"large": b"x" * 100_000})
    node.adopt(table, partition_of(b"k001", 4))
    until("a snapshot is below", lambda: replica.get(table, "k001").source == "snapshot")
    with replica.view(table, max_age_ms=LONG_MS) as view:
        rows = [view.get(key) for key in ("large", b"k001", b"l" * 600)]
        assert [type(row.value) for row in rows] == [memoryview] * 3
        assert [bytes(row.value) for row in rows] == [b"x" * 100_000, b"v1", b"long"]
        assert [row.source for row in rows][:2] == [replica.get(table, "large").source, "snapshot"]
        assert view.get("nobody") is None
        node.put(table, b"large", b"new")
        assert view.get("large").value == b"x" * 100_000, "of one committed state"
    for row in rows:
        with pytest.raises(ValueError, match="released"):
            bytes(row.value)
    with pytest.raises(UsageError, match="ended"):
        view.get("large")
    ahead = Position({(epoch_of(table), partition_of(b"large", 4)): replica.get(table, "large").position.offset + 1})
    with replica.view(table, after=ahead, deadline_ms=LONG_MS) as view:
        assert view.get("large").value == b"new"
    with pytest.raises(NoSuchTable), replica.view("none") as view:
        pass


def test_a_value_that_is_used_behind_its_block_is_told(replica, table):
    kept = []
    with pytest.raises(UsageError, match="2 values"), replica.view(table, max_age_ms=LONG_MS) as view:
        kept += [np.frombuffer(view.get("k001").value, np.uint8), view.get("k002").value[1:], view.get("k003")]
    assert [bytes(part) for part in kept[:2]] == [b"v1", b"2"], "their map is left in place"
    with pytest.raises(ValueError, match="released"):
        bytes(kept[2].value)


def test_rows_are_not_held_in_place_for_long(replica, table):
    with pytest.raises(NotYet, match="too long"), replica.view(table, max_age_ms=1) as view:
        until("it is past its age", lambda: past(view))
    with replica.view(table, max_age_ms=LONG_MS) as view:
        assert view.get("k001").value == b"v1"


def past(view):
    try:
        return view.get("k001") is None
    except NotYet:
        return True


def test_a_child_that_is_forked_inside_a_block_is_told(replica, table):
    with replica.view(table, max_age_ms=LONG_MS) as view:
        row = view.get("k001")
        said = in_child(lambda: read_or_refused(replica, table))
        assert bytes(row.value) == b"v1"
    assert "already open" in said
    assert replica.get(table, "k001").value == b"v1"


def read_or_refused(replica, table):
    try:
        return replica.get(table, "k001", deadline_ms=200)
    except NotYet as error:
        return error


def test_a_view_that_is_damaged_stops_its_partition_alone(node, replica, table):
    node.damage(table, 3)
    there, gone = (next(key for key in ROWS if (partition_of(key, 4) == 3) is is_gone) for is_gone in (False, True))
    with pytest.raises(Starting, match="is damaged"):
        until("it is refused", lambda: replica.get(table, gone, deadline_ms=50) is None)
    assert replica.get(table, there).value == ROWS[there]
    assert next(one for one in replica.standing(table) if one.partition == 3).applied is None


def test_what_is_no_data_directory_is_refused(tmp_path):
    for bad, error in ((tmp_path / "none", SetupError), (tmp_path, SetupError), (5, UsageError)):
        with pytest.raises(error):
            Replica(bad)


def test_an_installation_without_lmdb_says_what_brings_it():
    code = "import sys; sys.modules['lmdb'] = None; import logstore; logstore.Replica"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "pip install 'logstore-kv[node]'" in done.stderr.splitlines()[-1]


def test_a_folder_is_known_however_its_path_is_written_and_not_by_the_inode_of_one_that_is_gone(tmp_path):
    followers = Followers()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "node_id").write_text("node")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    first = followers.take(tmp_path / "a")
    assert followers.take(tmp_path / "link") is first
    (tmp_path / "a").rename(tmp_path / "b")  # as a folder made where another was deleted
    second = followers.take(tmp_path / "b")
    assert second is not first
    for follower in (first, second, first):
        followers.give_back(follower)
    for follower in (first, second):
        with pytest.raises(NotYet, match="has ended"):
            follower.call(lambda *_: None, 1)
