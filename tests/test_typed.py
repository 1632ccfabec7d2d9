"""Typed tables: values cross the edge as what the program means; what cannot is a typed error that names the row."""

import asyncio
from dataclasses import dataclass

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_http_node import HttpNode
from support_producer import Fixed, make_table

from logstore import AsyncStore, MemoryStore, Row, Store, codecs
from logstore.model.errors import SetupError, Undecodable, UsageError
from logstore.model.table import Table


@dataclass
class Point:
    x: int
    y: int


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


class Measure(pydantic.BaseModel):
    x: float | None


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_what_json_can_say_comes_back(value):
    assert codecs.json.decode(codecs.json.encode(value)) == value


@given(plain | st.binary() | st.dictionaries(st.integers(0, 9), st.binary()))
def test_what_msgpack_can_say_comes_back(value):
    assert codecs.msgpack.decode(codecs.msgpack.encode(value)) == value


@pytest.mark.parametrize(
    ("codec", "value", "raw"),
    [
        (codecs.json, {"a": [1, None]}, b'{"a":[1,null]}'),
        (codecs.msgpack, {"a": b"\xff"}, b"\x81\xa1a\xc4\x01\xff"),
        (codecs.text, "M\u00fcnchen", b"M\xc3\xbcnchen"),
        (codecs.json_of(Point), Point(1, 2), b'{"x":1,"y":2}'),
        (codecs.json_of(Struct), Struct(1), b'{"x":1}'),
        (codecs.json_of(dict[str, int]), {"a": 1}, b'{"a":1}'),
        (codecs.json_of(Model), Model(x=1), b'{"x":1}'),
    ],
)
def test_a_value_is_written_as_these_bytes_and_read_from_them(codec, value, raw):
    users = MemoryStore(["users"]).table("users", codec)
    position = users.put("ada", value)
    assert users._store.get("users", "ada").value == raw
    row = users.get("ada", after=position)
    assert (row.key, row.value, row.version, row.partition) == (b"ada", value, position.offset, position.partition)
    assert row.position.covers(position)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (codecs.json, object()), (codecs.json, 2**70), (codecs.json, {1: 2}), (codecs.json, "\ud800"),
        (codecs.json, float("nan")), (codecs.json, [None, {"a": (1, float("inf"))}]), (codecs.json, Point(1, 2)),
        (codecs.json_of(float | None), float("inf")), (codecs.json_of(Measure), Measure(x=float("nan"))),
        (codecs.msgpack, object()), (codecs.msgpack, 2**70),
        (codecs.text, b"x"), (codecs.text, "\ud800"),
        (codecs.json_of(Point), Struct(1)), (codecs.json_of(Point), object()),
        (codecs.json_of(Model), Struct(1)), (codecs.json_of(Struct), Struct("no number")),
    ],
)  # fmt: skip
def test_what_a_codec_cannot_write_is_refused_before_anything_is_written(codec, value):
    store = MemoryStore(["users"])
    users = store.table("users", codec)
    for write in (
        lambda: users.put("ada", value),
        lambda: users.put_many({"bob": value}),
        lambda: users.put_many([("bob", value)]),
        lambda: users.put_many(iter([("bob", value)])),
    ):
        with pytest.raises(UsageError, match=r"codecs.*cannot write a value of table users"):
            write()
    assert list(store.scan("users")) == []


@pytest.mark.parametrize(
    ("codec", "raw"),
    [
        (codecs.json, b"{"), (codecs.json, b""), (codecs.json, b"\xff"),
        (codecs.msgpack, b"\xc1"), (codecs.msgpack, b""), (codecs.msgpack, b"\xa5ab"), (codecs.msgpack, b"\x01\x02"),
        (codecs.text, b"\xff"),
        (codecs.json_of(Point), b'{"x":1}'), (codecs.json_of(Point), b'{"x":"1","y":2}'),
        (codecs.json_of(Point), b"\xff"),
        (codecs.json_of(Model), b'{"x":"one"}'), (codecs.json_of(Model), b""),
    ],
)  # fmt: skip
def test_what_a_codec_cannot_read_names_the_row(codec, raw):
    store = MemoryStore()
    store.create("users", partitions=1)
    store.put("users", "eve", b"\x00" * 3)
    store.put("users", "ada", raw)
    users = store.table("users", codec)
    said = "key b'ada' of table users, written at offset 1 of partition 0, is nothing that codecs"
    for read in (lambda: users.get("ada"), lambda: users.get_many(["ada"]), lambda: list(users.scan(prefix="ada"))):
        with pytest.raises(Undecodable, match=said):
            read()
    assert users.get("nobody") is None


def test_none_deletes_among_many_and_is_a_value_alone():
    users = MemoryStore(["users"]).table("users", codecs.json)
    users.put("ada", None)
    assert users.get("ada").value is None
    users.put_many({"ada": None, "bob": 0, "eve": False})
    assert [(row.key, row.value) for row in users.scan()] == [(b"bob", 0), (b"eve", False)]
    users.put_many({"x": 1}.items())
    users.delete("bob")
    assert [row and row.value for row in users.get_many(["x", "bob", "eve"])] == [1, None, False]
    assert [row.key for row in users.scan(reverse=True, limit=1)] == [b"x"]


@pytest.mark.parametrize("pairs", ["ab", b"ab", {"ab"}, 7, None, ["ab"], [("a",)], [("a", 1, 2)]])
def test_what_is_no_pairs_is_refused_as_by_the_store(pairs):
    with pytest.raises(UsageError):
        MemoryStore(["users"]).table("users", codecs.json).put_many(pairs)


@pytest.mark.parametrize("codec", [None, "json", object()])
def test_what_is_no_codec_is_refused(codec):
    with pytest.raises(UsageError, match="a codec has `encode` and `decode`"):
        MemoryStore(["users"]).table("users", codec)


def test_a_type_that_nobody_knows_has_no_codec(monkeypatch):
    with pytest.raises(UsageError, match="there is no codec of"):
        codecs.json_of(dict[Point, int] | dict[str, int])
    monkeypatch.setitem(__import__("sys").modules, "msgspec", None)
    with pytest.raises(SetupError, match="pip install msgspec"):
        codecs.json_of(Point)


def test_both_clients_hand_out_typed_rows(kafka):
    made = make_table(kafka.bootstrap)
    definitions = Fixed(Table("t", made.topic, made.epoch, made.partitions))
    node = HttpNode()
    try:
        node.rows = {b"k": b'{"x":1,"y":2}'}
        arguments = {"bootstrap": kafka.bootstrap, "url": node.url, "definitions": definitions}
        with Store(**arguments) as store:
            points = store.table("t", codecs.json_of(Point))
            assert points.put_many([("k", Point(1, 2))]).pieces.keys() == {(made.epoch, 0)}
            assert points.get("k").value == Point(1, 2)

        async def run():
            async with AsyncStore(**arguments) as store:
                points = store.table("t", codecs.json_of(Point))
                await points.put("k", Point(3, 4))
                await points.put_many({"k": Point(1, 2)})
                await points.delete("gone")
                assert (await points.get("k")).value == Point(1, 2)
                assert await points.get("gone") is None

        asyncio.run(run())
    finally:
        node.shutdown()
        node.server_close()


def test_a_typed_row_has_the_fields_of_a_row():
    row = MemoryStore(["users"]).table("users", codecs.json)
    row.put("k", 1)
    assert row.get("k")._fields == Row._fields
