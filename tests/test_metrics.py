"""`/metrics` is the whole node in one scrape, whichever reader answers; nothing looks healthy that is not."""

import math
import os
import time
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support_wait import until

from logstore.process import figures
from logstore.process.figures import counter, gauge
from logstore.view.feed.log_records import EndsKey, EndsRecord, LogKey, LogRecord, PartitionEnd
from logstore.view.feed.node_records import NodesKey, NodesRecord
from tests.support_serve import Reader, serving

COUNT = "logstore_http_request_seconds_count"
ROW = {"reader": "0", "route": "row", "status": "200", "way": "fast"}
STATES = {"live", "catching-up", "stopped", "unreachable", "elsewhere", "unserved"}


def scrape(reader: Reader) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """name -> labels -> value."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(reader.get("/metrics").text):
        for sample in family.samples:
            place = found.setdefault(sample.name, {})
            key = tuple(sorted(sample.labels.items()))
            assert key not in place, (sample.name, key)
            place[key] = sample.value
    return found


def value(one: Reader, name: str, /, **labels: Any) -> float:
    return scrape(one)[name][tuple(sorted((key, str(text)) for key, text in labels.items()))]


def known(reader: Reader) -> set[int]:
    """Partitions that a reader tells of."""
    return {int(dict(labels)["partition"]) for labels in scrape(reader).get("logstore_partition_state", {})}


def state_of(reader: Reader, partition: int) -> str:
    states = {
        dict(labels)["state"]: number
        for labels, number in scrape(reader)["logstore_partition_state"].items()
        if dict(labels)["partition"] == str(partition)
    }
    assert states.keys() == STATES
    (state,) = [name for name, number in states.items() if number == 1.0]
    return state


@contextmanager
def filled(data_dir):
    with serving(data_dir) as (node, reader):
        node.publish(LogKey(), LogRecord(reachable=True))
        node.create("t", 2)
        node.put_many("t", {b"k%d" % i: b"v" for i in range(20)})
        yield node, reader.wait_ready()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with filled(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def own(tmp_path):
    """A store of the test's own, to do harm to."""
    with filled(tmp_path) as found:
        yield found


def test_figures_come_back_as_they_were_written(tmp_path):
    families = [
        gauge("logstore_x", "x", [({"a": "1"}, 2), ({}, math.nan)]),
        counter("logstore_y", "y", [({"worker": "0"}, 3.5)]),
    ]
    figures.publish(tmp_path, "worker-0", families)
    (read,) = figures.published(tmp_path)
    assert (read.process, read.fresh, read.age_s < figures.STALE_S) == ("worker-0", True, True)
    assert read.families[1] == families[1]
    assert read.families[0].samples[0] == families[0].samples[0]
    assert math.isnan(read.families[0].samples[1].value)


def test_an_old_process_is_not_well_and_only_what_it_has_counted_is_true(tmp_path):
    figures.publish(tmp_path, "worker-0", [gauge("logstore_x", "x", [({}, 2)]), counter("logstore_y", "y", [({}, 3)])])
    (read,) = figures.published(tmp_path)
    old = read._replace(age_s=figures.STALE_S)
    assert not old.fresh
    assert [family.name for family in old.true_families()] == ["logstore_y"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b'{"process": 1}', b'{"process": "x", "families": [[1]]}']
)
def test_a_file_that_cannot_be_read_counts_for_nothing(tmp_path, content):
    figures.publish(tmp_path, "worker-0", [])
    (figures.folder(tmp_path) / "reader-0.json").write_bytes(content)
    assert [one.process for one in figures.published(tmp_path)] == ["worker-0"]


def test_an_earlier_run_is_forgotten(tmp_path):
    figures.publish(tmp_path, "worker-7", [])
    figures.begin(tmp_path)
    assert figures.published(tmp_path) == []


