"""A fork is put in the place of the table it was made of.

Nothing acknowledged is lost on the way, and there is a way back.
"""

import asyncio

import pytest
from support_jobs import context, ends, make_table, token, write
from support_log import produce
from support_store import cli

from batch.jobs.compact import compact
from batch.jobs.diff import diff
from batch.jobs.restore import restore
from logstore import AsyncStore
from logstore.client.store import Store
from logstore.log import topics
from logstore.log.kafka import clients
from logstore.log.tables import ddl, forks
from logstore.model.errors import NoSuchTable, UsageError, WriteFailed


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def store(ctx):
    return Store(ctx.bootstrap, "http://127.0.0.1:1")


def test_promote_exchanges_two_tables_and_fences_the_one_that_was_replaced(ctx):
    source = make_table(ctx, "pro-swap", 2, description="the one")
    write(ctx.bootstrap, source, 100)
    at = token(source, ends(ctx, source))
    fork = restore(ctx, source.name, at, "pro-swap-then").table
    compact(ctx, source)  # its control records are nobody's writes
    with store(ctx) as old:
        promoted, replaced = (change.table for change in forks.promote(ctx.registry, fork.name, source.name)[:2])
        tables = ctx.registry.tables()
        assert tables[source.name] == promoted
        assert tables[fork.name] == replaced
        assert (promoted.topic, promoted.epoch, promoted.description) == (fork.topic, fork.epoch, "the one")
        assert (replaced.topic, replaced.epoch) == (source.topic, source.epoch)
        assert promoted.former_epochs == (source.epoch,)
        assert replaced.former_epochs == (fork.epoch,)
        assert [(f.fatal, "was promoted over" in f.why) for f in topics.check(ctx.registry.admin, replaced)] == [
            (False, True)
        ]
        with store(ctx) as new:
            assert new.put(source.name, "k", "new").pieces.keys() <= {(fork.epoch, 0), (fork.epoch, 1)}
            with pytest.raises(WriteFailed, match="promoted over"):
                new.put(fork.name, "k", "to the replaced one")
        del old
    assert diff(ctx, f"{fork.name}@{at}", f"{source.name}@{token(promoted, dict.fromkeys(range(2), 1))}").same
    assert compact(ctx, replaced).manifest.epoch == source.epoch  # it can be read and compacted all the same
    for flags in ({}, {"discard_newer": True}):  # asked for again, it is done already
        assert forks.promote(ctx.registry, fork.name, source.name, **flags).again
        assert ctx.registry.table(source.name).epoch == fork.epoch
    with store(ctx) as new:
        new.put(source.name, "k", "still open")
    assert not forks.promote(ctx.registry, fork.name, source.name, back=True).again
    with pytest.raises(UsageError, match="nothing to take back"):
        forks.promote(ctx.registry, fork.name, source.name, back=True)
    assert ctx.registry.table(source.name).epoch == source.epoch
    with store(ctx) as new:
        assert {epoch for epoch, _ in new.put(source.name, "k", "again").pieces} == {source.epoch}


def test_a_writer_that_knows_the_old_definition_writes_to_the_new_one(ctx):
    source = make_table(ctx, "pro-writer", 2)
    write(ctx.bootstrap, source, 20)

    def piped(known):
        with known.pipeline(source.name) as pipe:
            pipe.put("k", "piped")

    def several(known):
        known.put_many(source.name, [("a", "1"), ("b", "2")])

    def one(known):
        known.put(source.name, "k", "one")

    with store(ctx) as first, store(ctx) as second, store(ctx) as third:
        for known in (first, second, third):
            known.put(source.name, "before", "x")
        fork = restore(ctx, source.name, token(source, ends(ctx, source)), "pro-writer-then").table
        forks.promote(ctx.registry, fork.name, source.name)
        one(first)  # refused by the old log, so it goes to the new one
        several(second)
        with pytest.raises(WriteFailed, match="promoted over"):
            piped(third)  # its order is kept: what was refused is told, not written later
        for known in (first, second, third):
            assert {epoch for epoch, _ in known.put(source.name, "after", "y").pieces} == {fork.epoch}


