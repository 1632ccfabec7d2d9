"""Histories of rows whose mutations were decided: many outcomes are asked for at once, edits of several rows shown."""

import asyncio
import secrets

import msgpack
import orjson
import pytest
from support_jobs import context, make_table
from support_log import produce

from batch.jobs.archive import archive
from logstore import AsyncStore, MemoryStore, RowEdit, Store
from logstore.client.history.asked_together import MOST_ASKED, asked_together
from logstore.client.history.decided import AskedOutcomes
from logstore.client.history.key_history import Selection
from logstore.client.history.opening import ArchiveChoice, open_history
from logstore.client.history.span import KeyPlace
from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import ServerUnreachable
from logstore.model.history.carried import names_row
from logstore.model.history.judged import JudgedRecord
from logstore.model.history.logged import LoggedRecord
from logstore.model.table import Table

PLACE = KeyPlace("", Table("t", "t", "e" * 32, 1), 0, b"k")
EDIT = [("ls.op", b"edit")]


class Node:
    """A node that has forgotten what is older than an offset, and has no outcome of odd ones."""

    def __init__(self, remembers):
        self.asked, self.remembers = [], remembers

    def about_row(self, _table, _key, below, *, content, **_more):
        assert below == "outcomes:get"
        offsets = orjson.loads(content)["offsets"]
        self.asked.append(offsets)
        return HttpAnswer(200, {}, orjson.dumps({"outcomes": [self.entry(offset) for offset in offsets]}), 0.0)

    def entry(self, offset):
        if offset < self.remembers:
            return {"offset": offset, "error": "not-retained"}
        if offset % 2:
            return {"offset": offset, "error": "not-found"}
        facts = {"outcome": "invalid", "version": None, "reason": "overflow", "first": None, "first_outcome": None}
        return {"offset": offset, **facts}


def test_a_node_is_asked_for_many_outcomes_at_once_and_not_for_what_it_has_forgotten():
    node = Node(remembers=6)
    outcomes = AskedOutcomes(lambda: node, PLACE)
    assert outcomes([8, 7, 5]) == [
        ("invalid", "overflow"),
        ("undecided", "the node that was asked has no outcome of it"),
        ("undecided", "what became of it is not remembered any more"),
    ]
    assert [outcome for outcome, _ in outcomes([4, 3])] == ["undecided", "undecided"]
    assert outcomes([12, 2])[0] == ("invalid", "overflow")
    assert node.asked == [[8, 7, 5], [12]]


def test_a_node_that_does_not_answer_is_asked_once():
    asked = []

    def reader():
        asked.append(1)
        raise ServerUnreachable("cut off")

    outcomes = AskedOutcomes(reader, PLACE)
    for _ in range(2):
        assert outcomes([5, 4]) == [("undecided", "what became of it could not be asked: cut off")] * 2
    assert asked == [1]


def records(words):
    return [
        (LoggedRecord(at, 0, b"", ()), JudgedRecord("put", "undecided" if word == "?" else "applied"))
        for at, word in enumerate(words)
    ]


def test_records_are_asked_about_in_lists_that_grow_and_none_is_read_beyond_the_limit():
    sizes = [len(some) for some in asked_together(records("?" * 2_000))]
    assert sizes[:4] == [1, 2, 4, 8]
    assert max(sizes) == MOST_ASKED
    assert sum(sizes) == 2_000
    assert [len(some) for some in asked_together(records("pp?p?pp"))] == [1, 1, 1, 1, 3], "a plain one alone at once"
    assert [len(some) for some in asked_together(records("?" * 9), held_bytes=1)] == [1] * 9

    def endless():
        yield from records("?" * 5)
        raise AssertionError("one too many is read")

    lists = asked_together(endless(), limit=5)
    assert [len(next(lists)) for _ in range(3)] == [1, 2, 2]


