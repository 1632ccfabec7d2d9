"""Column families are altered at run time: what log and definition hold then, whatever came between the steps."""

import itertools
import uuid
from dataclasses import replace

import msgpack
import pytest
from support_log import produce
from support_snapshot import records_of

from logstore.log.control import append_control
from logstore.log.kafka.offsets import bounds
from logstore.log.tables import ddl, rules
from logstore.log.tables.registry import Registry
from logstore.model.errors import BadDefinition, Conflict, LogUnreachable, NoSuchTable, NotWide, UsageError
from logstore.model.rules.rules_revision import RulesRevision
from logstore.model.table import Table

FAMILIES = {"content": {"versions": 3}, "anchor": {}}
NOTES = {"versions": 2, "ttl_ms": 86_400_000}


@pytest.fixture(scope="module")
def registry(kafka):
    registry = Registry(kafka.bootstrap)
    registry.ensure_store()
    return registry


@pytest.fixture
def table(registry):
    name = f"alter-{uuid.uuid4().hex[:8]}"
    return ddl.create(registry, name, partitions=3, wide=True, expiring=True, families=FAMILIES).table


def log_of(registry, table):
    """Operations and contents of the records of each partition that change rules, by offset."""
    found = {}
    for partition, (_, end) in bounds(registry.admin, table.topic, [0, 1, 2]).items():
        records = records_of(registry.bootstrap, table, partition, end) if end else None
        for at in records.offsets if records else ():
            if records.keys[at] is None:
                found[partition, at] = (records.headers[at], msgpack.unpackb(records.values[at]))
    return found


def wanted(table, revision):
    """The log of a table that was altered once."""
    content = {"revision": revision.revision, "families": revision.families}
    return {(p, at): ([("ls.op", b"rules")], content) for p, at in enumerate(revision.offsets)}


def test_a_family_is_added_and_another_one_changed(registry, table):
    produce(registry.bootstrap, table.topic, [(b"k", b"plain")] * 4, partition=1)
    altered = ddl.alter(
        registry, table.name, add_families={"notes": NOTES}, families={"content": {"versions": 5}}
    ).table  # fmt: skip
    now = {"content": {"versions": 5}, "anchor": {}, "notes": NOTES}
    assert altered == registry.table(table.name)
    assert altered.families == now
    first, second = altered.rules
    assert first == RulesRevision(0, FAMILIES)
    assert second == RulesRevision(second.revision, now, (0, 4, 0))
    assert table.revision < second.revision < altered.revision, "named by the offset of the definition that began it"
    assert log_of(registry, table) == wanted(table, second)


def test_what_holds_already_changes_nothing(registry, table):
    first = ddl.alter(registry, table.name, add_families={"notes": NOTES})
    again = ddl.alter(registry, table.name, add_families={"notes": NOTES, "anchor": {}}, families={"content": {}})
    assert (again.table, again.revision) == (first.table, first.revision)
    assert bounds(registry.admin, table.topic, [0])[0].end == 1


