import pytest
from confluent_kafka import Producer, TopicPartition
from support_wait import until

from logstore.log import topics
from logstore.log.tables.registry import Registry


@pytest.mark.slow
def test_a_tables_life(dev):
    created = dev.json(
        "table", "create", "life", "--partitions", "3", "--description", "short", "--topic-config", "segment.ms=700000"
    )
    assert (created["partitions"], created["topic"], created["adopted"]) == (3, "life", False)
    assert "life" in [table["name"] for table in dev.json("table", "list")["tables"]]
    assert dev.json("table", "alter", "life", "--description", "shorter")["description"] == "shorter"
    described = dev.json("table", "describe", "life")
    assert (described["description"], described["findings"], described["epoch"]) == ("shorter", [], created["epoch"])
    dev("put", "life", "k", "v")

    assert dev.json("table", "drop", "life", "--yes")["dropped"] is True
    assert dev("get", "life", "k", status=1).stderr.startswith(b"logstore: there is no table 'life'")
    again = dev.json("table", "create", "life", "--partitions", "1")
    assert (again["former_epochs"], again["topic"]) == ([created["epoch"]], "life.2")
    assert b"topic\tlife.2\n" in dev("table", "describe", "life").stdout
    assert dev("get", "life", "k", status=1).stderr.startswith(b"logstore: there is no row 'k'")


@pytest.mark.slow
def test_a_created_table_is_served_when_the_command_returns(dev):
    for i in range(2):
        name = f"now-{i}"
        dev("table", "create", name)
        dev("get", name, "k", status=1)
        token = dev.json("put", name, "k", "v")["token"]
        assert dev("get", name, "k", "--token", token).stdout == b"v"
        dev("table", "drop", name, "--yes")


def test_an_adopted_topic_is_read_and_outlives_its_table(dev):
    registry = Registry(dev.facts["bootstrap"])
    topics.create(registry.admin, "theirs", 1, 1, {"retention.ms": "604800000"})
    producer = Producer({"bootstrap.servers": registry.bootstrap})
    producer.produce("theirs", b"value", b"key")
    assert producer.flush(60) == 0

    done = dev("table", "create", "adopted", "--topic", "theirs")
    assert b"warning: retention.ms is 604800000, should be -1" in done.stderr
    assert dev("get", "adopted", "key").stdout == b"value"
    assert b"its topic theirs stays" in dev("table", "drop", "adopted", "--yes").stdout
    assert topics.epoch_of(registry.admin, "theirs")


@pytest.mark.slow
def test_a_partition_that_a_transaction_stopped_is_repaired(dev):
    dev("table", "create", "stopped", "--partitions", "1")
    producer = Producer({"bootstrap.servers": dev.facts["bootstrap"], "transactional.id": "t"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("stopped", b"value", b"key")
    producer.commit_transaction(30)
    until(
        "it stops",
        lambda: [p["state"] for p in dev.json("status")["partitions"] if p["table"] == "stopped"] == ["stopped"],
    )
    assert b"table repair stopped" in dev("get", "stopped", "key", status=1).stderr
    assert dev.json("doctor", status=1)["ok"] is False

    refused = dev("table", "repair", "stopped", "--partition", "0", stdin=b"n\n", status=1)
    assert b"1..1" in refused.stdout
    assert b"nothing was changed" in refused.stderr
    assert (
        b"hold 1 records"
        in dev("table", "repair", "stopped", "--partition", "0", "--skip", "0..1", "--yes", status=2).stderr
    )
    dev("table", "repair", "stopped", "--partition", "0", stdin=b"y\n")
    assert dev("get", "stopped", "key").stdout == b"value"
    assert b"nothing is missing" in dev("table", "repair", "stopped", "--partition", "0").stderr


@pytest.mark.slow
def test_a_topic_that_was_created_again_is_accepted_when_told(dev):
    before = dev.json("table", "create", "again", "--partitions", "1")["epoch"]
    registry = Registry(dev.facts["bootstrap"])
    topics.delete(registry.admin, "again")
    until("it is gone", lambda: topics.epoch_of(registry.admin, "again") is None)
    assert topics.create(registry.admin, "again", 1, 1, topics.wal_settings(1_000_000, 1))
    until("it is back", lambda: topics.epoch_of(registry.admin, "again"))
    assert b"--new-epoch" in dev("table", "repair", "again", "--partition", "0", status=1).stderr
    dev("table", "repair", "again", "--new-epoch", "--yes")
    assert dev.json("table", "describe", "again")["former_epochs"] == [before]
    token = dev.json("put", "again", "k", "v")["token"]
    assert dev("get", "again", "k", "--token", token).stdout == b"v"


def test_a_log_that_was_cut_off_below_is_shown_by_repair(dev):
    dev("table", "create", "cut", "--partitions", "1")
    registry = Registry(dev.facts["bootstrap"])
    for i in range(2):
        dev("put", "cut", f"k{i}", "v")
    for future in registry.admin.delete_records([TopicPartition("cut", 0, 2)]).values():
        future.result(60)
    (missing,) = dev.json("table", "repair", "cut", "--partition", "0", "--yes")["missing"]
    assert (missing["first"], missing["last"]) == (0, 1)
    assert "deleted from the log's beginning" in missing["why"]
