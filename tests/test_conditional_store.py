"""Conditional writes on a real store: its outcomes are those of the store in memory, for asyncio and commands alike."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_contract import DEADLINE_MS

from logstore import AsyncStore, MemoryStore, NotConditional, Store, Unknown, UsageError, codecs
from logstore.cli.main import main
from logstore.client.admin.admin import Admin
from logstore.client.conditional.record import (
    Expected,
    append_record,
    cas_record,
    delete_record,
    incr_record,
    put_record,
)
from logstore.model.errors import BadDefinition

LARGEST = (1 << 63) - 1
KEYS, VALUES = st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "1", "12345678", "123456789"])
EXPECTED = st.one_of(
    st.just(Expected(absent=True)), st.just(Expected(present=True)), VALUES.map(lambda value: Expected(value_is=value)),
    st.sampled_from([0, 1]).map(lambda off: Expected(version=off)),  # off the row's own version
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES), st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("put_if"), KEYS, VALUES, EXPECTED), st.tuples(st.just("delete_if"), KEYS, EXPECTED),
    st.tuples(st.just("cas"), KEYS, st.none() | VALUES, st.none() | VALUES),
    st.tuples(st.just("incr"), KEYS, st.sampled_from([1, -5, LARGEST])),
    st.tuples(st.just("append"), KEYS, VALUES), st.tuples(st.just("again"), st.integers(0, 7)),
)  # fmt: skip
TABLE = "conditional-both"


@pytest.fixture(scope="module")
def both(dev):
    """A table with one history in a real store and in one in memory."""
    dev("table", "create", TABLE, "--partitions", "2", "--max-value-bytes", "20", "--conditional")
    memory = MemoryStore()
    memory.create(TABLE, partitions=2, max_value_bytes=20, conditional=True)
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        yield store, memory


def record_of(step, memory):
    """The record of a step; an expected version is off that of the row."""
    kind, key, *rest = step
    if kind in ("put_if", "delete_if") and rest[-1].version is not None:
        row = memory.get(TABLE, key)
        rest[-1] = Expected(version=(row.version if row else 7) + rest[-1].version)
    makers = {
        "put_if": put_record, "delete_if": delete_record, "cas": cas_record, "incr": incr_record,
        "append": append_record,
    }  # fmt: skip
    return makers[kind](key, *rest, None)


@given(st.lists(STEPS, min_size=1, max_size=8))
@settings(max_examples=12)
def test_what_is_decided_is_the_same_in_memory(both, steps):
    sent, last = [], None
    for step in steps:
        if step[0] == "again":
            if not sent:
                continue
            record = sent[step[1] % len(sent)]
        elif step[0] in ("put", "delete"):
            positions = [getattr(store, step[0])(TABLE, *step[1:]) for store in both]
            assert positions[0].offset == positions[1].offset
            last = positions[0] if last is None else last | positions[0]
            continue
        else:
            record = record_of(step, both[1])
            sent.append(record)
        outcomes = [store.decide(TABLE, record) for store in both]
        assert outcomes[0]._replace(token="") == outcomes[1]._replace(token="")
        last = outcomes[0].position if last is None else last | outcomes[0].position
        by_id = [store.outcome_of(TABLE, record.key, record.id, deadline_ms=DEADLINE_MS) for store in both]
        assert by_id[0]._replace(token="") == by_id[1]._replace(token="")
    if last is not None:
        for key in "abc":
            here, there = both[0].get(TABLE, key, after=last, deadline_ms=DEADLINE_MS), both[1].get(TABLE, key)
            assert (here and here[:4]) == (there and there[:4])


def test_many_tasks_write_conditionally_in_one_loop(dev, users):
    name = "conditional-async"
    dev("table", "create", name, "--partitions", "2", "--conditional")

    async def run():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            counted = await asyncio.gather(*(store.incr(name, "hits", 2) for _ in range(20)))
            assert {one.outcome for one in counted} == {"applied"}
            last = await store.append(name, "log", "x")
            hits = store.table(name, codecs.counter)
            token = max(counted, key=lambda one: one.offset).token
            assert (await hits.get("hits", after=token, deadline_ms=DEADLINE_MS)).value == 40
            session = store.session(last.token)
            assert await session.cas(name, "log", "x", "xy")
            assert (await session.get(name, "log", deadline_ms=DEADLINE_MS)).value == b"xy"
            assert not await hits.cas("hits", 41, 42)
            assert (await hits.put_if("hits", 0, value_is=40)).applied
            refused = await session.put_if(name, "log", "z", absent=True)
            assert await store.outcome_of(name, "log", refused.id.hex(), deadline_ms=DEADLINE_MS) is not None
            assert await session.outcome_of(name, "log", b"n" * 16, deadline_ms=DEADLINE_MS) is None
            assert (await session.delete_if(name, "log", value_is="xy")).applied
            for wrong, call in ((NotConditional, store.incr(users, "k")), (UsageError, store.put_if(name, "k", "v"))):
                with pytest.raises(wrong):
                    await call

    asyncio.run(run())


class Deaf(Store):
    """A client that hears none of the first acknowledgements of its conditional writes, which are in the log."""

    deaf = 0

    def _append(self, *write):
        position = super()._append(*write)
        self.deaf -= 1
        if self.deaf >= 0:
            raise Unknown("no acknowledgement was heard")
        return position


@pytest.fixture(scope="module")
def counters(dev):
    dev("table", "create", "conditional-lost", "--partitions", "1", "--conditional")
    return "conditional-lost"


def count(store, table, key, after):
    return store.table(table, codecs.counter).get(key, after=after, deadline_ms=DEADLINE_MS).value


def test_a_write_whose_acknowledgements_are_lost_has_effect_once(dev, counters):
    with Deaf(dev.facts["bootstrap"], dev.facts["http"]) as store:
        store.deaf = 3
        outcome = store.incr(counters, "lost", 5)
        assert (outcome.outcome, outcome.first_outcome, outcome.applied) == ("duplicate", "applied", True)
        assert outcome.offset == outcome.first + 3
        assert count(store, counters, "lost", outcome.token) == 5


def test_a_write_that_is_unknown_at_the_deadline_is_resolved_by_its_id(dev, counters):
    with Deaf(dev.facts["bootstrap"], dev.facts["http"], delivery_timeout_s=1) as store:
        store.deaf = 1_000_000
        with pytest.raises(Unknown) as raised:
            store.incr(counters, "deaf", 5)
        found = store.outcome_of(counters, "deaf", raised.value.id, deadline_ms=DEADLINE_MS)
        assert found.outcome == "applied"
        assert count(store, counters, "deaf", found.token) == 5


def test_an_outcome_that_no_node_tells_is_unknown_with_the_place_of_its_record(dev, counters):
    with Store(dev.facts["bootstrap"], "http://127.0.0.1:1", delivery_timeout_s=2) as store:
        with pytest.raises(Unknown, match="is in the log") as raised:
            store.append(counters, "log", "one")
        session = store.session()
        with pytest.raises(Unknown):
            session.append(counters, "log", "two")
    error = raised.value
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        found = store.outcome_of(counters, "log", error.id, after=error.position, deadline_ms=DEADLINE_MS)
        assert (found.outcome, found.offset) == ("applied", error.position.offset)
        row = store.get(counters, "log", after=session.token, deadline_ms=DEADLINE_MS)
        assert row.value == b"onetwo", "a session knows where its writes are"


def test_no_conditional_record_goes_to_a_plain_table(dev, counters, users):
    """Though the definition that a client knows is another one's: there it would stop the partition."""
    record = incr_record("hits", 1, None)
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        store.check_conditional = lambda *_: None
        with pytest.raises(NotConditional):
            store.decide(users, record)
        store.put(users, "after", "v")
        assert store.get(users, "after", consistency="latest", deadline_ms=DEADLINE_MS).value == b"v"


