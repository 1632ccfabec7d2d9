"""Wrong input of every public method, made from the signatures: a typed error, or the right thing, and never a hang.

A method that is new is tried by itself: its arguments are taken from what it says of their types.
"""

import asyncio
import contextlib
import inspect
import ssl
import threading
import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import NoneType, UnionType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_fork import in_child
from support_http_node import HttpNode
from support_producer import Fixed, make_table

from logstore import AsyncStore, Pending, Position, Row, RowEdit, Store, codecs
from logstore.client.changes.changes import AsyncRowChanges, RowChanges
from logstore.client.conditional.pending_put import PendingPut
from logstore.client.history.async_history import AsyncKeyHistory
from logstore.client.history.key_history import KeyHistory
from logstore.client.session.async_session import AsyncSession
from logstore.client.session.session import Session
from logstore.client.typed.async_table import AsyncTypedTable
from logstore.client.typed.table import TypedTable
from logstore.client.wide.row import Column, WideRow
from logstore.client.write.async_pending import AsyncPending
from logstore.client.write.async_pipeline import AsyncPipeline
from logstore.client.write.pending_applied import PendingApplied
from logstore.client.write.pipeline import Pipeline
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.table import Table
from logstore.model.wide.said_edit import SaidEdit
from logstore.model.wide.selection import CellSelection

AT_ONCE_S = 30  # on a machine whose cores are all taken; an idle one needs milliseconds
EPOCH = "ab" * 16
POSITION = Position.of_write(EPOCH, 1, 41)
INSIDE = {  # called by stores and pipelines of each other, and by nobody else
    "acknowledged", "add_done_callback", "after_fork", "aim_at", "ask_again", "check_open", "end", "forget", "moved",
    "need_url", "of", "open_pipeline", "producer", "proved", "queue", "reader", "tables", "tls",
    "check_own", "check_takes", "decide", "delivery_timeout_s", "desk", "queue_as",
    "apply", "archived_changes", "check_level", "producer_at", "write", "decide_put",
}  # fmt: skip
Written = Pending | PendingPut | PendingApplied
WRONG = [
    None, True, 0, -1, 7, 2**70, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "a\r\nb", "x" * 2_000_000, b"",
    b"x", bytearray(b"x"), [], [1], ["xy"], ["\ud800"], [("k",)], [("k", 1)], [(1, "v")], [("k", "v", "w")], (),
    (None,),
    {}, {"": "v"}, {1: 2}, {"k": 1}, {"k"}, iter([3]), range(3), object(), len, datetime(2026, 1, 1),
]  # fmt: skip


def right_for(name, kind):
    """A value that the annotation allows, and that the stores here have."""
    for wanted, value in {
        "table": "t", "bootstrap": "127.0.0.1:1", "url": "http://127.0.0.1:1", "on_full": "wait",
        "token": POSITION.token, "epoch": EPOCH, "keys": ["k"], "pairs": [("k", "v")], "pieces": {(EPOCH, 0): 1},
        "others": [POSITION], "seen": POSITION, "compression": "lz4", "level": "all", "name": "t", "codec": codecs.json,
        "id": b"i" * 16, "edit": RowEdit().set("f", "q", "v"),
        "edits": {"k": RowEdit().set("f", "q", "v")},
    }.items():  # fmt: skip
        if name == wanted:
            return value
    for value in {str: "k", bytes: b"k", int: 1, float: 1.0, bool: True, Position: POSITION}.values():
        if fits(value, kind):
            return value
    raise AssertionError(f"say here what a right value of {name}: {kind} is, or in INSIDE that users never give one")


def fits(value, kind):
    """True when the annotation allows this value, as far as it says."""
    if kind in (typing.Any, inspect.Parameter.empty) or isinstance(kind, (str, typing.TypeVar)):
        return True
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments if isinstance(value, str) else False
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(
            fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items()
        )
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin in (Sequence, Iterable):
        if isinstance(value, (str, bytes, bytearray, set)) or not isinstance(value, Iterable):
            return False
        return not isinstance(value, (list, tuple, range, Mapping)) or all(fits(one, arguments[0]) for one in value)
    if origin is Callable or kind is Callable:
        return callable(value)
    if kind in (None, NoneType):
        return value is None
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if getattr(kind, "_is_protocol", False):
        return all(callable(getattr(value, name, None)) for name in vars(kind) if not name.startswith("_"))
    return isinstance(value, kind) if isinstance(kind, type) else True


