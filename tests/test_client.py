"""The reading half of the clients against a small real HTTP server that follows the contract of the read API."""

import asyncio
import inspect
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from support_free_port import free_port
from support_http_node import EPOCH, PARTITIONS, HttpNode

import logstore
from logstore import AsyncStore, Store
from logstore.client.write.async_pipeline import AsyncPipeline
from logstore.client.write.pipeline import Pipeline
from logstore.model.errors import (
    BadKey,
    BadToken,
    ConsistencyTimeout,
    EpochChanged,
    LogUnreachable,
    NoSuchTable,
    NotOwner,
    Overloaded,
    ServerError,
    ServerUnreachable,
    Starting,
    Stopped,
    UsageError,
)
from logstore.model.partitioner import partition_of
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.position import Position


@pytest.fixture
def store(http_node):
    with Store(url=http_node.url) as store:
        yield store


@pytest.mark.parametrize(
    "key", [b"JFK/2013-01-01/B6 725", b"a/../b", b"\0", b"\xff\xfe", b"a%2Fb+c?d#e", "schlüssel".encode(), b".", b".."]
)
def test_every_key_reaches_the_server_as_it_is(http_node, store, key):
    http_node.rows[key] = b"value\0\xff"
    row = store.get("t", key)
    assert (row.key, row.value, row.version, row.partition) == (key, b"value\0\xff", 7, partition_of(key, PARTITIONS))
    assert row.position == Position({(EPOCH, row.partition): 100})


def test_a_row_that_is_not_there_is_none_deleted_or_never_written(http_node, store):
    http_node.deleted.add(b"gone")
    assert store.get("t", "gone") is None
    assert store.get("t", "never") is None


def test_after_asks_for_the_session_level(http_node, store):
    http_node.rows[b"k"] = b"v"
    position = Position.of_write(EPOCH, 1, 41)
    for after in (position, position.token):
        store.get("t", "k", after=after, deadline_ms=15_000)
        headers = http_node.seen[-1][1]
        assert (headers["ls-consistency"], headers["ls-token"]) == ("session", f"{EPOCH}-1-42")
        assert 10_000 < int(headers["ls-deadline"]) <= 15_000
    store.get("t", "k")
    assert "ls-token" not in http_node.seen[-1][1]


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (400, "bad-token", BadToken),
        (400, "bad-level", UsageError),
        (409, "epoch-changed", EpochChanged),
        (503, "partition-stopped", Stopped),
        (504, "consistency-timeout", ConsistencyTimeout),
        (500, "internal", ServerError),
    ],
)
def test_problems_become_typed_errors_at_once(http_node, store, status, word, kind):
    http_node.script = [(status, word)]
    with pytest.raises(kind, match=f"because of {word}"):
        store.get("t", "k")
    assert len(http_node.seen) == 1


def test_a_table_that_is_not_there_is_no_missing_row(store):
    with pytest.raises(NoSuchTable):
        store.get("other", "k")


@pytest.mark.parametrize(("word", "kind"), [("starting", Starting), ("overloaded", Overloaded)])
def test_what_passes_is_tried_again_until_the_deadline(http_node, store, word, kind):
    http_node.rows[b"k"] = b"v"
    http_node.script = [(503, word, {"Retry-After": "0.1"})] * 2
    begin = time.monotonic()
    assert store.get("t", "k").value == b"v"
    assert time.monotonic() - begin >= 0.2, "the server's word on when counts"
    http_node.script = [(503, word)] * 1000
    begin = time.monotonic()
    with pytest.raises(kind):
        store.get("t", "k", deadline_ms=300)
    assert time.monotonic() - begin < 25  # without a deadline: 30 s


def test_the_owner_is_followed_and_remembered_per_partition(http_node, store):
    with HttpNode() as other:
        http_node.owned, http_node.other, other.rows[b"k"] = set(), other.url, b"v"
        assert store.get("t", "k").value == b"v"
        before = len(http_node.seen)
        assert store.get("t", "k").value == b"v"
        assert len(http_node.seen) == before, "the second time it goes straight there"
        other.shutdown()
    http_node.owned, http_node.rows[b"k"] = set(range(PARTITIONS)), b"back"


def test_an_owner_that_is_gone_is_forgotten(http_node, store):
    with HttpNode() as other:
        http_node.owned, http_node.other, other.rows[b"k"] = set(), other.url, b"v"
        assert store.get("t", "k").value == b"v"
        other.shutdown()
    store.close()
    with Store(url=http_node.url) as again:
        owners = again.reader._conversation._owners
        owners.place("t", Partitioning(PARTITIONS))
        owners.remember("t", b"k", http_node.other)
        http_node.owned, http_node.rows[b"k"] = set(range(PARTITIONS)), b"back"
        assert again.get("t", "k").value == b"back"


