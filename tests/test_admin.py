"""Admin: tables are made, changed and dropped from a program, as by the commands."""

import random

import pytest

from logstore import Admin, NoSuchTable, NotYet, Store, UsageError
from logstore.client.admin.served import check_served
from logstore.log.membership.live_workers import Lacking
from logstore.model.errors import BadDefinition, TableExists


@pytest.mark.slow
def test_a_table_is_made_changed_and_dropped_and_served_when_a_call_returns(dev):
    name = f"t{random.SystemRandom().randrange(1 << 40):x}"
    bootstrap, url = dev.facts["bootstrap"], dev.facts["http"]
    with Admin(bootstrap) as admin, Store(bootstrap, url) as store:
        made = admin.create(name, partitions=3, max_value_bytes=10, description="one", snapshots={"block_bytes": 4096})
        assert (made.partitions, made.max_value_bytes, made.block_bytes) == (3, 10, 4096)
        assert store.get(name, "k") is None  # without a wait: it is served
        with pytest.raises(TableExists):
            admin.create(name)
        changed = admin.alter(name, description="two", snapshots={"keep_snapshots": 7})
        assert admin.describe(name) == changed
        assert (changed.description, changed.keep_snapshots, changed.epoch) == ("two", 7, made.epoch)
        assert changed in admin.tables()
        adopted = admin.adopt(f"{name}x", _topic(dev), allow_control_records=True)
        assert adopted.adopted
        admin.drop(adopted.name)
        admin.drop(name)
        assert name not in {table.name for table in admin.tables()}
        with pytest.raises(NoSuchTable):
            store.get(name, "k")
        with pytest.raises(NoSuchTable):
            admin.drop(name)
        admin.drop(name, missing_ok=True)


def _topic(dev):
    from confluent_kafka.admin import AdminClient, NewTopic  # noqa: PLC0415 - as another program makes one

    name = f"own{random.SystemRandom().randrange(1 << 40):x}"
    config = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": "1200000"}
    client = AdminClient({"bootstrap.servers": dev.facts["bootstrap"]})
    client.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(60)
    return name


NOWHERE = "127.0.0.1:1"  # nothing is asked of Kafka for what is wrong already


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda admin: admin.create(7), UsageError),
        (lambda admin: admin.create(""), UsageError),
        (lambda admin: admin.create("a/b"), BadDefinition),
        (lambda admin: admin.create("t", partitions="4"), BadDefinition),
        (lambda admin: admin.create("t", partitions=True), BadDefinition),
        (lambda admin: admin.create("t", partitions=0), BadDefinition),
        (lambda admin: admin.create("t", max_value_bytes=1.5), BadDefinition),
        (lambda admin: admin.create("t", description=b"x"), UsageError),
        (lambda admin: admin.create("t", topic_config=["a"]), UsageError),
        (lambda admin: admin.create("t", snapshots="lz4"), UsageError),
        (lambda admin: admin.create("t", snapshots={"block_size": 4096}), BadDefinition),
        (lambda admin: admin.create("t", snapshots={"merge_share": "0.5"}), BadDefinition),
        (lambda admin: admin.adopt("t", 7), UsageError),
        (lambda admin: admin.adopt("t", "logstore.slots"), BadDefinition),
        (lambda admin: admin.alter("t"), UsageError),
        (lambda admin: admin.alter("t", description=7), UsageError),
        (lambda admin: admin.alter("t", add_families="notes"), BadDefinition),
        (lambda admin: admin.alter("t", add_families={"notes": 7}), BadDefinition),
        (lambda admin: admin.alter("t", families=["notes"]), UsageError),
        (lambda admin: admin.drop(None), UsageError),
        (lambda admin: admin.describe([]), UsageError),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked_of_kafka(wrong, error):
    with Admin(NOWHERE) as admin, pytest.raises(error):
        wrong(admin)


@pytest.mark.parametrize(
    "arguments", [{"bootstrap": 7}, {"kafka": "x"}, {"timeout_s": -1}, {"timeout_s": "30"}, {"kafka": {"no": "such"}}]
)
def test_a_wrong_argument_is_refused_at_once(arguments):
    with pytest.raises(UsageError):
        Admin(**arguments).tables()


def test_a_closed_admin_says_so():
    admin = Admin(NOWHERE)
    admin.close()
    for call in (admin.tables, lambda: admin.describe("t"), lambda: admin.create("t"), admin.__enter__):
        with pytest.raises(UsageError, match="this Admin is closed"):
            call()


def test_without_an_address_it_says_where_one_may_stand(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("LOGSTORE_BOOTSTRAP", raising=False)
    with pytest.raises(UsageError, match="LOGSTORE_BOOTSTRAP"):
        Admin().tables()


def test_who_does_not_serve_a_change_is_named():
    check_served(Lacking(1, []), 3)
    with pytest.raises(NotYet, match=r"not served by everybody after 3 s: worker 0 of n; `logstore status`"):
        check_served(Lacking(1, ["worker 0 of n"]), 3)
