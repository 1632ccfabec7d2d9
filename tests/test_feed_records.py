"""The worker-reader feed as a contract: its bytes, and how two versions of it stand beside each other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgpack
import pytest
from support_serve import Node, Reader, serving
from support_wait import until

from logstore.view.feed.acknowledgement import (
    Acknowledgement,
    LogDemand,
    MarkKey,
    MarkRecord,
    SnapshotPlace,
    WantedTick,
)
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord, DigestRecord, LocalProof
from logstore.view.feed.changes import decode_change, encode_change
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.key import FeedKey
from logstore.view.feed.log_records import (
    BarrierKey,
    ClockKey,
    ClockRecord,
    EndKey,
    EndsKey,
    EndsRecord,
    LogKey,
    LogPointRecord,
    LogRecord,
    PartitionEnd,
)
from logstore.view.feed.node_records import NodeRecord, NodesKey, NodesRecord, ProcessIds
from logstore.view.feed.position_records import AppliedKey, AppliedRecord, StoodAt, TimesKey, TimesRecord
from logstore.view.feed.stream import FeedReader
from logstore.view.feed.table_records import ScheduleKey, ScheduleRecord, TablesKey, TablesRecord, UnreadableTable
from logstore.view.feed.view_records import STOPPED, LocalSnapshotRecord, ViewKey, ViewRecord
from logstore.view.served import Served
from streaming.control.reader_acks import ReaderAcks

BASE = LocalSnapshotRecord("/s", "00000000000005-00000001", 5, 1_000)
OLDER = LocalSnapshotRecord(None, "00000000000003-00000001", 3, 900)
VIEW = ViewRecord("/v", 3, "live", "why", BASE, (OLDER,), True)
TABLES = TablesRecord(7, "t" * 32, 16, "s3://b/p", (b'{"name":"t"}',), (UnreadableTable("u", "corrupted", "why"),))
NODES = NodesRecord((NodeRecord("n", 1, "http://n:1", "main", "z", (1, 2), (2,), ProcessIds(4, None, (5,), (6,)), 7),))
ADOPTION = AdoptionRecord(
    "b", 5, "c", "fetching", "", 1, 2, (DigestRecord(5, "ab", 9),), "unproved", (LocalProof("s", "proved"),), "fetch", 1
)
CHANGES: list[tuple[FeedKey[Any], Any]] = [
    (TablesKey(), TABLES),
    (NodesKey(), NODES),
    (LogKey(), LogRecord(reachable=True)),
    (MarkKey(), MarkRecord("run", 9)),
    (ViewKey("t", "e", 2), VIEW),
    (AdoptionKey("t", "e", 2), ADOPTION),
    (AppliedKey("e", 2), AppliedRecord(300, 301)),
    (TimesKey("e", 2), TimesRecord((StoodAt(1_000, 300),))),
    (EndsKey(), EndsRecord(1_700_000_000_000, (PartitionEnd("e", 2, 301),), (PartitionEnd("e", 3, -1),), 7_000)),
    (EndKey("e", 2), LogPointRecord(7_100, 302)),
    (BarrierKey("e", 2), LogPointRecord(7_200, -1, "why")),
    (ClockKey(), ClockRecord(1_700_000_000_000, 7_300)),
    (ScheduleKey("t", "e"), ScheduleRecord(1, 2, 3, 4, 5, 6, 7, "why", 8, 9, 10)),
]
TICKS = (WantedTick("e", 2, 1_000),)
DEMANDS = (LogDemand("e", 2, 7_050),), (LogDemand("e", 3, 7_150),)
GOLDEN = Path(__file__).parent / "vectors" / "feed.json"


def plain(record) -> Any:
    """The record as its subscriber gets it before it is read."""
    return msgpack.unpackb(msgpack.packb(record.encode()))


def test_the_bytes_of_every_record_are_the_golden_ones():
    golden = json.loads(GOLDEN.read_text())
    assert {key.word: encode_change(key, record).hex() for key, record in CHANGES} == golden["changes"]
    assert encode_change(ViewKey("t", "e", 2), None).hex() == golden["removed"]
    ack = Acknowledgement(1, 7, MarkRecord("run", 9), (SnapshotPlace("t", "e", 2, "s"),), TICKS, *DEMANDS)
    assert ack.encode().hex() == golden["acknowledgement"]
    assert Served(TABLES, NODES, (3,), {ViewKey("t", "e", 2): VIEW}).encode().decode() == golden["served"]


def test_what_the_golden_bytes_say_is_read_back():
    golden = json.loads(GOLDEN.read_text())
    assert FeedReader().decode(bytes.fromhex("".join(golden["changes"].values()))) == CHANGES
    assert FeedReader().decode(bytes.fromhex(golden["removed"])) == [(ViewKey("t", "e", 2), None)]
    ack = Acknowledgement.decode(msgpack.unpackb(bytes.fromhex(golden["acknowledgement"])))
    assert ack == Acknowledgement(1, 7, MarkRecord("run", 9), (SnapshotPlace("t", "e", 2, "s"),), TICKS, *DEMANDS)
    assert Served.decode(golden["served"].encode()) == Served(TABLES, NODES, (3,), {ViewKey("t", "e", 2): VIEW})


@pytest.mark.parametrize(("key", "record"), CHANGES, ids=lambda one: getattr(one, "word", ""))
def test_a_field_of_a_later_version_is_passed_over_and_one_that_is_missing_has_its_default(key, record):
    raw, kind = plain(record), type(record)
    if isinstance(raw, dict):
        assert kind.decode({**raw, "later": {"x": [1]}}) == record
        for name in raw:
            less = {field: value for field, value in raw.items() if field != name}
            assert kind.decode(less) == kind.decode({**raw, name: None}) == record._replace(**_default(kind, name))
        assert kind.decode({}) == kind()
    elif not isinstance(record, NodesRecord | TimesRecord):
        assert kind.decode([*raw, "later"]) == record
        assert kind.decode(raw[:1]) == kind(record[0])
        assert kind.decode([]) == kind()


def _default(kind: type[NamedTuple], name: str) -> dict[str, Any]:
    return {name: kind._field_defaults[name]}


def test_a_key_of_a_later_version_is_passed_over():
    later = [["load", [1, 2]], [["view", "t", "e", 2, "tablet"], {}], [["shard", "t", 1], {}], [7, 7]]
    data = b"".join(msgpack.packb(change) for change in [*later, ["log", {"reachable": False}, "later"]])
    assert FeedReader().decode(data) == [(LogKey(), LogRecord(reachable=False))]


def test_a_snapshot_that_is_not_told_in_full_is_not_read_and_a_state_that_is_not_known_answers_nothing():
    for name in ("snapshot", "cut", "log_time_ms"):
        raw = plain(VIEW)
        del raw["base"][name]
        assert ViewRecord.decode(raw).base.path is None
    unknown = ViewRecord.decode({**plain(VIEW), "state": "fenced"})
    assert (unknown.state, unknown.path) == (STOPPED, "/v")
    assert "fenced" in unknown.reason
    assert TablesRecord.decode({"revision": 9}).tables is None  # which is not the same as that there are none


@pytest.mark.parametrize(
    "raw",
    [
        ["view"],
        7,
        [["applied", "e", 1], ["5", 6]],
        ["tables", {"tables": [7]}],
        ["log", {"reachable": 1}],
        ["nodes", {}],
    ],
)
def test_a_field_of_another_kind_is_a_typed_error(raw):
    with pytest.raises(UnreadableRecord, match="restart the node"):
        decode_change(msgpack.unpackb(msgpack.packb(raw), use_list=False))


LATER_READER = """
import runpy, msgpack
from logstore.view.feed.acknowledgement import Acknowledgement

