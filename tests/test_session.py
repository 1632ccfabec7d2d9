"""Sessions: no read is older than what the same session wrote or read, also where it found nothing."""

import asyncio

import pytest
from support_http_node import EPOCH, HttpNode
from support_producer import Fixed, make_table

from logstore import AsyncStore, EpochChanged, MemoryStore, NoSuchTable, Position, Store
from logstore.model.errors import BadToken, ServerError, UsageError
from logstore.model.table import Table


@pytest.fixture
def node():
    server = HttpNode()
    server.rows = {b"k": b"v"}
    yield server
    server.shutdown()
    server.server_close()


def asked(node):
    """The level and the token of the last request."""
    headers = {name.lower(): value for name, value in node.seen[-1][1].items()}
    return headers.get("ls-consistency"), headers.get("ls-token")


def reads(session):
    """Every way to read, each with what it finds."""
    return [
        (lambda: session.get("t", "k").value, b"v"),
        (lambda: session.get("t", "absent"), None),
        (lambda: [row and row.value for row in session.get_many("t", ["absent", "k"])], [None, b"v"]),
        (lambda: session.get_many("t", ["absent"]), [None]),
        (lambda: [row.key for row in session.scan("t")], [b"k"]),
        (lambda: [row.key for row in session.scan("t", prefix="absent")], []),
    ]


@pytest.mark.parametrize("which", range(6))
def test_every_answer_is_seen_by_the_next_read(node, which):
    with Store(url=node.url) as store:
        session = store.session()
        read, found = reads(session)[which]
        assert read() == found
        assert asked(node) == (None, None)
        assert session.position.offset == 99
        seen = session.token
        for again, expected in reads(session):
            assert again() == expected
            level, token = asked(node)
            assert level == "session"
            assert Position.parse(token).covers(Position.parse(seen))


def test_a_level_goes_with_what_was_seen(node):
    with Store(url=node.url) as store:
        session = store.session(f"{EPOCH}-2-5")
        session.get("t", "absent", consistency="linearizable")
        assert asked(node) == ("linearizable", f"{EPOCH}-2-5")
        list(session.scan("t", max_lag_ms=7))
        assert asked(node)[0] == "bounded"
        assert Position.parse(asked(node)[1]).covers(Position.parse(f"{EPOCH}-2-5"))
        with pytest.raises(UsageError, match="eventual waits for none"):
            session.get("t", "k", consistency="eventual")


def test_tables_have_each_their_own_and_a_token_goes_on_elsewhere(node):
    with Store(url=node.url) as store:
        session = store.session()
        session.get("t", "k")
        with pytest.raises(NoSuchTable):  # this node has no other table; what was asked is what counts
            session.get("u", "k")
        assert asked(node) == (None, None)
        session.saw(Position.of_write("cd" * 16, 1, 8))
        with pytest.raises(NoSuchTable):
            session.get("u", "k")
        assert "cd" * 16 + "-1-9" in asked(node)[1]
        later = store.session(session.token)
        assert later.position == session.position
        later.get("t", "k")
        assert asked(node)[1] == session.token


def test_a_table_that_is_made_again_is_said_once_and_begun_anew(node):
    with Store(url=node.url) as store:
        session = store.session(f"{EPOCH}-0-5")
        for read, found in reads(session):
            session.saw(f"{EPOCH}-0-5")
            node.script = [(409, "epoch-changed")]
            with pytest.raises(EpochChanged):
                read()
            assert read() == found


def test_a_token_that_is_none_is_no_answer(node, monkeypatch):
    with Store(url=node.url) as store:
        for wrong in ("x", 7, b"x", None):
            with pytest.raises((BadToken, UsageError)):
                store.session().saw(wrong)
        with pytest.raises(BadToken):
            store.session("x")
        monkeypatch.setattr("support_http_node.EPOCH", "no-epoch")
        with pytest.raises(ServerError, match="LS-Token"):
            store.session().get("t", "absent")


def test_writes_are_seen_and_both_clients_do_alike(kafka, node):
    made = make_table(kafka.bootstrap)
    definitions = Fixed(Table("t", made.topic, made.epoch, made.partitions))
    arguments = {"bootstrap": kafka.bootstrap, "url": node.url, "definitions": definitions}
    with Store(**arguments) as store:
        session = store.session()
        written = [session.put("t", "k", "v"), session.delete("t", "k"), session.put_many("t", {"a": "1", "b": None})]
        session.get("t", "k")
        assert Position.parse(asked(node)[1]).covers(Position().merge(written))

    async def run():
        async with AsyncStore(**arguments) as store:
            session = store.session()
            written = [await session.put("t", "k", "v"), await session.delete("t", "k")]
            written.append(await session.put_many("t", [("a", "1")]))
            assert (await session.get("t", "k")).value == b"v"
            assert asked(node)[1] == Position().merge(written).token
            assert [row.key async for row in session.scan("t")] == [b"k"]
            assert await session.get("t", "absent") is None
            assert await session.get_many("t", ["absent"]) == [None]
            assert {EPOCH, made.epoch} == {epoch for epoch, _ in session.position.pieces}
            node.script = [(409, "epoch-changed")]
            with pytest.raises(EpochChanged):
                await session.get("t", "k")
            assert (await session.get("t", "k")).value == b"v"

    asyncio.run(run())


def test_a_store_in_memory_has_sessions_as_well():
    with MemoryStore(["t"]) as store:
        session = store.session()
        position = session.put("t", "k", "v")
        assert session.get("t", "k").value == b"v"
        assert session.position.covers(position)
        assert session.get("t", "k", consistency="latest").value == b"v"
        assert [row.key for row in session.scan("t")] == [b"k"]
        assert session.get_many("t", ["k", "x"])[1] is None