def test_a_partition_without_an_owner_is_waited_for(http_node, store):
    http_node.owned = set()
    with pytest.raises(NotOwner):
        store.get("t", "k", deadline_ms=3_000)
    assert len(http_node.seen) > 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_row_whose_owner_is_in_another_network_comes_through_the_node_that_was_asked(http_node, kind):
    http_node.owned, http_node.other, http_node.asks_others = set(), f"http://127.0.0.1:{free_port()}", True
    http_node.rows[b"k"] = b"v"

    async def twice():
        async with AsyncStore(url=http_node.url) as store:
            return [await store.get("t", key) for key in ("k", "k", "none")]

    if kind == "async":
        rows = asyncio.run(twice())
    else:
        with Store(url=http_node.url) as store:
            rows = [store.get("t", key) for key in ("k", "k", "none")]
    assert [row and row.value for row in rows] == [b"v", b"v", None]
    asked = [path for path, _ in http_node.seen]
    one, many = "/v1/tables/t/rows/k", "/v1/tables/t/rows:get"
    assert asked[-4:] == [one, many, one.replace("/k", "/none"), many]


def test_an_owner_that_nobody_reaches_is_waited_for(http_node, store):
    http_node.owned, http_node.other = set(), f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NotOwner):
        store.get("t", "k", deadline_ms=3_000)
    http_node.owned, http_node.rows[b"k"] = set(range(PARTITIONS)), b"v"
    assert store.get("t", "k").value == b"v"


def test_many_keys_come_in_order_with_duplicates_and_gaps_past_every_bound(http_node, store):
    http_node.rows = {b"%d" % i: b"v%d" % i for i in range(0, 2500, 2)} | {b"\xff": b"raw"}
    http_node.bound = 300
    keys = [b"%d" % i for i in range(2500)] + [b"\xff", b"0", b"0"]
    rows = store.get_many("t", keys)
    assert [row and row.value for row in rows] == [http_node.rows.get(key) for key in keys]
    assert store.get_many("t", []) == []


def test_keys_of_other_nodes_are_fetched_there(http_node, store):
    with HttpNode() as other:
        http_node.owned, other.owned, http_node.other = {0, 1}, {2, 3}, other.url
        http_node.rows = other.rows = {b"%d" % i: b"v" for i in range(40)}
        assert [row.key for row in store.get_many("t", sorted(http_node.rows))] == sorted(http_node.rows)
        other.shutdown()


def test_a_scan_pages_lazily_in_order(http_node, store):
    http_node.rows = {b"a%04d" % i: b"v" for i in range(2500)} | {b"b": b"v"}
    http_node.bound = 700
    assert [row.key for row in store.scan("t", prefix="a")] == sorted(http_node.rows)[:-1]
    assert [row.key for row in store.scan("t", reverse=True, limit=3)] == [b"b", b"a2499", b"a2498"]
    http_node.seen.clear()
    rows = store.scan("t")
    assert not http_node.seen, "nothing is asked before the first row is taken"
    assert len([next(rows) for _ in range(700)]) == 700
    assert len(http_node.seen) == 1, "nor a second page by who may want one only"
    assert len(list(rows)) == 1801
    assert len(list(store.scan("t", limit=1500))) == 1500


def test_what_makes_no_sense_is_refused_before_a_request(http_node, store):
    for call, kind in [
        (lambda: store.get("t", ""), BadKey),
        (lambda: store.get("t", "k", deadline_ms=0), UsageError),
        (lambda: store.get("t", "k", deadline_ms=30_001), UsageError),
        (lambda: store.scan("t", prefix="a", start="b"), UsageError),
        (lambda: store.scan("t", limit=0), UsageError),
        (lambda: Store(url="localhost:8080").get("t", "k"), UsageError),
    ]:
        with pytest.raises(kind):
            call()
    assert not http_node.seen


def test_a_server_that_is_not_there_is_said_within_the_deadline():
    with Store(url="http://127.0.0.1:1") as store:
        begin = time.monotonic()
        with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"):
            store.get("t", "k", deadline_ms=200)
        assert time.monotonic() - begin < 25  # without a deadline: 30 s