def encode(ack):
    known = {name: value for name, value in ack._asdict().items() if name != "pid"}
    return msgpack.packb({**known, "load": {"p99_ms": 3}})

Acknowledgement.encode = encode
runpy.run_module("logstore.serve", run_name="__main__", alter_sys=True)
"""


def later_bytes(key, record):
    """A change as the next version's worker says it: with a field more in every record, and some it has given up."""
    raw = None if record is None else record.encode()
    if isinstance(raw, dict):
        raw = {name: value for name, value in raw.items() if name not in ("reason", "storage", "older")}
        raw["later"] = {"x": [1]}
    elif isinstance(record, NodesRecord):
        raw = [{**node, "zone": None, "rack": "r", "pids": {}} for node in raw]
    elif raw is not None and not isinstance(record, TimesRecord):
        raw = [*raw, "later"]
    return msgpack.packb((key.encode(), raw)) + msgpack.packb([["load", "t", 1], {"p99_ms": 3}])


def test_a_reader_of_this_version_follows_a_worker_of_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("logstore.view.feed.server.encode_change", later_bytes)
    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        node.put("t", b"below", b"1")
        node.adopt("t", 0)
        partition, offset = node.put("t", b"k", b"v")
        node.publish(MarkKey(), MarkRecord("run", 1))
        reader.wait_ready()
        token = f"{node.tables['t'].epoch}-{partition}-{offset + 1}"
        assert reader.get("/v1/tables/t/rows/k", headers={"LS-Token": token}).content == b"v"
        until(
            "the row comes from the snapshot",
            lambda: reader.get("/v1/tables/t/rows/below").headers.get("ls-source") == "snapshot",
        )
        until(
            "the reader acknowledges",
            lambda: node.acks() == [Acknowledgement(reader.process.pid, node.revision, MarkRecord("run", 1))],
        )


