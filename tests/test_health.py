"""What `logstore status --check` calls unwell, and says."""

import pytest

from logstore.cli import health
from logstore.cli.status import _only
from logstore.model.errors import NoSuchTable


def row(partition: int = 0, state: str = "live", reason: str = "", **snapshot: str) -> dict:
    found = {"table": "t", "partition": partition, "group": "default", "state": state, "reason": reason}
    return {**found, "snapshot": snapshot} if snapshot else found


def found(*rows: dict, **more: object) -> dict:
    well = {"nodes": [{"node": "a"}], "silent": [], "log": {"reachable": True}, "tables": [{"name": "t"}]}
    return {**well, "partitions": list(rows), **more}


def test_nothing_is_said_of_a_store_that_is_well():
    assert health.reasons(found(row(), row(1, snapshot="x", state="live"), row(2, "elsewhere"))) == []


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (row(3, "stopped", "offsets 5 to 6 are missing"), "t/3 is stopped: offsets 5 to 6 are missing"),
        (row(0, "unserved"), "t/0 is unserved: no node that is alive serves it"),
        (row(1, "catching-up"), "t/1 is catching-up: it is not at the end of its log"),
    ],
)
def test_a_partition_that_is_not_served_as_it_should_be_is_said_with_its_reason(one, says):
    assert health.reasons(found(row(7), one)) == [says]


def test_one_that_is_live_and_does_not_advance_is_said_once():
    one = row(0, "live", "it does not advance: its worker is away")
    assert health.reasons(found(one, row(1))) == ["t/0 is live: it does not advance: its worker is away"]
    (reason,) = health.reasons(found(one, row(1), log={"reachable": False}))
    assert "Kafka does not answer" in reason


def test_a_clock_that_ends_no_rows_is_said():
    (reason,) = health.reasons(found(row(), log={"reachable": True, "clock_ahead_s": 600.2}))
    assert "600 s ahead of the brokers'" in reason


def test_a_refused_snapshot_is_said():
    one = row() | {"snapshot": {"state": "refused", "candidate": "s-1", "reason": "digests differ"}}
    assert health.reasons(found(one)) == ["t/0 refuses snapshot s-1: digests differ"]


def test_kafka_silent_nodes_and_no_node_at_all_are_said():
    assert health.reasons(found(log={"reachable": False}, nodes=[])) == [
        "Kafka does not answer: what is served does not advance"
    ]
    assert health.reasons(found(nodes=[], log=None)) == ["no worker of any node is there"]
    silent = [{"node": "b", "url": "u", "error": "u does not answer"}]
    assert health.reasons(found(silent=silent)) == ["node b: u does not answer"]


def test_one_table_and_the_unwell_can_be_asked_for():
    store = found(row(0), row(1, "stopped"), row(0) | {"table": "u"}, tables=[{"name": "t"}, {"name": "u"}])
    assert [(one["table"], one["partition"]) for one in _only(store, "t", unhealthy=False)["partitions"]] == [
        ("t", 0), ("t", 1),
    ]  # fmt: skip
    assert [one["partition"] for one in _only(store, None, unhealthy=True)["partitions"]] == [1]
    assert [one["name"] for one in _only(store, "u", unhealthy=False)["tables"]] == ["u"]
    with pytest.raises(NoSuchTable, match="table list"):
        _only(store, "v", unhealthy=False)
