"""Conditional writes on a real store: its outcomes are those of the store in memory, for asyncio and commands alike."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_contract import DEADLINE_MS
from support_http_node import running_node

from logstore import AsyncStore, MemoryStore, NotConditional, Store, Unknown, UsageError, codecs
from logstore.cli.main import run
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


def test_a_pipeline_of_a_loop_decides_without_waiting_for_each(dev, users):
    name = "conditional-async-pipeline"
    dev("table", "create", name, "--partitions", "2", "--conditional")

    async def run():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            async with store.pipeline(name) as pipe:
                added = [await pipe.incr(f"n{i % 3}") for i in range(300)]
                made, refused = [await pipe.put_if("ada", value, absent=True) for value in ("1", "2")]
                assert (await made).applied
                await pipe.flush(60)
                assert all(one.done() for one in added)
                assert {(await one).outcome for one in added} == {"applied"}
                assert (await refused)[:2] == ("rejected", (await made).offset)
            hits = store.table(name, codecs.counter)
            for i in range(3):
                last = added[297 + i].result()
                assert (await hits.get(f"n{i}", after=last.token, deadline_ms=DEADLINE_MS)).value == 100
            async with store.pipeline(users) as pipe:
                with pytest.raises(NotConditional):
                    await pipe.incr("k")

    asyncio.run(run())


def test_many_threads_share_the_requests_for_their_outcomes(dev):
    name = "conditional-threads"
    dev("table", "create", name, "--partitions", "2", "--conditional")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store, ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda i: store.incr(name, f"n{i % 2}", i), range(200)))
        assert {one.outcome for one in outcomes} == {"applied"}
        assert len({(one.partition, one.offset) for one in outcomes}) == len({one.id for one in outcomes}) == 200
        for i in range(2):
            last = max(outcomes[i::2], key=lambda one: one.offset)
            assert count(store, name, f"n{i}", last.token) == sum(range(i, 200, 2))


class Deaf(Store):
    """A client that hears none of the first acknowledgements of its conditional writes, which are in the log."""

    deaf, delivery_timeout_s = 0, 60.0

    def _append(self, table, record, timeout_s):
        position = super()._append(table, record, 60.0)
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
    with Deaf(dev.facts["bootstrap"], dev.facts["http"]) as store:
        store.deaf, store.delivery_timeout_s = 1_000_000, 0.5
        with pytest.raises(Unknown) as raised:
            store.incr(counters, "deaf", 5)
        found = store.outcome_of(counters, "deaf", raised.value.id, deadline_ms=DEADLINE_MS)
        assert found.outcome == "applied"
        assert count(store, counters, "deaf", found.token) == 5


def test_an_outcome_that_no_node_tells_is_unknown_with_the_place_of_its_record(dev, counters):
    with running_node() as node, Store(dev.facts["bootstrap"], node.url) as store:
        node.script += [(500, "internal")] * 2
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


def test_no_conditional_record_goes_to_a_plain_table(dev, users, monkeypatch):
    """Though the definition that a client knows is another one's: there it would stop the partition."""
    record = incr_record("hits", 1, None)
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        monkeypatch.setattr(store, "check_takes", lambda *_: None)
        with pytest.raises(NotConditional):
            store.decide(users, record)
        store.put(users, "after", "v")
        assert store.get(users, "after", consistency="latest", deadline_ms=DEADLINE_MS).value == b"v"


class Commands:
    """The command, called in this process."""

    def __init__(self, capfd):
        self.capfd = capfd

    def __call__(self, *argv, status=0):
        assert run(list(argv)) == status, self.capfd.readouterr().err
        return self.capfd.readouterr()

    def json(self, *argv, status=0):
        return orjson.loads(self(*argv, "--json", status=status).out)


@pytest.fixture
def command(dev, monkeypatch, capfd):
    for name, value in {"BOOTSTRAP": dev.facts["bootstrap"], "URL": dev.facts["http"], "DEADLINE_MS": "20000"}.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", value)
    return Commands(capfd)


NAMES = map("conditional-cli-{}".format, itertools.count())


@pytest.fixture
def table(command):
    name = next(NAMES)
    window = "--dedup-window", "90m", "--dedup-records", "9"
    command("table", "create", name, "--partitions", "1", "--conditional", *window)
    return name