def test_a_worker_of_this_version_is_followed_by_a_reader_of_the_next(tmp_path):
    node, reader = Node(tmp_path), Reader(tmp_path)
    reader.close()
    reader.process = subprocess.Popen([sys.executable, "-c", LATER_READER, *reader.arguments])
    acks = ReaderAcks(node.feed, 1)
    try:
        node.create("t", 1)
        node.put("t", b"k", b"v")
        until("the reader acknowledges", lambda: len(node.acks()) == 1)
        acks.live(frozenset({0}))
        until("the acknowledgement counts", lambda: acks.live(frozenset({0})) == {0})
        (ack,) = node.acks()
        assert (ack.pid, ack.tables, ack.damaged) == (0, node.revision, ())
        with httpx.Client(base_url=reader.url, trust_env=False, timeout=60) as client:
            assert client.get("/v1/tables/t/rows/k").content == b"v"
    finally:
        reader.close()
        node.close()


def test_a_record_that_cannot_be_read_costs_no_answer_that_was_known(tmp_path, monkeypatch, capfd):
    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        node.put("t", b"k", b"v")
        reader.wait_ready()
        with monkeypatch.context() as patched:
            patched.setattr(
                "logstore.view.feed.server.encode_change", lambda key, _: msgpack.packb((key.encode(), "?"))
            )
            node.publish(LogKey(), LogRecord(reachable=False))
            until("it is said", lambda: "what this reader cannot read" in capfd.readouterr().err)
            assert reader.get("/v1/tables/t/rows/k").content == b"v"
        until("the log is away", lambda: reader.get("/v1/cluster").json()["log"]["reachable"] is False)


def test_a_saved_state_of_another_version_is_read_as_far_as_it_is_known(tmp_path):
    whole = Served(TABLES, NODES, (3,), {ViewKey("t", "e", 2): VIEW})
    later = json.loads(whole.encode())
    later["tables"]["later"] = later["later"] = 1
    later["views"][0] += ["later"]
    assert Served.decode(json.dumps(later).encode()) == whole
    earlier = {"tables": later["tables"], "views": [["t", "e", 2, {"path": "/v"}]]}
    assert Served.decode(json.dumps(earlier).encode()).views == {ViewKey("t", "e", 2): ViewRecord("/v")}
    for raw in ({"views": [["t", "e", "2", {}]]}, {"slots": ["1"]}, [], {"tables": 7}):
        with pytest.raises(UnreadableRecord):
            Served.decode(json.dumps(raw).encode())