@contextmanager
def dripping(text: bytes):
    """A server that answers every request with `text`, and then a byte now and then, for as long as it is read."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(text)
                    while not over.wait(0.1):
                        connection.sendall(b"x")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        with suppress(OSError):  # wakes the accept
            socket.create_connection(listener.getsockname(), 1).close()
        thread.join(90)
        listener.close()


@pytest.mark.parametrize(
    "text", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"]
)
def test_a_server_that_drips_holds_nobody_beyond_the_deadline(text):
    async def read_async(url):
        async with AsyncStore(url=url) as store:
            await store.get("t", "k", deadline_ms=200)

    with dripping(text) as url, Store(url=url) as store:
        for read in (
            lambda: store.get("t", "k", deadline_ms=200),
            lambda: list(store.scan("t", deadline_ms=200)),
            lambda: asyncio.run(read_async(url)),
        ):
            begin = time.monotonic()
            with pytest.raises(ServerUnreachable):
                read()
            assert time.monotonic() - begin < 60  # 1.2 s on an idle machine; for ever without the deadline


def test_several_keys_are_wanted_in_an_order(http_node, store):
    http_node.rows = {b"a": b"1", b"b": b"2"}
    for wrong in ("ab", b"ab", {"a", "b"}, 7, None, [1], ["\ud800"]):
        with pytest.raises(UsageError):
            store.get_many("t", wrong)
    assert [row.value for row in store.get_many("t", iter(("a", b"b")))] == [b"1", b"2"]
    assert [row.value for row in store.get_many("t", {"a": 0, "b": 0})] == [b"1", b"2"]


def test_reads_do_not_wait_for_writes_that_wait_for_kafka(http_node):
    http_node.rows = {b"k": b"v"}
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        store = Store(f"127.0.0.1:{silent.getsockname()[1]}", http_node.url, delivery_timeout_s=10)
        with store, ThreadPoolExecutor(8) as threads:
            began_s = time.monotonic()
            writes = [threads.submit(store.put, "t", "k", "v") for _ in range(8)]
            for _ in range(3):
                assert store.get("t", "k").value == b"v"
            assert not any(write.done() for write in writes)
            for write in writes:
                with pytest.raises(LogUnreachable):
                    write.result(60)
            assert time.monotonic() - began_s < 60  # one attempt for all, not one after the other: that would be 80 s


def test_the_async_store_reads_the_same(http_node):
    http_node.rows = {b"%d" % i: b"v" for i in range(1200)}

    async def run():
        async with AsyncStore(url=http_node.url) as store:
            http_node.script = [(503, "starting")]
            one = await store.get("t", "7")
            many = await store.get_many("t", ["1", "none", "2"])
            return one, many, [row.key async for row in store.scan("t")]

    one, many, scanned = asyncio.run(run())
    assert one.value == b"v"
    assert [row and row.key for row in many] == [b"1", None, b"2"]
    assert scanned == sorted(http_node.rows)


PUBLIC = ("__init__", "put", "delete", "put_many", "pipeline", "get", "get_many", "scan", "flush", "close")
ASYNC = {"AsyncIterator": "Iterator", "PipelineOpening": "Pipeline", "AsyncPending": "Pending"}  # when waited for


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [(Store, AsyncStore, PUBLIC), (Pipeline, AsyncPipeline, ("put", "delete", "flush", "epoch", "table"))],
)
def test_what_blocks_and_what_is_awaited_take_and_give_the_same_and_say_so_themselves(one, other, names):
    for name in names:
        mine, theirs = (getattr(kind, name) for kind in (one, other))
        mine, theirs = (getattr(method, "fget", method) for method in (mine, theirs))
        assert said(theirs, ASYNC) == said(mine, {}), name
        for method in (mine, theirs):
            assert len(method.__doc__ or "") > 20, name
            assert not method.__doc__.startswith("See "), name
    public = {name for name in dir(one) if not name.startswith("_")}
    assert {name for name in dir(other) if not name.startswith("_")} - public <= {"open_pipeline"}


def said(method, other_names):
    """Parameters with their kinds, defaults and types, and the type of what is returned."""
    found = inspect.signature(method)
    parameters = [(p.name, p.kind, p.default, str(p.annotation)) for p in found.parameters.values()]
    one_type = getattr(found.return_annotation, "__name__", str(found.return_annotation))
    returned = re.sub(r"\b\w+\.", "", one_type)  # whichever module a type is of
    for name, same in other_names.items():
        returned = returned.replace(name, same)
    return parameters, returned


def test_a_store_names_where_it_points_also_when_it_was_told_nothing(http_node, tmp_path, monkeypatch):
    (tmp_path / "logstore.toml").write_text(f'url = "{http_node.url}"\nbootstrap = "127.0.0.1:1"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOGSTORE_BOOTSTRAP", raising=False)
    monkeypatch.delenv("LOGSTORE_URL", raising=False)
    with Store() as store:
        assert repr(store) == "Store(bootstrap=None, url=None)"  # it has not looked yet
        store.get("t", "k")
        assert repr(store) == f"Store(bootstrap=None, url='{http_node.url}')"
    assert (
        repr(AsyncStore("127.0.0.1:1", http_node.url)) == f"AsyncStore(bootstrap='127.0.0.1:1', url='{http_node.url}')"
    )


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"confluent_kafka", "httpx", "numpy", "faust", "pyspark", "uvicorn"}
    code = f"import logstore, sys; print(sorted({{name.split('.')[0] for name in sys.modules}} & {heavy}))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(logstore, name) for name in logstore.__all__)
    with pytest.raises(AttributeError):
        logstore.nothing  # noqa: B018 - looking it up is what fails