def test_a_second_change_is_another_revision(registry, table):
    ddl.alter(registry, table.name, add_families=["one"])
    altered = ddl.alter(registry, table.name, families={"one": {"versions": 2, "ttl_ms": 5}}).table
    altered = ddl.alter(registry, table.name, families={"one": {"ttl_ms": None}}, description="x").table
    assert [one.offsets for one in altered.rules] == [(), (0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert [one.families.get("one") for one in altered.rules] == [
        None,
        {},
        {"versions": 2, "ttl_ms": 5},
        {"versions": 2},
    ]
    assert (altered.families["one"], altered.description) == ({"versions": 2}, "x")


class Killed(Exception):
    """The process ends here."""


def killed(*_, **__):
    raise Killed


def kill_before_records(monkeypatch):
    monkeypatch.setattr(rules, "append_control", killed)


def kill_after_some_records(monkeypatch):
    def append_some(bootstrap, table, op, payload, partitions):
        append_control(bootstrap, table, op, payload, partitions[:2])
        raise Killed

    monkeypatch.setattr(rules, "append_control", append_some)


def kill_after_all_records(monkeypatch):
    steps = itertools.count()
    write = Registry.write_over
    monkeypatch.setattr(Registry, "write_over", lambda *a: killed() if next(steps) else write(*a))


CRASHES = [
    (kill_before_records, "the same again"), (kill_after_some_records, "the same again"),
    (kill_after_all_records, "the same again"), (kill_after_some_records, "another"),
    (kill_before_records, "a description"),
]  # fmt: skip


@pytest.mark.parametrize(("crash", "end"), CRASHES, ids=lambda one: getattr(one, "__name__", one))
def test_a_change_that_was_cut_short_is_ended_by_the_next(registry, table, monkeypatch, crash, end):
    with monkeypatch.context() as patched:
        crash(patched)
        with pytest.raises(Killed):
            ddl.alter(registry, table.name, add_families={"notes": NOTES})
    between = registry.table(table.name)
    assert between.families == FAMILIES, "clients do not know it before every partition does"
    assert between.rules[1].families == FAMILIES | {"notes": NOTES}
    assert not between.rules[1].is_complete
    produce(registry.bootstrap, table.topic, [(None, b"\x80")], partition=1, headers=[("ls.op", b"barrier")])
    asked = {"the same again": {"add_families": {"notes": NOTES}}, "another": {"add_families": ["more"]}}
    altered = ddl.alter(registry, table.name, **asked.get(end, {"description": "x"})).table
    assert altered.families == FAMILIES | {"notes": NOTES} | ({"more": {}} if end == "another" else {})
    late = 0 if crash is kill_before_records else 1
    assert altered.rules[1] == RulesRevision(between.revision, between.rules[1].families, (0, 1 - late, 0))
    assert len(altered.rules) == (3 if end == "another" else 2)
    times = [content["revision"] for _, content in log_of(registry, table).values() if "revision" in content]
    assert times.count(between.revision) == 3, "once in each partition"


def test_of_two_changes_at_once_none_is_lost(registry, table, monkeypatch):
    """The other one's definition comes in between our look at it and our write of it, which replaces it unseen."""
    append = append_control

    def other(*args):  # before our first record, theirs is begun, from what they saw before our definition
        monkeypatch.setattr(rules, "append_control", append)
        theirs = rules.begun(table, FAMILIES | {"theirs": {}}, dict.fromkeys(range(3), 0))
        registry.write_over(theirs)
        return append(*args)

    monkeypatch.setattr(rules, "append_control", other)
    altered = ddl.alter(registry, table.name, add_families=["ours"]).table
    found = {one.revision: one for one in altered.rules}
    assert len(found) >= 3
    assert all(one.is_complete for one in altered.rules)
    assert "ours" in altered.families
    after = ddl.alter(registry, table.name, add_families=["theirs"]).table
    assert after.families == FAMILIES | {"ours": {}, "theirs": {}}
    assert [content["revision"] for _, content in log_of(registry, table).values()].count(after.rules[-1].revision) == 3


def test_a_revision_that_no_definition_has_any_more_is_known_by_its_record(registry, table, monkeypatch):
    """Whoever began it was killed behind its records, and somebody who knew nothing of it has replaced it."""
    with monkeypatch.context() as patched:
        kill_after_all_records(patched)
        with pytest.raises(Killed):
            ddl.alter(registry, table.name, add_families=["lost"])
    lost = registry.table(table.name).rules[1]
    with monkeypatch.context() as patched:
        kill_before_records(patched)
        other = replace(rules.begun(table, FAMILIES | {"other": {}}, dict.fromkeys(range(3), 0)))
        registry.write_over(other)
    altered = ddl.alter(registry, table.name, add_families=["other"]).table
    assert lost.revision in [one.revision for one in altered.rules]
    assert all(one.is_complete for one in altered.rules)
    assert altered.families == FAMILIES | {"other": {}}


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"add_families": {"content": {"versions": 9}}}, BadDefinition, "--family content:versions=N"),
        ({"add_families": ["a b"]}, BadDefinition, "not a column family"),
        ({"add_families": {"n": {"versions": 0}}}, BadDefinition, "versions is 1 to"),
        ({"add_families": {"n": {"size": 1}}}, BadDefinition, "ttl_ms=N"),
        ({"add_families": {"n": 7}}, BadDefinition, "such as"),
        ({"families": {"none": {"versions": 2}}}, BadDefinition, "--add-family adds one"),
        ({"families": {"content": {"ttl_ms": 0}}}, BadDefinition, "its TTL is"),
        ({"families": {"content": None}}, BadDefinition, "stays"),
        ({"families": {"content": "versions"}}, BadDefinition, "such as"),
    ],
)
def test_what_cannot_be_changes_nothing(registry, table, asked, error, says):
    with pytest.raises(error, match=says):
        ddl.alter(registry, table.name, **asked)
    assert registry.table(table.name) == table


