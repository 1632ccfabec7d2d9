"""The change feed behind what the log still holds: the archive first, then the log, and nothing missing between."""

import asyncio
import itertools
import random
import secrets
import time
from dataclasses import replace

import pytest
from support_jobs import context

from batch.jobs.archive import archive
from logstore import AsyncStore, Position, RowEdit, Store
from logstore.client.changes.archived import ArchivedChanges
from logstore.client.changes.changes import PollPoint
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.model.errors import NotRetained
from logstore.model.partitioner import partition_of

_KEYS = [f"k{number:03}" for number in range(120)]


@pytest.fixture
def store(dev):
    with Store(bootstrap=dev.facts["bootstrap"], url=dev.facts["http"]) as store:
        yield store


@pytest.fixture
def ctx(dev, tmp_path):
    return context(dev.facts["bootstrap"], tmp_path)


@pytest.fixture
def make(dev):
    def make(*options):
        name = f"fedarchive-{secrets.token_hex(4)}"
        dev("table", "create", name, "--partitions", "2", *options)
        return name

    return make


def applied(store, table, position):
    list(store.scan(table, after=position, keys_only=True, deadline_ms=30_000))


def trim(ctx, table, upto):
    """Let the log go of what is below these offsets."""
    definition = Registry(ctx.bootstrap).table(table)
    topics.truncate(admin(ctx.bootstrap), definition.topic, upto)


def offsets_of(position):
    return {partition: offset for (_, partition), offset in position.pieces.items()}


def test_changes_that_the_log_has_let_go_of_come_from_the_archive_and_the_rest_from_the_log(dev, store, ctx, make):
    table = make()
    first = store.put_many(table, dict.fromkeys(_KEYS, "1"))
    archived = store.put_many(table, {key: None if key.endswith("7") else "2" for key in _KEYS})
    archive(ctx, Registry(ctx.bootstrap).table(table))
    last = store.put_many(table, {**dict.fromkeys(_KEYS, "3"), "new": "3"})
    applied(store, table, last)
    trim(ctx, table, offsets_of(archived))
    with pytest.raises(NotRetained, match="--from-archive"):
        next(store.changes(table, since=first))
    more = {"from_archive": True, "storage": ctx.storage.url}
    events = list(store.changes(table, since=first, follow=False, **more))
    for partition, start in offsets_of(first).items():
        versions = [event.version for event in events if event.partition == partition]
        assert versions == list(range(start, offsets_of(last)[partition])), "each once, in order, and no gap"
    assert all(event.timestamp_ms > 0 for event in events)
    held = {event.key: event.value for event in events}
    assert {key: value for key, value in held.items() if value} == {
        row.key: row.value for row in store.scan(table, after=last, deadline_ms=30_000)
    }
    some = store.changes(table, since=first, prefix="k01", follow=False, **more)
    assert [(event.key, event.value) for event in itertools.islice(some, 3)] == [
        (event.key, event.value) for event in events if event.key.startswith(b"k01")
    ][:3]
    following = list(store.changes(table, since=some.id, prefix="k01", follow=False, **more))
    assert {event.key for event in following} <= {event.key for event in events if event.key.startswith(b"k01")}
    lines = dev("changes", table, "--from", first.token, "--from-archive", "--storage", ctx.storage.url).stdout
    assert len(lines.splitlines()) == len(events)
    assert b"--from-archive" in dev("changes", table, "--from", first.token, status=1).stderr


def test_what_neither_log_nor_archive_has_is_said(store, ctx, make):
    table = make()
    first = store.put_many(table, dict.fromkeys(_KEYS, "1"))
    archive(ctx, Registry(ctx.bootstrap).table(table))
    last = store.put_many(table, dict.fromkeys(_KEYS, "2"))
    applied(store, table, last)
    trim(ctx, table, offsets_of(last))
    begin = Position(dict.fromkeys(first.pieces, 1))
    with pytest.raises(NotRetained) as refused:
        list(store.changes(table, since=begin, follow=False, from_archive=True, storage=ctx.storage.url))
    assert "are not archived either" in "".join(refused.value.__notes__)


def _conditional(store, table):
    """Writes of which many are refused, built upon, or repeated; the last of them."""
    source, position = random.Random(5), store.put(table, "k0", "0")
    for step in range(60):
        key = f"k{source.randrange(8)}"
        known = store.get(table, key, consistency="latest")
        what = source.choice(["put", "put_if", "incr", "append", "delete"])
        if what == "put_if":
            seen = source.choice([None, known.version if known else 0])
            done = store.put_if(table, key, f"{step}", **({"version": seen} if seen else {"absent": True}))
        elif what == "incr":
            done = store.incr(table, f"n{source.randrange(3)}", step)
        else:
            done = store.delete(table, key) if what == "delete" else getattr(store, what)(table, key, f"{step}")
        position |= done if isinstance(done, Position) else done.position
    return position


