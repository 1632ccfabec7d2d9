import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer, TopicPartition
from support_log import markers_written, until

from logstore.broker.embedded import EmbeddedKafka
from logstore.log import topics
from logstore.log.kafka.offsets import Bounds
from logstore.log.membership.changes import Announcer
from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.membership.nodes import Announcement
from logstore.log.read import holes
from logstore.log.tables import claims, ddl, repairs
from logstore.log.tables.registry import Registry
from logstore.log.tables.repairs import Copies
from logstore.model.errors import BadDefinition, EpochChanged, NoSuchTable, SetupError, TableExists, UsageError
from logstore.view.feed.log_records import boottime_ns


@pytest.fixture(scope="module")
def registry(kafka: EmbeddedKafka) -> Registry:
    registry = Registry(kafka.bootstrap)
    registry.ensure_store()
    return registry


@pytest.fixture
def name() -> str:
    return f"ddl-{uuid.uuid4().hex[:8]}"


def produce(registry: Registry, topic: str, values: list[bytes], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": registry.bootstrap, "linger.ms": 0})
    for value in values:
        producer.produce(topic, value, b"k", partition=partition)
    assert producer.flush(60) == 0


def transact(registry: Registry, topic: str, values: list[bytes], *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": registry.bootstrap, "transactional.id": uuid.uuid4().hex, "linger.ms": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, b"k", partition=0)
    producer.flush(60)
    producer.commit_transaction(20) if commit else producer.abort_transaction(20)
    markers_written(registry.bootstrap, topic)


def test_a_store_that_was_never_started_says_how_to_start_one(tmp_path):
    with EmbeddedKafka(tmp_path, heap_mb=256) as empty, pytest.raises(SetupError, match="logstore node --bootstrap"):
        ddl.create(Registry(empty.bootstrap), "users")


def test_a_created_table_has_a_topic_that_keeps_everything(registry, name):
    change = ddl.create(
        registry,
        name,
        partitions=3,
        max_value_bytes=2_000,
        description="people",
        topic_config={"compression.type": "zstd"},
    )

    table = registry.table(name)
    assert table == change.table
    assert change.revision == table.revision + 1
    assert (table.partitions, table.max_value_bytes, table.description, table.adopted) == (3, 2_000, "people", False)
    assert table.epoch == topics.epoch_of(registry.admin, name)
    assert topics.check(registry.admin, table) == []
    settings = topics.settings_of(registry.admin, name)
    assert settings["retention.ms"] == "-1"
    assert settings["compression.type"] == "zstd"


@pytest.mark.parametrize("bad", ["", "Users", "logstore.x", "a" * 101, "a b", "../a"])
def test_a_name_that_cannot_be_creates_nothing(registry, bad):
    with pytest.raises(BadDefinition):
        ddl.create(registry, bad)


def test_a_setting_that_would_lose_mutations_is_refused_before_there_is_a_topic(registry, name):
    with pytest.raises(BadDefinition, match=r"cleanup.policy is compact, should be delete"):
        ddl.create(registry, name, topic_config={"cleanup.policy": "compact"})
    with pytest.raises(BadDefinition, match=r"retention.ms"):
        ddl.create(registry, name, topic_config={"retention.ms": "1000"})
    assert topics.epoch_of(registry.admin, name) is None


def test_a_setting_that_kafka_does_not_know_is_its_own_words(registry, name):
    with pytest.raises(Exception, match=r"(?i)unknown topic config"):
        ddl.create(registry, name, topic_config={"colour": "blue"})


def test_of_many_who_create_the_same_table_one_wins(registry, name):
    barrier = threading.Barrier(4)

    def one(_: int) -> str:
        mine = Registry(registry.bootstrap)
        barrier.wait(90)
        try:
            return ddl.create(mine, name).table.epoch
        except TableExists:
            return ""

    with ThreadPoolExecutor(4) as pool:
        epochs = [epoch for epoch in pool.map(one, range(4)) if epoch]
    assert epochs == [registry.table(name).epoch]


def test_what_a_killed_create_left_is_taken_over(registry, name, monkeypatch):
    monkeypatch.setattr(claims, "RIVAL_S", 0.5)
    topics.create(registry.admin, name, 2, 1, topics.wal_settings(1_000_000, 1))  # as far as it came
    with pytest.raises(TableExists):
        ddl.create(registry, name, partitions=3)  # not what is there
    assert ddl.create(registry, name, partitions=2).table.epoch == topics.epoch_of(registry.admin, name)


def test_a_name_that_is_taken_is_refused(registry, name):
    ddl.create(registry, name)
    with pytest.raises(TableExists, match="describe"):
        ddl.create(registry, name)


def test_a_topic_in_the_way_names_the_way_to_adopt_it(registry, name):
    topics.create(registry.admin, name, 1, 1, {})
    with pytest.raises(TableExists, match=f"--topic {name}"):
        ddl.create(registry, name)


def test_an_adopted_topic_brings_its_partitions_and_warns_of_what_is_risky(registry, name):
    topics.create(registry.admin, name, 2, 1, {"retention.ms": "3600000"})
    change = ddl.adopt(registry, f"{name}-table", name)

    assert (change.table.topic, change.table.partitions, change.table.adopted) == (name, 2, True)
    assert not change.table.allow_control_records
    warned = "\n".join(change.warnings)
    assert "retention.ms is 3600000, should be -1" in warned
    assert "message.timestamp.type is CreateTime" in warned
    with pytest.raises(TableExists, match=f"that of table '{name}-table'"):
        ddl.adopt(registry, f"{name}-again", name)


def test_a_topic_whose_log_was_cut_is_adopted_with_a_warning(registry, name):
    topics.create(registry.admin, name, 1, 1, {})
    produce(registry, name, [b"1", b"2", b"3"])
    delete_records(registry, name, 2)
    assert "begins at offset 0" in "\n".join(ddl.adopt(registry, f"{name}-t", name).warnings)


def delete_records(registry: Registry, topic: str, before: int) -> None:
    for future in registry.admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(60)


@pytest.mark.parametrize(
    ("topic", "says"), [("logstore.nodes", "the store's own"), ("no-such-topic", "no topic 'no-such-topic' to adopt")]
)
def test_a_topic_that_cannot_be_adopted_says_why(registry, name, topic, says):
    with pytest.raises(BadDefinition, match=says):
        ddl.adopt(registry, name, topic)


def test_a_compacted_topic_is_never_a_table(registry, name):
    topics.create(registry.admin, name, 1, 1, {"cleanup.policy": "compact"})
    with pytest.raises(BadDefinition, match=r"a compacted log has holes"):
        ddl.adopt(registry, name, name)


def test_alter_changes_the_description_and_the_topic_but_not_the_epoch(registry, name):
    before = ddl.create(registry, name).table
    change = ddl.alter(
        registry, name, description="new", topic_config={"segment.ms": "600000"}, allow_control_records=False
    )

    table = registry.table(name)
    assert (table.description, table.allow_control_records, table.epoch) == ("new", False, before.epoch)
    assert change.revision == table.revision + 1 > before.revision + 1
    assert topics.settings_of(registry.admin, name)["segment.ms"] == "600000"
    with pytest.raises(BadDefinition, match=r"retention.ms"):
        ddl.alter(registry, name, topic_config={"retention.ms": "5"})
    with pytest.raises(NoSuchTable):
        ddl.alter(registry, "ddl-none", description="x")


def test_of_changes_at_once_none_is_lost(registry, name, monkeypatch):
    """All of them have seen the same definition, and each one's record replaces those before it."""
    ddl.create(registry, name, wide=True, families=["f"], partitions=1)
    asked = [
        {"description": "new"}, {"allow_control_records": False}, {"snapshots": {"keep_snapshots": 9}},
        {"snapshots": {"compression": "zstd", "merge_share": 0.25}},
    ]  # fmt: skip
    write, together, first = Registry.write_over, threading.Barrier(len(asked)), threading.local()

    def write_over(self, table):
        if not getattr(first, "was", False):
            first.was = True
            together.wait(30)
        return write(self, table)

    monkeypatch.setattr(Registry, "write_over", write_over)
    with ThreadPoolExecutor(len(asked)) as pool:
        changes = list(pool.map(lambda some: ddl.alter(registry, name, **some), asked))
    table = registry.table(name)
    assert (table.description, table.allow_control_records, table.keep_snapshots) == ("new", False, 9)
    assert (table.compression, table.merge_share) == ("zstd", 0.25)
    assert table.revision == max(change.table.revision for change in changes)


def test_a_field_that_two_change_at_once_has_the_value_of_the_later_one(registry, name, monkeypatch):
    ddl.create(registry, name)
    write = Registry.write_over

    def after_another(self, table):
        monkeypatch.setattr(Registry, "write_over", write)
        ddl.alter(registry, name, description="theirs", snapshots={"keep_snapshots": 7})
        return write(self, table)

    monkeypatch.setattr(Registry, "write_over", after_another)
    change = ddl.alter(registry, name, description="ours")
    assert change.table == registry.table(name)
    assert (change.table.description, change.table.keep_snapshots) == ("ours", 7)


def test_a_third_that_saw_the_first_record_of_two_loses_nothing(registry, name, monkeypatch):
    """Ours replaces theirs; before we have joined the two somebody reads ours as it stands, and writes behind it."""
    ddl.create(registry, name)
    write, others = Registry.write_over, [{"description": "theirs"}, {"allow_control_records": False}]

    def between(self, table):
        if others:
            monkeypatch.setattr(Registry, "write_over", write)
            ddl.alter(registry, name, **others.pop(0))
            monkeypatch.setattr(Registry, "write_over", between)
        return write(self, table)

    monkeypatch.setattr(Registry, "write_over", between)
    table = ddl.alter(registry, name, snapshots={"keep_snapshots": 7}).table
    assert not others
    assert (table.description, table.allow_control_records, table.keep_snapshots) == ("theirs", False, 7)
    assert registry.table(name) == table


def test_a_table_that_is_dropped_while_it_is_altered_stays_dropped(registry, name, monkeypatch):
    ddl.create(registry, name)
    write = Registry.write_over

    def dropped_before(self, table):
        monkeypatch.setattr(Registry, "write_over", write)
        ddl.drop(registry, name)
        return write(self, table)

    monkeypatch.setattr(Registry, "write_over", dropped_before)
    with pytest.raises(NoSuchTable):
        ddl.alter(registry, name, description="late")
    assert registry.read().tables[name].dropped


def test_a_dropped_table_leaves_its_epoch_behind_for_the_next_of_its_name(registry, name):
    first = ddl.create(registry, name).table
    dropped = ddl.drop(registry, name)
    assert registry.read().tables[name].dropped
    with pytest.raises(NoSuchTable):
        registry.table(name)
    assert ddl.delete_topic(registry, dropped.table)
    assert topics.epoch_of(registry.admin, name) is None

    second = ddl.create(registry, name, partitions=1).table
    assert second.former_epochs == (first.epoch,)
    ddl.delete_topic(registry, ddl.drop(registry, name).table)
    third = ddl.create(registry, name).table
    assert third.former_epochs == (first.epoch, second.epoch)
    assert [first.topic, second.topic, third.topic] == [name, f"{name}.2", f"{name}.3"]
    assert topics.epoch_of(registry.admin, name) is None


def test_of_many_who_make_a_dropped_table_again_one_wins(registry, name):
    ddl.create(registry, name)
    ddl.delete_topic(registry, ddl.drop(registry, name).table)
    barrier = threading.Barrier(4)

    def one(partitions: int) -> str:
        mine = Registry(registry.bootstrap)
        barrier.wait(90)
        try:
            return ddl.create(mine, name, partitions=partitions).table.epoch
        except TableExists:
            return ""

    with ThreadPoolExecutor(4) as pool:
        epochs = [epoch for epoch in pool.map(one, range(1, 5)) if epoch]
    assert epochs == [registry.table(name).epoch]
    assert [topic for topic in topics.names(registry.admin) if topic.startswith(name)] == [f"{name}.2"]


def test_a_table_made_again_steps_over_topics_that_are_somebody_elses(registry, name):
    ddl.delete_topic(registry, ddl.drop(registry, ddl.create(registry, name).table.name).table)
    topics.create(registry.admin, f"{name}.2", 1, 1, {})  # not as a table's topic should be
    topics.create(registry.admin, f"{name}_3", 1, 1, {})  # Kafka refuses one that differs in . and _ alone
    again = ddl.create(registry, name, partitions=2).table
    assert again.topic == f"{name}.4"
    ddl.delete_topic(registry, ddl.drop(registry, name).table)
    named_so = ddl.create(registry, f"{name}.4").table  # writers of the other table may still know this topic's name
    assert named_so.topic == f"{name}.4.2"


def test_a_create_that_was_killed_over_a_dropped_table_is_taken_over(registry, name, monkeypatch):
    monkeypatch.setattr(claims, "RIVAL_S", 0.5)
    ddl.delete_topic(registry, ddl.drop(registry, ddl.create(registry, name).table.name).table)
    topics.create(registry.admin, f"{name}.2", 2, 1, topics.wal_settings(1_000_000, 1))
    again = ddl.create(registry, name, partitions=2).table
    assert (again.topic, again.epoch) == (f"{name}.2", topics.epoch_of(registry.admin, f"{name}.2"))


def test_a_drop_that_was_interrupted_is_ended_by_the_next(registry, name):
    ddl.create(registry, name)
    ddl.drop(registry, name)
    with pytest.raises(TableExists, match="drop was interrupted"):
        ddl.create(registry, name)
    assert ddl.delete_topic(registry, ddl.drop(registry, name).table)
    with pytest.raises(NoSuchTable):
        ddl.drop(registry, name)


def test_a_dropped_adopted_table_keeps_its_topic(registry, name):
    topics.create(registry.admin, name, 1, 1, {})
    ddl.adopt(registry, f"{name}-t", name)
    assert not ddl.delete_topic(registry, ddl.drop(registry, f"{name}-t").table)
    assert topics.epoch_of(registry.admin, name)


def test_a_sound_log_has_no_holes(registry, name):
    table = ddl.create(registry, name, partitions=2).table
    produce(registry, name, [b"v"] * 10)
    assert repairs.examine(registry, table, 0).log == holes.Log(0, 10, 10, [])
    assert repairs.examine(registry, table, 1).log == holes.Log(0, 0, 0, [])
    with pytest.raises(UsageError, match="partitions 0 to 1, not 2"):
        repairs.examine(registry, table, 2)


def test_markers_and_aborted_records_of_transactions_are_found_and_stepped_over(registry, name):
    table = ddl.create(registry, name, partitions=1).table
    produce(registry, name, [b"v"] * 3)  # 0 1 2
    transact(registry, name, [b"a", b"b"], commit=True)  # 3 4, marker 5
    transact(registry, name, [b"c"], commit=False)  # 6 aborted, marker 7

    log = repairs.examine(registry, table, 0).log
    assert log.holes == [holes.Hole(5, 7, aborted=1)]
    with pytest.raises(UsageError, match="hold 2 records that can be read"):
        repairs.skip(registry, table, 0, 3, 5)
    with pytest.raises(UsageError, match="no range of offsets below the log's end, 8"):
        repairs.skip(registry, table, 0, 7, 8)

    repaired = repairs.skip(registry, table, 0, 5, 7).table
    assert repaired.skips == {0: [(5, 7)]}
    assert registry.table(name) == repaired
    assert repairs.examine(registry, repaired, 0).log.holes == []


def test_a_skip_that_covers_a_part_leaves_the_rest_to_be_found(registry, name):
    table = ddl.create(registry, name, partitions=1).table
    produce(registry, name, [b"v"] * 6)
    delete_records(registry, name, 5)
    repaired = repairs.skip(registry, table, 0, 1, 2).table
    log = repairs.examine(registry, repaired, 0).log
    assert log.start == 5
    assert log.holes == [holes.Hole(0, 0), holes.Hole(3, 4)]
    assert repairs.skip(registry, repaired, 0, 0, 4).table.skips == {0: [(0, 4), (1, 2)]}


def test_what_archive_or_snapshots_hold_is_not_missing_and_what_was_applied_cannot_be_undone(registry, name):
    table = ddl.create(registry, name, partitions=1).table
    produce(registry, name, [b"v"] * 8)
    delete_records(registry, name, 6)
    copies = Copies(archived=5, cut=4, applied=7)
    assert repairs.examine(registry, table, 0, copies.reach).log.holes == [holes.Hole(5, 5)]
    for force, says in ((False, "offsets below 5 are not lost"), (True, "below offset 7 has been applied")):
        with pytest.raises(UsageError, match=says):
            repairs.skip(registry, table, 0, 3, 5, copies=copies, force=force)
    with pytest.raises(UsageError, match="below offset 7 has been applied"):
        repairs.skip(registry, table, 0, 6, 6, copies=copies, force=True)
    repaired = repairs.skip(registry, table, 0, 5, 5, copies=copies).table
    assert repaired.skips == {0: [(5, 5)]}
    assert repairs.skip(registry, repaired, 0, 3, 4, copies=Copies(archived=5), force=True).table.skips == {
        0: [(3, 4), (5, 5)]
    }


def test_a_topic_that_was_created_again_is_accepted_as_a_new_epoch(registry, name):
    table = ddl.create(registry, name, partitions=1).table
    with pytest.raises(UsageError, match="still the one"):
        repairs.new_epoch(registry, table)
    topics.delete(registry.admin, name)
    with pytest.raises(EpochChanged, match=f"drop {name} --yes"):
        repairs.check_epoch(table, repairs.examine(registry, table, 0))
    topics.create(registry.admin, name, 2, 1, topics.wal_settings(table.max_value_bytes, 1))
    with pytest.raises(EpochChanged, match="--new-epoch"):
        repairs.check_epoch(table, repairs.examine(registry, table, 0))

    renewed = repairs.new_epoch(registry, table).table
    assert (renewed.former_epochs, renewed.partitions) == ((table.epoch,), 2)
    assert renewed.epoch == topics.epoch_of(registry.admin, name)


def test_a_change_is_awaited_from_everybody_who_is_alive(registry, name):
    change = ddl.create(registry, name, partitions=4)
    group = f"group-{name}"
    announcer = Announcer(registry.bootstrap, boottime_ns)

    def announce(worker: int, **more: object) -> None:
        for _ in range(2):  # who has said so once is waited for by nobody
            announcer.announce(Announcement(name, worker, "http://n", group, **more))

    with LiveWorkers(registry.bootstrap) as live_workers:
        announce(0, tables=change.revision, live=[0, 1])
        announce(1, tables=change.revision - 1, live=[2, 3])
        eventually_known(live_workers, name, 2)
        lacking = live_workers.await_served(change.revision, change.table, 16, 0.3)
        mine = [reason for reason in lacking.reasons if name in reason]
        assert lacking.workers == 2
        assert any(f"worker 1 of {name}" in reason and f"of {change.revision:,}" in reason for reason in mine)
        assert any("[2, 3]" in reason for reason in mine)

        threading.Timer(0.2, announce, (1,), {"tables": change.revision, "live": [2, 3]}).start()
        assert live_workers.await_served(change.revision, change.table, 16, 10).reasons == []

        for worker in (0, 1):
            announcer.retire(Announcement(name, worker, "", group))
        assert [a for a in live_workers.look() if a.node == name] == []


def test_an_announcer_knows_the_brokers_time_and_when_it_asked(registry, name):
    announcer = Announcer(registry.bootstrap, boottime_ns)
    announcement = Announcement(name, 0, "http://n", f"group-{name}")
    assert announcer.acknowledged is None
    sent_ns, sent_ms = boottime_ns(), time.time_ns() // 1_000_000
    announcer.announce(announcement)
    until("it is acknowledged", lambda: announcer.hear() or announcer.acknowledged)
    broker_ms, asked_ns = announcer.acknowledged
    assert sent_ns <= asked_ns <= boottime_ns()
    assert sent_ms <= broker_ms <= time.time_ns() // 1_000_000  # one machine has one clock
    announcer.retire(announcement)


def eventually_known(live_workers: LiveWorkers, node: str, count: int) -> None:
    until("the announcements arrive", lambda: len([a for a in live_workers.look() if a.node == node]) == count)


def test_a_worker_that_says_nothing_more_is_gone_after_a_while(registry, name, monkeypatch):
    announcer = Announcer(registry.bootstrap, boottime_ns)
    announcer.announce(Announcement(name, 0, "http://n", "g", tables=1))
    with LiveWorkers(registry.bootstrap) as live_workers:
        eventually_known(live_workers, name, 1)
        monkeypatch.setattr("logstore.log.membership.nodes.TTL_S", 0.05)
        until("it is taken for gone", lambda: not [a for a in live_workers.look() if a.node == name])


def test_offsets_below_the_logs_start_are_a_hole(registry, name):
    table = ddl.create(registry, name, partitions=1).table
    produce(registry, name, [b"v"] * 4)
    delete_records(registry, name, 4)
    log = repairs.examine(registry, table, 0).log
    assert log == holes.Log(4, 4, 4, [holes.Hole(0, 3)])
    assert holes.readable_in(registry.bootstrap, name, 0, 0, 3, Bounds(4, 4)) == 0
