"""The change feed of a real node: a snapshot part, then the tail, by long poll and as a stream."""

import asyncio
import contextlib
import itertools
import random
import socket
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import ANY

import httpx
import orjson
import pytest
import support_page
from confluent_kafka import TopicPartition
from support_page import examples, matches
from support_wait import until

from logstore import AsyncStore, InvalidWrite, RowEdit, Store
from logstore.client.changes.changes import ChangeEvent
from logstore.log.kafka.clients import admin, producer
from logstore.model.changes.resume_point import ResumePoint
from logstore.model.partitioner import partition_of
from logstore.model.position import Position
from tests.support_changes import Copy, Poller, events, raw
from tests.support_serve import problem

PAGE = (Path(__file__).parent.parent / "docs" / "changes.md").read_text()
MIB = 1 << 20
_NAMES = (f"feed{number}" for number in itertools.count())


@pytest.fixture
def table(dev):
    name = next(_NAMES)
    dev("table", "create", name, "--partitions", "2")
    return name


@pytest.fixture
def store(dev):
    with Store(bootstrap=dev.facts["bootstrap"], url=dev.facts["http"]) as store:
        yield store


def caught_up(poller, store, table, after):
    """Poll until the feed stands at a position or beyond; what the table holds there."""
    until("the feed has come so far", lambda: (poller.poll(1_000), covers(poller.since, after))[1])
    return {row.key: row.value for row in store.scan(table, after=after, deadline_ms=20_000)}


def covers(since, position):
    return ";" not in since and since != "beginning" and Position.parse(since).covers(position)


def written(store, table, rows):
    """Write rows, and wait until a reader has them all."""
    position = store.put_many(table, rows)
    assert store.get_many(table, [next(iter(rows))], after=position, deadline_ms=20_000)
    next(store.scan(table, after=position, deadline_ms=20_000), None)
    return position


def test_a_snapshot_and_then_the_tail_are_the_table_while_it_is_written(dev, store, table):
    rows = {b"k%05d" % i: b"v%d" % i for i in range(4_500)}
    position = written(store, table, rows)
    source = random.Random(5)
    with closing(Poller(dev.facts["http"], table)) as poller:
        assert [one["key"] for one in poller.poll()] == sorted(rows)[:1_000], "in key order over all partitions"
        while not poller.live:
            some = source.sample(sorted(rows), 20)
            position = position | store.put_many(table, {key: None if key[-1] % 2 else b"changed" for key in some})
            poller.poll()
        held = caught_up(poller, store, table, position)
        assert len(held) < 4_500
        assert poller.copy.state == held


def test_an_event_says_what_became_of_a_row(dev, store, table):
    with closing(Poller(dev.facts["http"], table, "now")) as poller:
        assert poller.poll() == []
        put, gone = store.put(table, "a", "1"), store.delete(table, "a")
        found = []
        until("both are there", lambda: (found.extend(poller.poll(1_000)), len(found) >= 2)[1])
        assert [(one["event"], one["key"], one["value"], one["version"], one["partition"]) for one in found] == [
            ("put", b"a", b"1", put.offset, put.partition),
            ("delete", b"a", None, gone.offset, gone.partition),
        ]
        assert all(one["timestamp"] > 0 for one in found)
        again = Poller(dev.facts["http"], table, put.token)
        assert [one["event"] for one in again.poll(5_000)] == ["delete"]
        again.close()


def test_what_changes_no_row_is_no_event(dev, store, table):
    described = dev.json("table", "describe", table)
    bootstrap = dev.facts["bootstrap"]
    with closing(Poller(dev.facts["http"], table, "now")) as poller:
        poller.poll()
        client = producer(bootstrap)
        for key, headers in ((b"q", [("ls.nonsense", b"")]), (None, [("ls.op", b"barrier")]), (None, [])):
            client.produce(described["topic"], b"\x80", key=key, partition=0, headers=headers)
        assert client.flush(30) == 0
        keys = [next(key for key in map(str, itertools.count()) if partition_of(key.encode(), 2) == p) for p in (0, 1)]
        position = store.put_many(table, dict.fromkeys(keys, "x"))
        caught_up(poller, store, table, position)
        assert sorted(poller.copy.state) == sorted(key.encode() for key in keys)
        assert poller.copy.changes == 2