@pytest.mark.parametrize(
    ("value", "headers", "names"),
    [
        (msgpack.packb([["row", b"k", [["del-row"]]]]), EDIT, True),
        (msgpack.packb([["row", "k", [["del-row"]]], ["row", b"x", []]]), EDIT, True),
        (msgpack.packb([["row", b"other", [["set", "f", b"k", b"k"]]]]), EDIT, False),
        (msgpack.packb([["row", b"k", [["del-row"]]]]), [], False),
        (b"k, and no msgpack", EDIT, False),
        (None, EDIT, False),
    ],
)
def test_an_edit_names_the_rows_whose_keys_it_has(value, headers, names):
    assert names_row(b"k", value, headers) is names


def edited(store, table):
    """Edits of one row, of several, and of several among which it is not the first."""
    edit = RowEdit().set("f", "q", "1")
    alone = store.edit(table, "k", edit)
    carrier = store.edit_rows(table, {"first": edit, "k": RowEdit().set("f", "q", "2"), "k2": edit})
    elsewhere = store.edit_rows(table, {"first": edit, "k2": edit})
    refused = store.edit_rows(table, {"first": edit, "k": edit}, version=10_000)
    assert (alone.applied, carrier.applied, elsewhere.applied, refused.outcome) == (True, True, True, "rejected")
    return [
        (alone.offset, "applied", None),
        (carrier.offset, "applied", b"first"),
        (refused.offset, "rejected", b"first"),
    ]


def told(mutations):
    return [(one.offset, one.outcome, one.carrier) for one in mutations]


def test_in_memory_a_history_has_edits_of_several_rows_under_another_key():
    store = MemoryStore()
    store.create("t", partitions=1, wide=True, families=["f"], multi_row=True)
    expected = edited(store, "t")
    assert told(store.history("t", "k", oldest_first=True)) == expected
    assert [one.present for one in store.history("t", "k")] == [False, True, False]
    first = store.history("t", "first", limit=1)
    assert [one.carrier for one in first] == [None]


def test_a_history_has_edits_of_several_rows_and_says_which_row_carried_them(dev):
    table = f"carried-{secrets.token_hex(4)}"
    dev("table", "create", table, "--partitions", "1", "--wide", "--family", "f", "--multi-row")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        expected = edited(store, table)
        assert told(store.history(table, "k", oldest_first=True)) == expected

    async def read():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            return [one async for one in await store.history(table, "k")]

    assert told(asyncio.run(read())) == expected[::-1]
    lines = dev("history", table, "k").stdout.decode().splitlines()
    assert "set first/f:q=1; set k/f:q=2" in lines[1]
    assert "of=first" in lines[1]
    objects = [orjson.loads(line) for line in dev("history", table, "k", "--json").stdout.splitlines()]
    assert [one["carrier"] for one in objects[:-1]] == ["first", "first", None]


def test_the_archive_has_them_too(kafka, tmp_path):
    ctx = context(kafka.bootstrap, tmp_path)
    fields = {"conditional": True, "wide": True, "families": {"f": {}}, "multi_row": True}
    table = make_table(ctx, f"carried-{secrets.token_hex(4)}", 1, **fields)
    several = msgpack.packb([["row", b"first", [["set", "f", b"q", b"1"]]], ["row", b"\xffk", [["del-row"]]]])
    other = msgpack.packb([["set", "f", b"\xffk", b"\xffk"]])
    written = [(b"first", several), (b"first", other), (b"\xffk", other)]
    placed = produce(ctx.bootstrap, table.topic, written, headers=EDIT)
    archive(ctx, table)
    placed += produce(ctx.bootstrap, table.topic, written, headers=EDIT)
    at = [offset for _, offset in placed]
    choice = ArchiveChoice(True, ctx.storage.url)
    for oldest_first in (True, False):
        selection = Selection(oldest_first=oldest_first)
        found = list(open_history(ctx.bootstrap, ctx.registry.table(table.name), b"\xffk", selection, choice))
        shown = [(one.offset, one.carrier, one.archived) for one in found]
        expected = [(at[0], b"first", True), (at[2], None, True), (at[3], b"first", False), (at[5], None, False)]
        assert shown == (expected if oldest_first else expected[::-1])
