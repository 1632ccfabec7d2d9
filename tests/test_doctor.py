"""What `logstore doctor` finds, and that it says what to type wherever something is not well."""

import resource
from types import SimpleNamespace

import orjson
import pytest
from support_dev import call

from logstore.cli.doctor import brokers, machine, node, tables
from logstore.cli.doctor.check import FAIL, OK, WARN
from logstore.log.brokers import Appended, BrokerVersion, TopicReplicas
from logstore.log.kafka.offsets import Bounds
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.storage import Storage

HOUR = 3_600.0
DAY = 24 * HOUR


def said(*checks) -> list[tuple[str, str]]:
    """State and subject of each; what is not well says what to type."""
    for check in checks:
        assert bool(check.fix) == (check.state != OK), check
    return [(check.state, check.what) for check in checks]


@pytest.mark.parametrize(
    ("one", "states"),
    [
        (TopicReplicas(3, 3, 2), []),
        (TopicReplicas(1, 1, 1), []),
        (TopicReplicas(3, 2, 2), [WARN]),
        (TopicReplicas(3, 1, 2), [FAIL]),
        (TopicReplicas(3, 3, 3), [WARN]),
        (TopicReplicas(3, 3, 1), [WARN]),
        (TopicReplicas(2, 1, 2), [FAIL, WARN]),
    ],
)
def test_replicas_are_held_against_what_a_write_needs(one, states):
    found = said(*brokers.replicas({"t": one}))
    assert found == ([(state, "replicas of t") for state in states] or [(OK, "replicas")])


@pytest.mark.parametrize(("number", "state"), [((4, 0), OK), ((3, 0), OK), ((2, 8), FAIL), ((10, 1), OK), (None, WARN)])
def test_kafkas_version_is_judged(number, state):
    assert said(brokers.version(BrokerVersion(number, "x"))) == [(state, "kafka version")]


@pytest.mark.parametrize(
    ("stamp_ms", "state", "says"),
    [(100_000, OK, "not apart"), (91_000, OK, "not apart"), (101_900, OK, "not apart"), (160_000, WARN, "60.0 s ahead"),
     (40_000, WARN, "50.0 s behind"), (None, OK, "no node")],
)  # fmt: skip
def test_kafkas_clock_is_compared(stamp_ms, state, says):
    check = brokers.clock(None if stamp_ms is None else Appended(stamp_ms, 90.0, 100.0))
    assert said(check) == [(state, "clock")]
    assert says in check.found