@pytest.fixture
def decided(dev):
    name = next(_NAMES)
    dev("table", "create", name, "--partitions", "2", "--conditional")
    return name


def test_a_conditional_table_tells_what_was_decided(dev, store, decided):
    store.put(decided, "k", "1")
    with closing(Poller(dev.facts["http"], decided, "now")) as poller:
        poller.poll()
        refused = store.put_if(decided, "k", "2", absent=True)
        taken, added = store.put_if(decided, "k", "3", present=True), store.incr(decided, "n", 4)
        nothing, gone = store.delete_if(decided, "none", present=True), store.delete_if(decided, "k", present=True)
        end = store.put(decided, "k", "end") | store.put(decided, "n2", "end")
        caught_up(poller, store, decided, end | added.position | gone.position)
        assert (bool(refused), bool(nothing), bool(taken), bool(gone)) == (False, False, True, True)
        assert set(poller.copy.rows) == {b"k", b"n", b"n2"}, "what was refused is no event"
        assert poller.copy.state == {b"k": b"end", b"n": (4).to_bytes(8, "big"), b"n2": b"end"}


def test_a_copy_of_a_conditional_table_is_the_table_while_rows_are_built_upon(dev, store, decided):
    source, position = random.Random(7), Position({})
    first = store.incr(decided, "n0").position
    with (
        closing(Poller(dev.facts["http"], decided)) as poller,
        closing(Poller(dev.facts["http"], decided, first.token)) as past,
    ):
        for step in range(120):
            key = f"n{source.randrange(5)}"
            choice = source.choice(["incr", "append", "put", "delete", "if"])
            if choice == "incr":
                position |= store.incr(decided, key).position
            elif choice == "append":
                position |= store.append(decided, key, "x").position
            elif choice == "put":
                position |= store.put(decided, key, f"{step:08}")
            elif choice == "delete":
                position |= store.delete(decided, key)
            else:
                position |= store.put_if(decided, key, f"{step:08}", absent=True).position
            if step % 10 == 0:
                poller.poll()
        held = caught_up(poller, store, decided, position)
        assert poller.copy.state == held
        caught_up(past, store, decided, position)
        assert past.copy.state == held, "the changes of the past too, whatever was overwritten since"


def test_a_copy_of_a_table_of_siblings_has_all_values_of_each_row(dev, store):
    source, name, position = random.Random(9), next(_NAMES), Position({})
    dev("table", "create", name, "--partitions", "2", "--siblings")
    first = store.put(name, "k0", "first", seen=-1)
    for step in range(80):
        key, seen = f"k{source.randrange(4)}", source.choice([None, -1, -1, source.randrange(step + 1)])
        try:
            with store.pipeline(name) as pipe:
                write = pipe.delete(key, seen=seen) if source.random() < 0.1 else pipe.put(key, str(step), seen=seen)
            position |= write.result()
        except InvalidWrite as refused:  # it has seen what was still to come: no change, and no event
            position |= refused.position
    rows = list(store.scan(name, after=position, deadline_ms=30_000))
    held = {row.key: (row.version, [one.value for one in row.siblings]) for row in rows}
    assert any(len(values) > 1 for _, values in held.values())
    for since in ("beginning", first):
        copy = {}
        for event in store.changes(name, since=since, follow=False):
            values = [one.value for one in event.siblings] if event.value is None else [event.value]
            copy[event.key] = max(copy.get(event.key, (-1, [])), (event.version, values))
        assert {key: row for key, row in copy.items() if row[1]} == held
    with closing(Poller(dev.facts["http"], name)) as poller:
        told = {event["key"]: event for event in poller.poll()}
        assert {key: "siblings" in event for key, event in told.items()} == {
            key: len(values) > 1 for key, (_, values) in held.items()
        }


def test_a_prefix_leaves_the_other_rows_out(dev, store, table):
    written(store, table, {f"{stem}{i}": "1" for stem in "ab" for i in range(30)})
    with closing(Poller(dev.facts["http"], table, prefix="a")) as poller:
        position = store.put_many(table, {f"{stem}{i}": "2" for stem in "ab" for i in range(10)})
        caught_up(poller, store, table, position)
        assert poller.copy.state == {b"a%d" % i: b"2" if i < 10 else b"1" for i in range(30)}
        assert all(key.startswith(b"a") for key in poller.copy.rows)


