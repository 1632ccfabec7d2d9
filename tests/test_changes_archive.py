"""The change feed behind what the log still holds: the archive first, then the log, and nothing missing between."""

import itertools
import secrets

import pytest
from support_jobs import context

from batch.jobs.archive import archive
from logstore import Position, Store
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.model.errors import NotRetained

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


def test_a_conditional_table_has_no_decided_changes_in_its_archive(store, ctx, make):
    table = make("--conditional")
    first = store.put_many(table, dict.fromkeys(_KEYS, "1"))
    archive(ctx, Registry(ctx.bootstrap).table(table))
    applied(store, table, first)
    trim(ctx, table, offsets_of(first))
    begin = Position(dict.fromkeys(first.pieces, 1))
    with pytest.raises(NotRetained) as refused:
        list(store.changes(table, since=begin, follow=False, from_archive=True, storage=ctx.storage.url))
    assert "since=beginning" in "".join(refused.value.__notes__)