def test_the_nodes_clock_is_compared():
    assert said(node.clock("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777.0)) == [(OK, "node clock")]
    assert said(node.clock("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_877.0)) == [(WARN, "node clock")]
    assert said(node.clock("", 0.0), node.clock("garbage", 0.0)) == [(OK, "node clock")] * 2


@pytest.mark.parametrize(
    ("limit", "views", "state"),
    [(1_048_576, 9, OK), (resource.RLIM_INFINITY, 9, OK), (1_024, 0, WARN), (4_096, 0, OK), (4_096, 2_000, WARN)],
)
def test_descriptors_are_held_against_the_views(limit, views, state):
    assert said(machine.descriptors(limit, views)) == [(state, "descriptors")]


@pytest.mark.parametrize(
    ("text", "views", "state"), [("65530\n", 10, OK), ("65530", 20_000, WARN), ("1000", 0, WARN), ("?", 0, WARN)]
)
def test_memory_maps_are_held_against_the_views(tmp_path, text, views, state):
    (tmp_path / "max_map_count").write_text(text)
    assert said(machine.maps(views, tmp_path / "max_map_count")) == [(state, "vm.max_map_count")]


def manifest(cut: int, created_s: float = 0.0) -> SimpleNamespace:
    """What is looked at of a manifest."""
    return SimpleNamespace(name="s-1", created_ms=created_s * 1000, parts={0: SimpleNamespace(cut=cut)})


@pytest.mark.parametrize(
    ("current", "end", "age_s", "state"),
    [
        (manifest(5), 900, HOUR, OK),
        (manifest(5), 900, 4 * DAY, WARN),
        (manifest(5), 6, 4 * DAY, OK),  # nothing but its own cut
        (None, 900, 0.0, OK),
        (None, tables.MANY, 0.0, WARN),
    ],
)
def test_an_old_snapshot_is_found_where_something_was_written_since(current, end, age_s, state):
    assert said(tables.snapshot_age("t", current, {0: Bounds(0, end)}, age_s)) == [(state, "snapshot of t")]


def index(folder, end: int | None) -> ArchiveIndex:
    archive = ArchiveIndex(Storage(f"file://{folder}"), "t", "e" * 32)
    if end is not None:
        path = f"{archive.root}/p00000/x.parquet"
        archive.storage.create(path, b"x")
        archive.append([Segment(0, 0, end, path, end, 1, "")], "job")
    return archive


@pytest.mark.parametrize(
    ("archived", "cut", "held", "state", "says"),
    [
        (None, 50, Bounds(0, 90), OK, "there is none"),
        (50, 50, Bounds(0, 90), OK, "newest 40"),
        (30, 50, Bounds(0, 90), WARN, "lacks 20 records"),
        (30, 50, Bounds(40, 90), WARN, "ends at 30 in partition 0, where the log begins at 40"),
        (30, None, Bounds(0, 90), OK, "newest 60"),
    ],
)
def test_what_the_archive_lacks_is_found(tmp_path, archived, cut, held, state, says):
    current = None if cut is None else manifest(cut)
    check = tables.archive_state("t", current, index(tmp_path, archived), {0: held})
    assert said(check) == [(state, "archive of t")]
    assert says in check.found


PAGE = """# TYPE logstore_process_up gauge
logstore_process_up{process="node"} 1.0
logstore_process_up{process="reader-0"} %s
logstore_restarts_total{process="worker-0"} %s
logstore_kafka_reachable %s
logstore_clock_ahead_seconds %s
logstore_disk_free_bytes %s
logstore_disk_size_bytes 1e+11
logstore_process_open_files{process="reader-0"} %s
logstore_process_max_files{process="reader-0"} 1000.0
"""


@pytest.mark.parametrize(
    ("values", "ill"),
    [
        ((1.0, 0.0, 1.0, 0.0, 5e10, 10.0), []),
        ((1.0, 0.0, 1.0, -900.0, 5e10, 10.0), []),
        ((0.0, 0.0, 1.0, 0.0, 5e10, 10.0), [(FAIL, "node processes")]),
        ((1.0, 7.0, 1.0, 0.0, 5e10, 10.0), [(WARN, "node processes")]),
        ((1.0, 0.0, 0.0, "NaN", 5e10, 10.0), [(FAIL, "node's Kafka")]),
        ((1.0, 0.0, 1.0, 61.0, 5e10, 10.0), [(WARN, "node's clock")]),
        ((1.0, 0.0, "NaN", 0.0, 1e9, 10.0), [(WARN, "node disk")]),
        ((1.0, 0.0, 1.0, 0.0, 5e10, 900.0), [(WARN, "node descriptors")]),
    ],
)
def test_the_nodes_own_figures_are_judged(values, ill):
    checks = list(node.figures(node.samples(PAGE % values)))
    assert [one for one in said(*checks) if one[0] != OK] == ill


def test_everything_is_looked_at_on_a_real_node_and_what_is_not_well_says_what_to_type(dev):
    dev("table", "create", "examined", "--partitions", "1")

    def examined(**more):  # other tests of this store may have left something that is not well
        where = {"LOGSTORE_BOOTSTRAP": dev.facts["bootstrap"], "LOGSTORE_URL": dev.facts["http"], **more}
        return orjson.loads(call("doctor", "--json", **where).stdout)["checks"]

    found = {one["what"]: one for one in examined(LOGSTORE_DATA_DIR=str(dev.data))}
    assert found.keys() >= {
        "versions", "disk", "descriptors", "vm.max_map_count", "kafka", "kafka version", "replicas", "clock",
        "table examined", "snapshot of examined", "archive of examined", "node", "node version", "node clock",
        "node processes", "node descriptors",
    }  # fmt: skip
    assert [one for one in found.values() if bool(one["fix"]) == (one["state"] == OK)] == []
    assert found["kafka version"]["state"] == OK
    assert found["clock"]["state"] == OK  # one machine has one clock
    away = examined(LOGSTORE_DATA_DIR=str(dev.data), LOGSTORE_URL="http://127.0.0.1:1")
    assert "disk" not in {one["what"] for one in away}
    assert [one["state"] for one in away if one["what"] == "node"] == [WARN]