def test_a_point_older_than_what_is_kept_in_memory_is_read_from_the_log(dev, store, table):
    first = store.put(table, "k", "0")
    for _ in range(4):
        position = written(store, table, {f"k{i}": "x" * 20 for i in range(2_000)})
    with closing(Poller(dev.facts["http"], table, first.token)) as poller:
        caught_up(poller, store, table, position)
        assert poller.copy.changes >= 8_000


def test_a_time_stands_for_the_changes_after_it(dev, store, table):
    early = written(store, table, {"early": "1"})
    times = Poller(
        dev.facts["http"],
        table,
        ResumePoint(Position({(piece[0], p): 0 for piece in early.pieces for p in (0, 1)})).text,
    )
    stamp = next(one["timestamp"] for one in times.poll(5_000))
    times.close()
    until("a later time", lambda: time.time_ns() // 1_000_000 > stamp + 1)
    position = written(store, table, {"late": "2"})
    at = datetime.fromtimestamp(stamp / 1000, UTC).isoformat(timespec="milliseconds")
    with closing(Poller(dev.facts["http"], table, at)) as poller:
        caught_up(poller, store, table, position)
        assert poller.copy.state == {b"late": b"2"}


def test_what_the_log_has_let_go_of_is_refused_with_the_way_out(dev, store, table):
    position = written(store, table, {f"k{i}": "x" for i in range(6_000)})
    described = dev.json("table", "describe", table)
    (epoch, partition), following = next(iter(position.pieces.items()))
    old = Position(
        {(epoch, partition): 1, **{place: at for place, at in position.pieces.items() if place[1] != partition}}
    )
    client = admin(dev.facts["bootstrap"])
    futures = client.delete_records([TopicPartition(described["topic"], partition, following - 1)])
    for future in futures.values():
        future.result(30)
    with closing(Poller(dev.facts["http"], table, old.token)) as poller:
        document = problem(poller.answer(), 410, "not-retained")
        assert "since=beginning" in document["detail"]
        assert (document["partition"], document["offset"]) == (partition, 1)
    with closing(Poller(dev.facts["http"], table)) as anew:
        caught_up(anew, store, table, position)
        assert len(anew.copy.state) == 6_000


@pytest.mark.parametrize(("params", "status", "word"), [
    ({"since": "nonsense", "wait": "0"}, 400, "bad-token"),
    ({"since": "0" * 32 + "-0-1;%", "wait": "0"}, 400, "bad-token"),
    ({"wait": "30001"}, 400, "bad-request"),
    ({"since": "2026-13-45T00:00:00Z", "wait": "0"}, 400, "bad-request"),
    ({"reverse": "true"}, 400, "bad-request"), ({"before": "perhaps"}, 400, "bad-request"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(dev, users, params, status, word):
    problem(httpx.get(f"{dev.facts['http']}/v1/tables/{users}/changes", params=params, timeout=60), status, word)


def test_polls_streams_and_the_command_say_what_cells_held_before(dev, store):
    name, url = next(_NAMES), dev.facts["http"]
    dev("table", "create", name, "--partitions", "1", "--wide", "--family", "content:versions=2", "--family", "anchor")
    since = store.put(name, "first", "plain")
    for value in ("1", "2"):
        outcome = store.edit(name, "k", RowEdit().set("content", "html", value).set("anchor", "a", value))
    held = {"family": "content", "qualifier": "html", "version": outcome.version - 1, "timestamp": ANY, "value": "1"}
    told = [{"family": "anchor", "qualifier": "a", "value": None, "reason": "one-version"}, held]
    page, params = f"{url}/v1/tables/{name}/changes", {"since": since.token, "prefix": "k"}
    for before, wanted in (("true", told), ("false", None)):
        polled = polled_to(page, {**params, "before": before}, outcome.version)
        assert polled.get("before") == wanted
    for before, wanted in (("true", told), ("false", None)):
        with httpx.stream("GET", page, params={**params, "before": before}, timeout=60) as answer:
            found = (data for name, data, _ in events(answer.iter_lines()) if name == "put")
            assert next(data for data in found if data["version"] == outcome.version).get("before") == wanted
    lines = dev("changes", name, "--from", since.token, "--prefix", "k", "--before").stdout.splitlines()
    assert lines[-1] == b"put\tk\tanchor:a=2\tcontent:html=2\t-content:html=1"
    lines = dev("changes", name, "--from", since.token, "--prefix", "k", "--before", "--json").stdout.splitlines()
    assert orjson.loads(lines[-1])["before"] == told
    line = orjson.loads(dev("changes", name, "--prefix", "k", "--before", "--json").stdout)
    assert (line["before"], line["before_reason"]) == (None, "snapshot")


def polled_to(page, params, version):
    """The event of a version, by long polls of whichever reader."""

    def found():
        asked = httpx.get(page, params={**params, "wait": "0"}, timeout=60).json()["events"]
        return next((event for event in asked if event["version"] == version), None)

    return until("it is there", found)


class Stream:
    """A subscriber of a stream, on a thread of its own, that comes back with its last id when the stream ends."""

    def __init__(self, url, table, since="beginning", **params):
        self.copy, self.names, self.last = Copy(), [], ""
        self._url, self._params = f"{url}/v1/tables/{table}/changes", {"since": since, **params}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._ended.is_set():
                headers = {"last-event-id": self.last} if self.last else {}
                with client.stream("GET", self._url, params=self._params, headers=headers) as answer:
                    self._follow(answer)

    def _follow(self, answer):
        for name, data, last in events(answer.iter_lines()):
            self.last = last or self.last
            if name:
                self.names.append(name)
            if name in ("put", "delete"):
                self.copy.take(raw(data))
            if self._ended.is_set():
                return

    def end(self, store, table):
        """One more change lets it look."""
        self._ended.set()
        store.put(table, "end", "")
        self._thread.join(90)
        assert not self._thread.is_alive()


def test_a_stream_brings_the_rows_and_then_what_changes(dev, store, table):
    position = written(store, table, {f"k{i}": str(i) for i in range(1_500)})
    stream = Stream(dev.facts["http"], table)
    until("the rows are there", lambda: "live" in stream.names)
    assert len(stream.copy.rows) == 1_500
    position = store.put_many(table, {"k1": None, "k2": "two"})
    until("the changes are there", lambda: stream.last and covers(stream.last, position))
    assert stream.copy.state == {row.key: row.value for row in store.scan(table, after=position)}
    stream.end(store, table)


def test_a_stream_goes_on_behind_the_last_id(dev, store, table):
    url = f"{dev.facts['http']}/v1/tables/{table}/changes"
    store.put_many(table, {f"k{i}": "1" for i in range(10)})
    with httpx.stream("GET", url, params={"since": "beginning"}, timeout=60) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        last = next(last for name, _, last in events(answer.iter_lines()) if name == "live")
    position = store.put(table, "k3", "2")
    with httpx.stream("GET", url, headers={"last-event-id": last}, timeout=60) as answer:
        names = events(answer.iter_lines())
        found = next(data for name, data, _ in names if name == "put" and data["value"] == "2")
    assert (found["key"], found["version"]) == ("k3", position.offset)


@pytest.mark.long  # 192 MiB
def test_a_stream_that_is_not_read_costs_a_reader_no_memory_and_misses_nothing(dev, store, table):
    """Far more is written than the connection, and what the reader keeps of a partition for all, can hold."""
    small, page = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)], f"/v1/tables/{table}/changes"
    transport = httpx.HTTPTransport(socket_options=small)
    seen, last, ended = set(), "", ""
    with httpx.Client(transport=transport, base_url=dev.facts["http"], timeout=60) as slow:
        since = store.put(table, "k", "before")
        start = store.get(table, "k", after=since, deadline_ms=30_000).token
        with slow.stream("GET", page, params={"since": start}) as answer:
            stream = events(answer.iter_lines())
            next(stream)  # it is open; from now on nobody reads
            written(store, table, much(1_024))  # by when every queue is full
            before = own_bytes(dev)
            for _ in range(2):
                position = written(store, table, much(1_024))
            assert own_bytes(dev) - before < 64 * MIB, "128 MiB were written"
            with contextlib.suppress(httpx.RemoteProtocolError):  # closed: it has not read for half a minute
                for name, data, last in stream:
                    seen |= {(data["partition"], data["version"])} if name == "put" else set()
                    if name == "end" or covers(last or start, position):
                        ended = data.get("type", "")
                        break
    assert ended in ("", "urn:logstore:overloaded")
    with closing(Poller(dev.facts["http"], table, last or start)) as poller:
        while not covers(poller.since, position):
            seen |= {(event["partition"], event["version"]) for event in poller.poll(1_000)}
    told = {row.version for row in store.scan(table, after=position, deadline_ms=30_000) if row.key != b"k"}
    assert len(seen) >= 3 * 1_024
    assert told <= {version for _, version in seen}


def much(rows):
    """Rows of 64 KiB each."""
    return {f"k{i}": str(i) * (MIB // 16 // len(str(i))) for i in range(rows)}


def own_bytes(dev):
    """Bytes that readers have for themselves; pages of views are the system's."""
    found = 0
    for pid in dev.pids()["readers"]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))
    return found


def test_another_media_type_than_events_is_not_acceptable(dev, users):
    url = f"{dev.facts['http']}/v1/tables/{users}/changes"
    problem(httpx.get(url, headers={"accept": "application/json"}, timeout=60), 406, "not-acceptable")
    problem(
        httpx.get(url, params={"wait": "0"}, headers={"accept": "text/event-stream"}, timeout=60), 406, "not-acceptable"
    )


@pytest.fixture(scope="module")
def printed(dev):
    return support_page.printed(PAGE, dev.facts)


@pytest.mark.parametrize("number", range(len(examples(PAGE))))
def test_an_example_of_the_page_prints_what_it_says(printed, number):
    command, told = examples(PAGE)[number]
    assert matches(told, printed[number]), (command, printed[number])


def test_an_iterator_brings_the_rows_and_goes_on_where_another_one_stood(store, table):
    position = written(store, table, {f"k{i}": str(i) for i in range(1_200)})
    found = {}
    first = store.changes(table, since="beginning")
    for event in itertools.islice(first, 1_050):
        found[event.key] = event.version, event.value
    position = position | store.put_many(table, {"k1": None, "k2": "two", "new": "3"})
    store.get(table, "k2", after=position, deadline_ms=20_000)
    for event in store.changes(table, since=first.id, follow=False):
        if event.version >= found.get(event.key, (0, b""))[0]:
            found[event.key] = event.version, event.value
    rows = {row.key: row.value for row in store.scan(table, after=position, deadline_ms=20_000)}
    assert {key: value for key, (_, value) in found.items() if value is not None} == rows


def test_an_iterator_from_now_on_stands_where_it_was_made(store, table):
    written(store, table, {"before": "1"})
    events = store.changes(table)
    put = store.put(table, "a", "1")
    assert next(events) == ChangeEvent("put", b"a", b"1", put.offset, put.partition, ANY)
    assert Position.parse(events.id).covers(put)


def test_the_asynchronous_iterator_brings_the_same(dev, store, table):
    written(store, table, {f"k{i}": str(i) for i in range(30)})

    async def read():
        async with AsyncStore(bootstrap=dev.facts["bootstrap"], url=dev.facts["http"]) as there:
            return [event async for event in there.changes(table, since="beginning", prefix="k1", follow=False)]

    found = asyncio.run(read())
    assert found == list(store.changes(table, since="beginning", prefix="k1", follow=False))
    assert len(found) == 11


def test_the_command_prints_rows_and_changes(dev, store, table):
    written(store, table, {"a": "1", "b": "2"})
    assert dev("changes", table).stdout == b"put\ta\t1\nput\tb\t2\n"
    last = [orjson.loads(line) for line in dev("changes", table, "--json").stdout.splitlines()][-1]
    assert (last["event"], last["key"], last["value"]) == ("put", "b", "2")
    gone = store.delete(table, "a")
    store.get(table, "a", after=gone, deadline_ms=20_000)
    assert dev("changes", table, "--from", last["id"]).stdout == b"delete\ta\n"
    assert b"410" not in dev("changes", table, "--from", "nonsense", status=2).stdout