def test_only_tables_that_can_be_altered_are(registry, table):
    plain = ddl.create(registry, f"{table.name}-kv", partitions=1).table
    with pytest.raises(NotWide):
        ddl.alter(registry, plain.name, add_families=["n"])
    with pytest.raises(NoSuchTable):
        ddl.alter(registry, f"{table.name}-none", add_families=["n"])
    stays = ddl.create(registry, f"{table.name}-stays", partitions=1, wide=True, families=["f"]).table
    with pytest.raises(BadDefinition, match="make it with --expiring"):
        ddl.alter(registry, stays.name, add_families={"n": NOTES})
    ddl.alter(registry, stays.name, allow_control_records=False)
    with pytest.raises(UsageError, match="takes no control records"):
        ddl.alter(registry, stays.name, add_families=["n"])


def test_a_table_that_is_dropped_at_the_same_time_stays_dropped(registry, table, monkeypatch):
    with monkeypatch.context() as patched:
        write = Registry.write_over

        def dropped_before(self, ours):
            patched.setattr(Registry, "write_over", write)
            ddl.drop(registry, table.name)
            return write(self, ours)

        patched.setattr(Registry, "write_over", dropped_before)
        with pytest.raises(NoSuchTable):
            ddl.alter(registry, table.name, add_families=["n"])
    with pytest.raises(NoSuchTable):
        registry.table(table.name)


ALTERED = Table(
    "pages", "pages", "0af1" * 8, 2, conditional=True, wide=True, families={"content": {"versions": 3}},
    rules=(
        RulesRevision(0, {"content": {}}),
        RulesRevision(12, {"content": {"versions": 3}}, (3, 40)),
        RulesRevision(15, {"content": {"versions": 3}, "notes": {}}, (None, 44), (9, 41)),
    ), revision=15,
)  # fmt: skip


def test_the_record_of_an_altered_table_never_changes():
    raw = ALTERED.to_json()
    assert raw == (
        b'{"adopted":false,"allow_control_records":true,"conditional":true,"description":"","dropped":false,'
        b'"epoch":"0af10af10af10af10af10af10af10af1","families":{"content":{"versions":3}},"format":1,'
        b'"former_epochs":[],"max_value_bytes":1000000,"name":"pages","partitions":2,'
        b'"rules":[{"families":{"content":{}},"revision":0},'
        b'{"families":{"content":{"versions":3}},"offsets":[3,40],"revision":12},'
        b'{"families":{"content":{"versions":3},"notes":{}},"offsets":[null,44],"revision":15,"since":[9,41]}],'
        b'"skips":{},"topic":"pages","wide":true}'
    )
    assert Table.from_json(raw, 15) == ALTERED
    begun = replace(ALTERED, rules=(*ALTERED.rules[:2], replace(ALTERED.rules[2], revision=-1)))
    assert Table.from_json(begun.to_json(), 15) == ALTERED, "its own offset is that of a revision which it begins"


def test_a_repair_has_the_record_that_it_gives_up_appended_again():
    whole = replace(ALTERED, rules=(ALTERED.rules[0], replace(ALTERED.rules[2], offsets=(7, 44), since=())))
    assert whole.with_skip(0, 0, 6).rules == whole.rules
    assert whole.with_skip(0, 7, 7).rules[1] == replace(whole.rules[1], offsets=(None, 44), since=(7, 44))
    assert whole.with_loss(1, [(44, 2)]).rules[1] == replace(whole.rules[1], offsets=(7, None), since=(7, 44))


def test_as_many_revisions_as_a_definition_holds_and_no_more():
    many = tuple(RulesRevision(n, {"content": {"versions": 3}}, (n, n) if n else ()) for n in range(64))
    with pytest.raises(BadDefinition, match="64 revisions"):
        rules.begun(replace(ALTERED, rules=many), {}, {0: 0, 1: 0})


def test_who_is_always_replaced_says_so(table, registry, monkeypatch):
    monkeypatch.setattr(Registry, "write_over", lambda _, ours: (ours, replace(table, revision=ours.revision)))
    with pytest.raises(Conflict, match="run it again"):
        ddl.alter(registry, table.name, add_families=["n"])


def test_without_kafka_it_is_a_retriable_error(table, registry, monkeypatch):
    def away(*_):
        raise LogUnreachable("Kafka is away")

    monkeypatch.setattr(rules, "append_control", away)
    with pytest.raises(LogUnreachable):
        ddl.alter(registry, table.name, add_families=["n"])
    monkeypatch.undo()
    assert ddl.alter(registry, table.name, add_families=["n"]).table.families == {**FAMILIES, "n": {}}