def test_commands_write_under_conditions(command, table):
    made = command.json("put", table, "ada", "1", "--if", "absent")
    assert (made["outcome"], made["applied"], made["version"], len(made["id"])) == ("applied", True, 0, 32)
    refused = command("put", table, "ada", "2", "--if", "absent", status=1)
    assert refused == ("", "logstore: rejected, and nothing has changed: the row has version 0\n")
    assert command("put", table, "ada", "2", "--if", "version:0").out == "partition 0, offset 2\n"
    assert command("delete", table, "ada", "--if", "value:3", status=1).out == ""
    assert command.json("delete", table, "ada", "--if", "value:2")["offset"] == 4
    assert "there is no such row" in command("put", table, "ada", "3", "--if", "present", status=1).err
    found = command.json("outcome", table, "ada", made["id"])
    assert {**found, "token": ""} == {**made, "token": ""}
    assert "no write of row 'bob'" in command("outcome", table, "bob", made["id"], status=1).err


def test_commands_count_and_append(command, table):
    assert command("incr", table, "hits") == ("1\n", "")
    counted = command.json("incr", table, "hits", "-43")
    assert (counted["value"], counted["value_version"], counted["offset"]) == (-42, 1, 1)
    token = counted["token"]
    assert command("get", table, "hits", "--counter", "--token", token).out == "-42"
    assert command.json("get", table, "hits", "--counter", "--token", token)["value"] == -42
    command("append", table, "log", "one ")
    token = command.json("append", table, "log", "two")["token"]
    assert command("get", table, "log", "--token", token).out == "one two"
    assert "is no counter" in command("get", table, "log", "--counter", status=1).err
    invalid = command("incr", table, "log", status=1)
    assert invalid.err == "logstore: invalid, and nothing has changed: wrong-length\n"
    assert command.json("incr", table, "hits", str(LARGEST))["applied"]
    assert command.json("incr", table, "hits", str(LARGEST), status=1)["reason"] == "overflow"


def test_an_increment_says_when_its_number_holds_more_and_when_it_cannot_be_read(command, table, monkeypatch):
    incr = Store.incr

    def meanwhile(act):
        def incr_and_more(store, *args):
            outcome = incr(store, *args)
            act(store)
            return outcome

        monkeypatch.setattr(Store, "incr", incr_and_more)

    meanwhile(lambda store: incr(store, table, "busy", 10))
    more = "logstore: others have changed it since: the number holds that, too\n"
    assert command("incr", table, "busy") == ("11\n", more)
    found = command.json("incr", table, "busy")
    assert (found["value"], found["value_version"] > found["version"]) == (22, True)
    meanwhile(lambda store: store.delete(table, "busy", level="applied"))
    gone = command("incr", table, "busy")
    assert gone.out == "partition 0, offset 4\n"
    assert gone.err == "logstore: counted; the number could not be read: the row has been deleted since\n"
    meanwhile(lambda store: store.put(table, "busy", "text", level="applied"))
    found = command.json("incr", table, "busy")
    assert (found["applied"], found["value"]) == (True, None)


def test_counters_of_wide_rows_are_numbers(command):
    command("table", "create", "counted-cells", "--partitions", "1", "--wide", "--family", "n")
    assert command("incr", "counted-cells", "k", "-5").out == "-5\n"
    edited = command.json("edit", "counted-cells", "k", "--incr", "n:hits=7", "--set", "n:text=x")
    named = "--columns", "n:hits,:", "--token", edited["token"], "--counter"
    assert command("get", "counted-cells", "k", *named).out == ":\t0\t-5\nn:hits\t1\t7\n"
    assert [cell["value"] for cell in command.json("get", "counted-cells", "k", *named)["cells"]] == [-5, 7]
    assert "cell n:text is no counter" in command("get", "counted-cells", "k", "--counter", status=1).err


def test_a_definition_shows_what_it_remembers(command, table, users):
    shown = command.json("table", "describe", table)
    assert (shown["conditional"], shown["dedup_window_ms"], shown["dedup_records"]) == (True, 5_400_000, 9)
    plain = command.json("table", "describe", users)
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
@pytest.mark.usefixtures("users")
def test_what_cannot_be_is_one_line_that_says_what_to_do(command, argv, status, says):
    err = command(*argv, status=status).err
    assert (err.count("\n"), says in err) == (1, True), err


def test_an_admin_makes_conditional_tables(dev):
    with Admin(dev.facts["bootstrap"]) as admin:
        table = admin.create("conditional-admin", partitions=1, conditional=True, dedup_window_ms=1_000)
        assert (table.conditional, table.dedup_window_ms, table.dedup_records) == (True, 1_000, 4_000_000)
        assert admin.describe("conditional-admin").conditional
        with pytest.raises(BadDefinition):
            admin.create("conditional-none", dedup_records=5)
        with pytest.raises(UsageError):
            admin.create("conditional-none", conditional=1)