def methods(kind):
    """Public methods and properties of a class, with the types of their parameters."""
    names = {
        "SSLContext": ssl.SSLContext, "Position": Position, "Pipeline": Pipeline, "Codec": codecs.Codec,
        "RowEdit": RowEdit, "SaidEdit": SaidEdit, "WideRow": WideRow, "Column": Column,
        "PendingPut": PendingPut, "PendingApplied": PendingApplied, "Written": Written,
        "CellSelection": CellSelection,
        "TypedTable": TypedTable, "AsyncTypedTable": AsyncTypedTable, "Row": Row,
        "Session": Session, "AsyncSession": AsyncSession,
        "RowChanges": RowChanges, "AsyncRowChanges": AsyncRowChanges,
        "KeyHistory": KeyHistory, "AsyncKeyHistory": AsyncKeyHistory,
    }  # fmt: skip
    ours = [base for base in kind.__mro__ if base.__module__.startswith("logstore.")]
    for name in sorted({name for base in ours for name in vars(base)}):
        member = inspect.getattr_static(kind, name)
        if (name.startswith("_") and name != "__init__") or name in INSIDE:
            continue
        if name == "__init__" and kind in (Pipeline, AsyncPipeline, Session, AsyncSession, Row):
            continue  # made by a store
        function = getattr(member, "__func__", member)
        if isinstance(member, property):
            yield name, None, {}
        elif inspect.isfunction(function):
            hints = typing.get_type_hints(function, {**function.__globals__, **names})
            parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
            yield name, parameters, {p.name: hints.get(p.name, typing.Any) for p in parameters}


def calls(kind):
    """(method, arguments, the argument that is wrong or None, is it one that the annotation allows?)."""
    for name, parameters, hints in methods(kind):
        if parameters is None:
            yield name, None, None, True
            continue
        needed = {p.name: right_for(p.name, hints[p.name]) for p in parameters if p.default is p.empty}
        needed |= {"present": True} if name.endswith("_if") else {}  # exactly one condition
        yield name, needed, None, True
        for parameter in parameters:
            for wrong in WRONG:
                yield name, {**needed, parameter.name: wrong}, parameter.name, fits(wrong, hints[parameter.name])


class Stores:
    """A store of each kind on a real broker and a small node; both know a table `t`."""

    def __init__(self, bootstrap):
        table = make_table(bootstrap)
        takes = {"conditional": True, "wide": True, "multi_row": True, "families": {"f": {}}}
        self.definitions = Fixed(Table("t", table.topic, table.epoch, table.partitions, **takes))
        self.node = HttpNode()
        self.node.rows = {b"k": b"v"}
        self.bootstrap = bootstrap

    def arguments(self):
        return {"bootstrap": self.bootstrap, "url": self.node.url, "definitions": self.definitions}


@pytest.fixture(scope="module")
def stores(kafka):
    stores = Stores(kafka.bootstrap)
    yield stores
    stores.node.shutdown()
    stores.node.server_close()


async def settled(outcome):
    """What a call comes to: awaited, entered, or taken to its end."""
    if inspect.isawaitable(outcome):
        outcome = await outcome
    if isinstance(outcome, (AsyncPending, Pending)):
        return await outcome if isinstance(outcome, AsyncPending) else outcome.result(60)
    if isinstance(outcome, AsyncRowChanges):  # which never end
        return outcome
    if hasattr(outcome, "__aiter__"):
        return [row async for row in outcome]
    if hasattr(outcome, "__aenter__"):
        async with outcome as entered:
            return entered
    if inspect.isgenerator(outcome):
        return list(outcome)
    return outcome


async def tried(call):
    """The outcome, or the typed error; anything else is raised, and so is a delay."""
    begin = time.monotonic()
    try:
        return await settled(call())
    except LogStoreError as error:
        return error
    finally:
        assert time.monotonic() - begin < AT_ONCE_S


