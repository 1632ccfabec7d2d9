"""Puts that the row as it stands refuses: told by asyncio, HTTP and commands, and listed where nobody asks."""

import asyncio
import uuid

import httpx
import orjson
import pytest
from support_wait import until

from logstore import AsyncStore, BatchFailed, InvalidWrite, MemoryStore, RowEdit, Store, Unknown, UsageError
from logstore.client.write.level import raising_as_put
from logstore.model.errors import NotApplied
from logstore.model.hard_rows.changes.siblings import MAX_SIBLINGS
from logstore.model.position import Position

MUCH = b"x" * 300_000  # more than a full row has room for
DEADLINE = {"LS-Deadline": "30000"}


@pytest.fixture(scope="module")
def wide(dev):
    """A wide table with a row that has no room for `MUCH`."""
    name = f"wide-{uuid.uuid4().hex[:12]}"
    dev("table", "create", name, "--partitions", "1", "--wide", "--family", "f")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        for n in range(4):
            assert store.edit(name, "full", RowEdit().set("f", str(n), bytes(999_000))).applied
    return name


@pytest.fixture(scope="module")
def carts(dev):
    """A table of siblings with a row that has as many as it can."""
    name = f"carts-{uuid.uuid4().hex[:12]}"
    dev("table", "create", name, "--partitions", "1", "--siblings")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store, store.pipeline(name) as pipe:
        for n in range(MAX_SIBLINGS):
            pipe.put("full", str(n), seen=-1)
    return name


def test_asyncio_is_told_by_every_way_to_write(dev, wide, carts):
    async def write():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            with pytest.raises(InvalidWrite, match="row-too-wide") as alone:
                await store.put(wide, "full", MUCH)
            outcome = await store.outcome_of(wide, "full", alone.value.position)
            assert (outcome.outcome, outcome.reason) == ("invalid", "row-too-wide")
            with pytest.raises(InvalidWrite, match="too-many-siblings"):
                await store.put(carts, "full", "one more", seen=-1)
            with pytest.raises(UsageError, match="changed nothing"):
                await store.delete(carts, "full", seen=1_000_000)
            with pytest.raises(BatchFailed) as several:
                await store.put_many(wide, [("a", "1"), ("full", MUCH)])
            assert list(several.value.failed_places) == [range(1, 2)]
            pipe = await store.pipeline(wide).__aenter__()
            good, bad = await pipe.put("b", "2"), await pipe.put("full", MUCH)
            with pytest.raises(InvalidWrite):
                await pipe.flush()
            with pytest.raises(InvalidWrite):
                await bad
            row = await store.get_row(wide, "b", after=await good)
            assert row["", b""] == b"2"
            unasked = await store.put(wide, "full", MUCH, level="all")
            assert unasked.offset > alone.value.position.offset

    asyncio.run(write())


def test_http_answers_409_and_what_is_applied_says_so(dev, wide):
    with httpx.Client(base_url=dev.facts["http"], timeout=60, trust_env=False, headers=DEADLINE) as http:
        refused = http.put(f"/v1/tables/{wide}/rows/full", content=MUCH)
        said = refused.json()
        assert (refused.status_code, said["type"]) == (409, "urn:logstore:invalid-write")
        assert (said["outcome"], said["reason"]) == ("invalid", "row-too-wide")
        assert said["id"]
        taken = http.put(f"/v1/tables/{wide}/rows/http", content=b"1")
        assert (taken.status_code, taken.json()["outcome"]) == (200, "applied")
        rows = [{"key": "http", "value": "2"}, {"key": "full", "value": MUCH.decode()}, {"key": "http", "op": "delete"}]
        answer = http.post(
            f"/v1/tables/{wide}/rows:write", content=b"\n".join(map(orjson.dumps, rows)),
            headers={"content-type": "application/x-ndjson"},
        )  # fmt: skip
        results = answer.json()["results"]
        assert answer.status_code == 207
        assert [(one["status"], one["outcome"]) for one in results] == [
            (200, "applied"), (409, "invalid"), (200, "acknowledged"),
        ]  # fmt: skip


def test_commands_fail_and_what_nobody_asked_for_is_in_the_report(dev, wide, carts, tmp_path):
    much = tmp_path / "much"
    much.write_bytes(MUCH)
    refused = dev("put", wide, "full", "--file", str(much), status=1)
    assert b"row-too-wide" in refused.stderr
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(
        b"\n".join(orjson.dumps({"key": key, "value": value}) for key, value in [("l", "1"), ("full", MUCH.decode())])
    )
    loaded = dev("load", wide, str(rows), status=1)
    assert b"1 changed nothing" in loaded.stderr
    with httpx.Client(base_url=dev.facts["http"], timeout=60, trust_env=False) as http:

        def listed(table):
            return http.get(f"/v1/tables/{table}/quarantine").json()

        before = listed(wide)["counts"].get("row-too-wide", 0)  # of others in this file that did not ask
        position = dev.json("put", wide, "full", "--file", str(much), "--level", "all")
        until("a reader has it", lambda: listed(wide)["counts"].get("row-too-wide", 0) > before)
        assert {"partition": 0, "offset": position["offset"], "reason": "row-too-wide"} in listed(wide)["records"]
        figure = f'logstore_quarantined_total{{partition="0",reason="row-too-wide",table="{wide}"}}'
        until("it is a figure", lambda: figure in http.get("/metrics").text)
        dev("put", carts, "full", "one more", "--seen", "-1", "--level", "all")
        until("a reader has it", lambda: listed(carts)["counts"].get("too-many-siblings", 0) >= 1)


def test_what_is_in_the_log_and_not_decided_is_not_applied_where_that_was_asked_for():
    position = Position.of_write("ab" * 16, 0, 7)
    for level, kind in (("applied", NotApplied), (None, Unknown), ("all", Unknown)):
        with pytest.raises(kind) as caught, raising_as_put(level, None):
            raise Unknown("no outcome", id=b"i" * 16, position=position)
        assert caught.value.position == position
    with pytest.raises(Unknown), raising_as_put("applied", None):
        raise Unknown("perhaps in the log")


def test_in_memory_a_refused_write_of_a_pipeline_fails_as_everywhere():
    store = MemoryStore()
    store.create("carts", siblings=True, partitions=1)
    pipe = store.pipeline("carts")
    written = [pipe.put("full", str(n), seen=-1) for n in range(MAX_SIBLINGS + 2)]
    assert [one.exception() is None for one in written] == [True] * MAX_SIBLINGS + [False] * 2
    with pytest.raises(InvalidWrite):
        written[-1].result()
    with pytest.raises(BatchFailed, match="of 34 writes 2 changed nothing"):
        pipe.flush()
    pipe.flush()