def _expiring(store, table):
    position = store.put_many(table, {f"e{n}": "1" for n in range(20)})
    for n in range(20):
        position |= store.put(table, f"e{n}", "2", ttl_s=[3_600, 0.001, None][n % 3])
    position |= store.put_if(table, "n", (1).to_bytes(8), absent=True, ttl_s=3_600).position
    return position | store.incr(table, "n", 5).position


def _wide(store, table):
    source, position = random.Random(6), store.put(table, "w0", "plain")
    position |= store.edit(table, "grows", RowEdit().set("content", secrets.token_hex(4), "1")).position
    for step in range(60):
        change = RowEdit()
        for _ in range(source.randrange(1, 4)):
            family, qualifier = source.choice(["content", "anchor"]), source.choice("abc")
            change.set(family, qualifier, f"{step}") if source.random() < 0.7 else change.delete(family, qualifier)
        position |= store.edit(table, f"w{source.randrange(6)}", change).position
    return position


def _siblings(store, table):
    source, position = random.Random(7), store.put(table, "grows", "0", seen=-1)
    for step in range(40):
        key = f"s{source.randrange(5)}"
        known = store.get(table, key, consistency="latest")
        seen = source.choice([-1, known.version if known else -1])
        position |= store.put(table, key, f"{step}", seen=seen)
    return position


@pytest.mark.parametrize(("options", "write"), [
    (["--conditional"], _conditional), (["--expiring"], _expiring),
    (["--wide", "--expiring", "--family", "content:versions=3", "--family", "anchor:ttl=1d"], _wide),
    (["--siblings"], _siblings),
], ids=["conditional", "expiring", "wide", "siblings"])  # fmt: skip
def test_what_records_did_is_decided_by_the_fold_of_the_archive(dev, store, ctx, make, options, write):
    """From an id on that the log has let go of, the changes of archive and log leave the table as it is."""
    table = make(*options)
    first = write(store, table)
    middle = first | write(store, table)  # upon what the first ones left
    archive(ctx, Registry(ctx.bootstrap).table(table))
    last = middle | store.put(table, "last", "1")
    applied(store, table, last)
    trim(ctx, table, offsets_of(middle))
    with pytest.raises(NotRetained):
        next(store.changes(table, since=first))
    more = {"since": first, "follow": False, "from_archive": True, "storage": ctx.storage.url}
    events = list(store.changes(table, **more))
    rows = copy_of(store.changes(table, since="beginning", follow=False))
    changed = {key: row for key, row in rows.items() if row[0] >= offsets_of(first)[partition_of(key, 2)]}
    assert living(copy_of(events)) == changed
    assert len(changed) > 3
    versions = {p: [event.version for event in events if event.partition == p] for p in (0, 1)}
    assert all(some == sorted(set(some)) for some in versions.values()), "in order, each once"
    assert asyncio.run(all_of(dev, table, more)) == events


def copy_of(events):
    """What a consumer keeps of each row: version, what it holds, and when that ends."""
    copy = {}
    for event in events:
        if event.version >= copy.get(event.key, (-1,))[0]:
            copy[event.key] = event.version, event.cells or event.siblings or event.value, event.ends_ms
    return copy


def living(copy):
    now_ms = time.time_ns() // 1_000_000
    ended = {key for key, (_, _, ends) in copy.items() if ends and None not in ends and max(ends) <= now_ms}
    return {key: row for key, row in copy.items() if row[1] is not None and key not in ended}


async def all_of(dev, table, more):
    async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
        return [event async for event in store.changes(table, **more)]


def test_an_iterator_that_is_cancelled_while_the_archive_is_read_loses_nothing(dev, store, ctx, make):
    table = make("--conditional")
    first = store.put_many(table, dict.fromkeys(_KEYS, "1"))
    archive(ctx, Registry(ctx.bootstrap).table(table))
    applied(store, table, first)
    trim(ctx, table, offsets_of(first))
    begin = Position(dict.fromkeys(first.pieces, 1))

    async def read():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as there:
            events = there.changes(table, since=begin, follow=False, from_archive=True, storage=ctx.storage.url)
            found, cancelled = [], 0
            while True:
                try:
                    found.append(await asyncio.wait_for(anext(events), 0.02 if cancelled < 100 else 60))
                except TimeoutError:
                    cancelled += 1
                except StopAsyncIteration:
                    return found, cancelled

    found, cancelled = asyncio.run(read())
    assert cancelled > 0
    assert sorted(event.version for event in found) == sorted(
        offset for end in offsets_of(first).values() for offset in range(1, end)
    )


def test_what_an_archive_lacks_below_a_restored_table_is_said(store, ctx, make):
    table = make("--conditional")
    definition = Registry(ctx.bootstrap).table(table)
    refused = NotRetained("gone")
    restored = ArchivedChanges(ctx.bootstrap, lambda: replace(definition, base={"snapshot": "s"}), ctx.storage.url)
    with pytest.raises(NotRetained) as found:
        restored.behind(PollPoint(table, Position({(definition.epoch, 0): 1}), None, 0, follow=False), refused)
    assert "since=beginning" in "".join(found.value.__notes__)