def test_every_reader_tells_of_every_process(store):
    node, first = store
    figures.publish(
        node.data_dir, "worker-0", [counter("logstore_applied_records", "x", [({"worker": "0", "table": "t"}, 20)])]
    )
    second = Reader(node.data_dir, "--index", "1", node=node.name)
    try:
        second.wait_ready()
        for _ in range(3):
            assert first.get("/v1/tables/t/rows/k1").status_code == 200
        for reader in (first, second):
            until("both readers are up", lambda r=reader: scrape(r)["logstore_process_up"].keys() >= PROCESSES)
            found = scrape(reader)
            assert set(found["logstore_process_up"].values()) == {1.0}
            assert found["logstore_applied_records_total"] == {(("table", "t"), ("worker", "0")): 20.0}
            assert {dict(labels)["reader"] for labels in found["logstore_waiters"]} == {"0", "1"}
            assert found["logstore_build_info"]
        rows = {"reader": "0", "method": "GET", "route": "row", "status": "200"}
        until("the other reader tells it too", lambda: value(second, "logstore_http_requests_total", **rows) == 3.0)
        assert value(first, "logstore_http_requests_total", **rows) == 3.0
        assert scrape(first)["logstore_applied_offset"] == scrape(second)["logstore_applied_offset"]
    finally:
        second.close()


PROCESSES = {(("process", name),) for name in ("reader-0", "reader-1", "worker-0")}


def test_a_process_that_writes_no_more_is_down(store):
    node, reader = store
    figures.publish(node.data_dir, "worker-0", [gauge("logstore_x", "x", [({}, 2)])])
    assert value(reader, "logstore_process_up", process="worker-0") == 1.0
    old_s = time.time() - 2 * figures.STALE_S
    os.utime(figures.folder(node.data_dir) / "worker-0.json", (old_s, old_s))
    found = scrape(reader)
    assert found["logstore_process_up"][(("process", "worker-0"),)] == 0.0
    assert "logstore_x" not in found


def test_a_live_partition_has_its_lag(store):
    node, reader = store
    figures.publish(
        node.data_dir, "worker-0",
        [gauge("logstore_worker_lag_seconds", "x", [({"table": "t", "partition": "0"}, 1.5)])],
    )  # fmt: skip
    assert state_of(reader, 0) == "live"
    assert value(reader, "logstore_lag_records", table="t", partition=0) == 0.0
    assert value(reader, "logstore_lag_seconds", table="t", partition=0) == 1.5
    assert math.isnan(value(reader, "logstore_lag_seconds", table="t", partition=1))
    assert "logstore_worker_lag_seconds" not in scrape(reader)
    assert value(reader, "logstore_kafka_reachable") == 1.0


def test_without_kafka_nothing_looks_healthy(own):
    node, reader = own
    node.publish(LogKey(), LogRecord(reachable=False))
    until("it is told", lambda: value(reader, "logstore_kafka_reachable") == 0.0)
    assert [state_of(reader, partition) for partition in (0, 1)] == ["unreachable", "unreachable"]
    assert all(map(math.isnan, scrape(reader)["logstore_lag_records"].values()))
    assert all(map(math.isnan, scrape(reader)["logstore_lag_seconds"].values()))
    assert reader.get("/v1/tables/t/rows/k1").status_code == 200
    told = reader.get("/v1/partitions").json()["partitions"]
    assert [(row["lag"], row["reason"]) for row in told] == [(None, "it does not advance: the log does not answer")] * 2
    node.publish(LogKey(), LogRecord(reachable=True))
    until("it is live again", lambda: state_of(reader, 0) == "live")


def test_without_its_worker_nothing_looks_healthy(own):
    node, reader = own
    node.close_feed()
    until("it is told", lambda: math.isnan(value(reader, "logstore_kafka_reachable")))
    assert state_of(reader, 0) == "unreachable"
    assert math.isnan(value(reader, "logstore_lag_records", table="t", partition=0))
    (told, _) = reader.get("/v1/partitions").json()["partitions"]
    assert (told["lag"], told["reason"]) == (None, "it does not advance: its worker is away")


def test_a_stopped_partition_has_no_lag(own):
    node, reader = own
    node.stop("t", 1)
    assert [state_of(reader, partition) for partition in (0, 1)] == ["live", "stopped"]
    assert math.isnan(value(reader, "logstore_lag_records", table="t", partition=1))
    assert value(reader, "logstore_lag_records", table="t", partition=0) == 0.0