NAMES = map("conditional-cli-{}".format, itertools.count())


@pytest.fixture
def table(dev):
    name = next(NAMES)
    dev("table", "create", name, "--partitions", "1", "--conditional", "--dedup-window", "90m", "--dedup-records", "9")
    return name


def test_commands_write_under_conditions(dev, table):
    made = dev.json("put", table, "ada", "1", "--if", "absent")
    assert (made["outcome"], made["applied"], made["version"], len(made["id"])) == ("applied", True, 0, 32)
    refused = dev("put", table, "ada", "2", "--if", "absent", status=1)
    assert (refused.stdout, refused.stderr) == (
        b"", b"logstore: rejected, and nothing has changed: the row has version 0\n"
    )  # fmt: skip
    assert dev("put", table, "ada", "2", "--if", "version:0").stdout == b"partition 0, offset 2\n"
    assert dev("delete", table, "ada", "--if", "value:3", status=1).stdout == b""
    assert dev.json("delete", table, "ada", "--if", "value:2")["offset"] == 4
    gone = dev("put", table, "ada", "3", "--if", "present", status=1)
    assert b"there is no such row" in gone.stderr
    told = dev.json("outcome", table, "ada", made["id"])
    assert {**told, "token": ""} == {**made, "token": ""}
    assert b"no write of row 'bob'" in dev("outcome", table, "bob", made["id"], status=1).stderr