def test_so_is_an_asynchronous_one(ctx):
    source = make_table(ctx, "pro-async", 2)
    write(ctx.bootstrap, source, 20)

    async def go_through():
        async with AsyncStore(ctx.bootstrap, "http://127.0.0.1:1") as known:
            await known.put(source.name, "before", "x")
            fork = await asyncio.to_thread(
                lambda: restore(ctx, source.name, token(source, ends(ctx, source)), "pro-async-then").table
            )
            await asyncio.to_thread(forks.promote, ctx.registry, fork.name, source.name)
            assert {epoch for epoch, _ in (await known.put(source.name, "after", "y")).pieces} == {fork.epoch}

    asyncio.run(go_through())


def test_promotion_is_refused_while_writers_are_newer(ctx):
    source = make_table(ctx, "pro-newer", 2)
    write(ctx.bootstrap, source, 20)
    restore(ctx, source.name, token(source, ends(ctx, source)), "pro-newer-then")
    produce(ctx.bootstrap, source.topic, [(b"late", b"write")])
    with pytest.raises(UsageError, match=r"was written to after the position .* --discard-newer"):
        forks.promote(ctx.registry, "pro-newer-then", source.name)
    produce(ctx.bootstrap, source.topic, [(b"still", b"open")])  # a refusal changes nothing
    assert ctx.registry.table(source.name).epoch == source.epoch
    make_table(ctx, "pro-newer-other", 2)
    with pytest.raises(UsageError, match="was not restored from"):
        forks.promote(ctx.registry, "pro-newer-then", "pro-newer-other")
    with pytest.raises(UsageError, match="over itself"):
        forks.promote(ctx.registry, source.name, source.name)
    with pytest.raises(NoSuchTable):
        forks.promote(ctx.registry, "pro-newer-nobody", source.name)
    forks.promote(ctx.registry, "pro-newer-then", source.name, discard_newer=True)
    ddl.delete_topic(ctx.registry, ddl.drop(ctx.registry, "pro-newer-then").table)
    assert ddl.create(ctx.registry, "pro-newer-then").table.topic == "pro-newer-then.3"  # two logs bore the name
    assert topics.epoch_of(clients.admin(ctx.bootstrap), source.topic) is None
    assert ctx.registry.table(source.name).topic == "pro-newer-then"


def test_after_a_promotion_that_was_killed_under_its_fence_a_refused_one_opens_the_table_again(ctx):
    source = make_table(ctx, "pro-killed", 2)
    write(ctx.bootstrap, source, 20)
    restore(ctx, source.name, token(source, ends(ctx, source)), "pro-killed-then")
    with store(ctx) as writer:
        writer.put(source.name, "late", "write")
        topics.set_settings(
            clients.admin(ctx.bootstrap), source.topic, {"max.message.bytes": "1"}
        )  # as far as the killed one came
        with pytest.raises(UsageError, match="was written to after"):
            forks.promote(ctx.registry, "pro-killed-then", source.name)
        writer.put(source.name, "later", "write")


@pytest.mark.slow
def test_the_commands(ctx, tmp_path):
    source = make_table(ctx, "res-cli", 2)
    produce(ctx.bootstrap, source.topic, [(b"k%d" % n, b"v%d" % n) for n in range(20)])
    at = token(source, ends(ctx, source))

    def call(*arguments):
        return cli(*arguments, check=False, LOGSTORE_BOOTSTRAP=ctx.bootstrap, LOGSTORE_DATA_DIR=str(tmp_path))

    wrong = call("table", "promote", "res-cli-nobody", "--over", source.name)
    assert (wrong.returncode, "no table" in wrong.stderr) == (1, True)
    restore(ctx, source.name, at, "res-cli-then")
    produce(ctx.bootstrap, source.topic, [(b"k3", b"other")])
    refused = call("table", "promote", "res-cli-then", "--over", source.name)
    assert (refused.returncode, "--discard-newer" in refused.stderr) == (2, True)
    done = call("table", "promote", "res-cli-then", "--over", source.name, "--discard-newer")
    assert done.returncode == 0, done.stderr
    assert f"table {source.name}: holds what res-cli-then held" in done.stdout