def test_a_partition_that_nobody_serves_is_told(tmp_path):
    with serving(tmp_path, slots=[0]) as (node, reader):
        node.publish(LogKey(), LogRecord(reachable=True))
        node.create("t", 2)
        reader.wait_listening()
        until("its own partition is live", lambda: (0, "live") in [(p, state_of(reader, p)) for p in known(reader)])
        assert state_of(reader, 1) == "unserved"
        assert math.isnan(value(reader, "logstore_lag_records", table="t", partition=1))


def test_views_tell_their_pages(store):
    _, reader = store
    assert value(reader, "logstore_view_bytes", table="t", partition=0) > 0
    assert value(reader, "logstore_view_map_bytes", table="t", partition=0) > 0
    free = value(reader, "logstore_view_free_pages", table="t", partition=0)
    assert 0 <= free * 4096 < value(reader, "logstore_view_bytes", table="t", partition=0)


def test_answers_are_told_by_route_status_and_way(store):
    _, reader = store
    before = value(reader, COUNT, **ROW)
    for _ in range(2):
        reader.raw(b"GET /v1/tables/t/rows/k1 HTTP/1.1\r\nhost: x\r\n\r\n")
    reader.get("/v1/tables/t/rows/none")
    assert value(reader, COUNT, **ROW) == before + 2
    assert value(reader, COUNT, **{**ROW, "status": "404", "way": "ordinary"}) == 1.0


def test_a_snapshot_of_no_records_has_no_age(own):
    node, reader = own
    node.create("u", 1)
    node.adopt("u", 0)
    node.adopt("t", 0)
    until("it is adopted", lambda: adopted(reader, "u") == adopted(reader, "t") == 1.0)
    assert math.isnan(value(reader, "logstore_snapshot_age_seconds", table="u", partition=0))
    assert 0.0 <= value(reader, "logstore_snapshot_age_seconds", table="t", partition=0) < math.inf


def adopted(reader: Reader, table: str) -> float | None:
    found = scrape(reader).get("logstore_snapshot_adopted", {})
    return found.get((("partition", "0"), ("table", table)))


def test_a_partition_whose_log_alone_does_not_answer_does_not_look_healthy(own):
    node, reader = own
    silent = PartitionEnd(node.tables["t"].epoch, 1, -1)
    node.publish(EndsKey(), EndsRecord(1, (), (silent,)))
    until("it is told", lambda: state_of(reader, 1) == "unreachable")
    assert state_of(reader, 0) == "live"
    for name in ("logstore_lag_records", "logstore_lag_seconds"):
        assert math.isnan(value(reader, name, table="t", partition=1))
    first, second = reader.get("/v1/partitions").json()["partitions"]
    assert (first["lag"], first["reason"]) == (0, "")
    assert (second["lag"], second["reason"]) == (None, "it does not advance: the log does not answer")
    node.publish(EndsKey(), EndsRecord(2, (silent._replace(end=9),)))
    until("it is live again", lambda: state_of(reader, 1) == "live")


def test_nodes_stay_known_while_nobody_can_be_heard_of(own):
    node, reader = own
    (before,) = reader.get("/v1/cluster").json()["nodes"]
    assert (before["current"], before["age_s"]) == (True, 0.0)
    node.publish(LogKey(), LogRecord(reachable=False))
    node.publish(NodesKey(), NodesRecord())
    until("it is told", lambda: value(reader, "logstore_kafka_reachable") == 0.0)
    for page in ("/v1/cluster", "/v1/status"):
        (known,) = until("the node is known", lambda page=page: reader.get(page).json()["nodes"])
        assert known == {**before, "current": False, "age_s": known["age_s"]}
    node.publish(LogKey(), LogRecord(reachable=True))
    until("who is not heard of then is gone", lambda: reader.get("/v1/cluster").json()["nodes"] == [])
    node.publish_nodes()
    until("it is heard of", lambda: [one["current"] for one in reader.get("/v1/cluster").json()["nodes"]] == [True])