def test_commands_count_and_append(dev, table):
    assert dev("incr", table, "hits").stdout == b"partition 0, offset 0\n"
    token = dev.json("incr", table, "hits", "-43")["token"]
    assert dev("get", table, "hits", "--counter", "--token", token).stdout == b"-42"
    dev("append", table, "log", "one ")
    token = dev.json("append", table, "log", "two")["token"]
    assert dev("get", table, "log", "--token", token).stdout == b"one two"
    assert b"is no counter" in dev("get", table, "log", "--counter", status=1).stderr
    invalid = dev("incr", table, "log", status=1)
    assert invalid.stderr == b"logstore: invalid, and nothing has changed: wrong-length\n"
    assert dev.json("incr", table, "hits", str(LARGEST))["applied"]
    assert dev.json("incr", table, "hits", str(LARGEST), status=1)["reason"] == "overflow"


def test_a_definition_shows_what_it_remembers(dev, table, users):
    shown = dev.json("table", "describe", table)
    assert (shown["conditional"], shown["dedup_window_ms"], shown["dedup_records"]) == (True, 5_400_000, 9)
    plain = dev.json("table", "describe", users)
    assert (plain["conditional"], "dedup_records" in plain) == (False, False)


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["put", "users", "k", "v", "--if", "absent"], 1, "table create NAME --conditional"),
        (["incr", "users", "k"], 1, "takes no conditions"),
        (["put", "users", "k", "v", "--if", "newer"], 2, "--if wants absent, present, version:OFFSET or value:VALUE"),
        (["put", "users", "k", "v", "--if", "version:x"], 2, "--if wants"),
        (["delete", "users", "k", "--if", "absent:1"], 2, "--if wants"),
        (["incr", "users", "k", "1.5"], 2, "not a valid integer"),
        (["outcome", "users", "k", "xyz"], 2, "the id of a write is 16 bytes"),
        (["table", "create", "t1", "--dedup-window", "7d"], 2, "is for conditional tables"),
        (["table", "create", "t1", "--conditional", "--dedup-window", "7w"], 2, "a time such as"),
        (["table", "create", "t1", "--conditional", "--dedup-records", "0"], 2, "dedup_records is 1 to"),
        (["table", "create", "t1", "--conditional", "--topic", "t0"], 2, "a topic of its own"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_what_to_do(dev, users, argv, status, says, monkeypatch, capfd):
    monkeypatch.setenv("LOGSTORE_BOOTSTRAP", dev.facts["bootstrap"])
    monkeypatch.setenv("LOGSTORE_URL", dev.facts["http"])
    with pytest.raises(SystemExit) as ended:
        main(argv)
    told = capfd.readouterr().err
    assert (ended.value.code, told.count("\n"), says in told) == (status, 1, True), told


def test_an_admin_makes_conditional_tables(dev):
    with Admin(dev.facts["bootstrap"]) as admin:
        table = admin.create("conditional-admin", partitions=1, conditional=True, dedup_window_ms=1_000)
        assert (table.conditional, table.dedup_window_ms, table.dedup_records) == (True, 1_000, 4_000_000)
        assert admin.describe("conditional-admin").conditional
        with pytest.raises(BadDefinition):
            admin.create("conditional-none", dedup_records=5)
        with pytest.raises(UsageError):
            admin.create("conditional-none", conditional=1)