def call_of(thing, name, arguments):
    return (lambda: getattr(thing, name)) if arguments is None else (lambda: getattr(thing, name)(**arguments))


@contextlib.asynccontextmanager
async def subject(kind, stores):
    """Something of this kind to call, open."""
    if kind is Position:
        yield POSITION
    elif kind is Session:
        with Store(**stores.arguments()) as store:
            yield store.session()
    elif kind is AsyncSession:
        async with AsyncStore(**stores.arguments()) as store:
            yield store.session()
    elif kind is Row:
        yield Row(b"k", b"v", 1, 0, POSITION.token)
    elif kind in (AsyncStore, AsyncPipeline):
        async with AsyncStore(**stores.arguments()) as store:
            yield store if kind is AsyncStore else await store.open_pipeline("t")
    else:
        with Store(**stores.arguments()) as store:
            yield store if kind is Store else store.pipeline("t")


KINDS = [Store, AsyncStore, Session, AsyncSession, Pipeline, AsyncPipeline, Position, Row]


@pytest.mark.parametrize("kind", KINDS)
def test_every_public_method_is_found(kind):
    assert {name for name, *_ in methods(kind)} >= {
        Store: {"__init__", "put", "delete", "put_many", "pipeline", "get", "get_many", "scan", "flush", "close"},
        AsyncStore: {"__init__", "put", "delete", "put_many", "pipeline", "get", "get_many", "scan", "flush", "close"},
        Session: {"put", "delete", "put_many", "get", "get_many", "scan", "saw", "token", "position"},
        AsyncSession: {"put", "delete", "put_many", "get", "get_many", "scan", "saw", "token", "position"},
        Pipeline: {"put", "delete", "flush", "count", "limit"},
        AsyncPipeline: {"put", "delete", "flush", "epoch"},
        Position: {"__init__", "of_write", "parse", "covers", "merge", "token", "partition", "offset", "pieces"},
        Row: {"position"},
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_an_argument_of_a_wrong_kind_is_a_usage_error_and_any_other_a_typed_one(kind, stores):
    wrongly = []

    async def run():
        for name, arguments, wrong, allowed in calls(kind):
            if name == "close":
                continue  # in a test of its own
            async with subject(kind, stores) if name == "__init__" else contextlib.nullcontext(thing) as one:
                call = (lambda a=arguments: kind(**a)) if name == "__init__" else call_of(one, name, arguments)
                told = f"{kind.__name__}.{name}({wrong}={arguments.get(wrong) if arguments else None!r:.60})"
                try:
                    outcome = await tried(call)
                except Exception as error:  # collected, so that one run shows them all
                    wrongly.append(f"{told}: {type(error).__name__}: {error!s:.100}")
                    continue
                if not allowed and not isinstance(outcome, UsageError):
                    wrongly.append(f"{told} gave {outcome!r:.100}")

    async def with_subject():
        nonlocal thing
        async with subject(kind, stores) as thing:
            await run()

    thing = None
    asyncio.run(with_subject())
    assert wrongly == [], "\n".join(wrongly)


@pytest.mark.parametrize("kind", [Store, AsyncStore])
def test_what_is_closed_says_so_whatever_is_asked(kind, stores):
    async def run():
        store = kind(**stores.arguments())
        assert (await tried(lambda: store.get("t", "k"))).value == b"v"
        pipeline = await settled(store.pipeline("t")) if kind is Store else await store.open_pipeline("t")
        for wrong in (-1, "x", float("nan"), [], True):
            assert isinstance(await tried(lambda wrong=wrong: store.close(wrong)), UsageError)
        await tried(store.close)
        for name, arguments, wrong, _ in calls(kind):
            if wrong is None and name != "__init__":
                outcome = await tried(call_of(store, name, arguments))
                assert isinstance(outcome, UsageError) == (name not in ("flush", "close")), (name, outcome)
        for call in (lambda: pipeline.put("k", "v"), lambda: pipeline.delete("k")):
            outcome = await tried(call)
            assert isinstance(outcome, UsageError), outcome
        assert "closed" in repr(store)

    asyncio.run(run())


def test_a_pipeline_takes_nothing_before_and_after_its_block(stores):
    async def run():
        with Store(**stores.arguments()) as store:
            with store.pipeline("t") as pipe:
                pipe.put("k", "v")
            for name, arguments, wrong, _ in calls(Pipeline):
                if wrong is None and name in ("put", "delete"):
                    assert isinstance(await tried(call_of(pipe, name, arguments)), UsageError)
            with pytest.raises(UsageError):
                pipe.__enter__()
        async with AsyncStore(**stores.arguments()) as store:
            opening = store.pipeline("t")
            with pytest.raises(UsageError):
                await opening.__aexit__(None, None, None)
            for name in ("put", "delete", "put_if", "cas", "incr"):  # as who forgets the block would write
                with pytest.raises(UsageError, match="async with"):
                    getattr(opening, name)
            with pytest.raises(UsageError, match="async with"):
                await opening
            with pytest.raises(UsageError, match="async with"), opening:
                pass
            assert not hasattr(opening, "no_such_name")
            async with opening as pipe:
                await (await pipe.put("k", "v"))
            for name in ("put", "delete"):
                arguments = {"key": "k", "value": "v"} if name == "put" else {"key": "k"}
                assert isinstance(await tried(call_of(pipe, name, arguments)), UsageError)

    asyncio.run(run())


def plain_calls(kind):
    return [
        (name, arguments)
        for name, arguments, wrong, _ in calls(kind)
        if wrong is None and name not in ("__init__", "close")
    ]


def test_another_thread_gets_what_the_first_one_gets(stores):
    with Store(**stores.arguments()) as store, store.pipeline("t") as pipe:
        for thing, kind in ((store, Store), (pipe, Pipeline)):
            for name, arguments in plain_calls(kind):
                outcomes = []
                call = call_of(thing, name, arguments)
                thread = threading.Thread(target=lambda call=call, out=outcomes: out.append(asyncio.run(tried(call))))
                thread.start()
                thread.join(60)
                here = asyncio.run(tried(call))
                assert type(outcomes[0]) is type(here), (name, outcomes, here)
                assert not isinstance(here, LogStoreError), (name, here)


def test_another_loop_is_refused_as_long_as_the_first_one_is_there(stores):
    async def run():
        async with AsyncStore(**stores.arguments()) as store:
            assert (await store.get("t", "k")).value == b"v"
            for name, arguments in plain_calls(AsyncStore):
                outcome = await asyncio.to_thread(
                    lambda name=name, arguments=arguments: asyncio.run(tried(call_of(store, name, arguments)))
                )
                if name not in (
                    "flush",
                    "put_many",
                    "session",
                    "table",
                ):  # another thread's work in any case, or no call yet
                    assert isinstance(outcome, UsageError), (name, outcome)
            pipe = await store.open_pipeline("t")
            written = await pipe.put("k", "v")
            assert await asyncio.to_thread(lambda: asyncio.run(settled(written))) == await written

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads at a fork: it is the point
def test_a_forked_child_gets_the_right_thing_or_a_typed_error(stores):
    with Store(**stores.arguments()) as store, store.pipeline("t") as pipe:
        pipe.put("k", "v").result(60)
        assert store.get("t", "k").value == b"v"

        def there():
            for name, arguments in plain_calls(Store):
                outcome = asyncio.run(tried(call_of(store, name, arguments)))
                assert not isinstance(outcome, LogStoreError), (name, outcome)
            for name, arguments in plain_calls(Pipeline):
                if name in ("put", "delete", "flush"):
                    outcome = asyncio.run(tried(call_of(pipe, name, arguments)))
                    assert isinstance(outcome, UsageError), (name, outcome)
            store.close()
            return "right"

        assert in_child(there) == "right"


@given(st.text() | st.binary() | st.none() | st.integers() | st.lists(st.text()))
def test_a_token_is_read_or_refused(text):
    try:
        position = Position.parse(text)
    except UsageError:
        return
    assert Position.parse(position.token) == position
