"""The history of a key: what log and archive hold of it, in both orders, and what became of each mutation."""

import asyncio
import secrets
from dataclasses import replace
from itertools import pairwise

import orjson
import pytest
from support_jobs import context, make_table
from support_log import produce

from batch.jobs.archive import archive
from logstore import AsyncStore, MemoryStore, Store, UsageError
from logstore.client.history.key_history import Selection
from logstore.client.history.mutation import HistoryRecord, KeyStanding
from logstore.client.history.opening import ArchiveChoice, open_history
from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.model.errors import (
    BadToken,
    Corrupted,
    EpochChanged,
    LogTruncated,
    NoSuchTable,
    StorageUnreachable,
)
from logstore.model.history.judged import JudgedRecord, judge
from logstore.model.history.logged import LoggedRecord, newest_first
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.snapshot.archive.segment import Segment

OTHERS = [(b"other-%d" % n, b"-") for n in range(50)]


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


@pytest.fixture
def table(ctx):
    return make_table(ctx, f"history-{secrets.token_hex(4)}", 1)


def put(ctx, table, *values, headers=None):
    """Write values of the key `ada`, each among those of other keys; None deletes. Returns their offsets."""
    records = [record for value in values for record in [*OTHERS, (b"ada", value), *OTHERS]]
    placed = produce(ctx.bootstrap, table.topic, records, headers=headers)
    return [offset for (_, offset), (key, _) in zip(placed, records, strict=True) if key == b"ada"]


def history(ctx, table, key=b"ada", *, archived=True, scanned=lambda _: None, decide=None, **selection):
    choice = ArchiveChoice(archived, ctx.storage.url)
    return open_history(
        ctx.bootstrap, ctx.registry.table(table.name), key, Selection(**selection), choice, scanned=scanned,
        outcomes=None if decide is None else lambda _place: decide,
    )  # fmt: skip


def token(table, offset):
    return Position({(table.epoch, 0): offset}).token


def test_log_and_archive_tell_one_history_in_both_orders(ctx, table):
    first = put(ctx, table, b"1", None, b"3")
    archive(ctx, table)
    second = put(ctx, table, b"4")
    archive(ctx, table)
    third = put(ctx, table, b"5", b"", headers=[("who", b"me"), ("why", b"a"), ("why", None)])
    scanned = []
    found = history(ctx, table, scanned=scanned.append)
    shown = list(found)
    assert [one.offset for one in shown] == [*first, *second, *third][::-1]
    assert [one.value for one in shown] == [b"", b"5", b"4", b"3", None, b"1"]
    assert [one.operation for one in shown] == ["put", "put", "put", "put", "delete", "put"]
    assert {one.outcome for one in shown} == {"applied"}
    assert [one.present for one in shown] == [True, *[False] * 5]
    assert [one.archived for one in shown] == [False, False, True, True, True, True]
    assert shown[0].headers == (("who", b"me"), ("why", b"a"), ("why", None))
    assert (sum(scanned), found.span, found.start, found.end) == (found.end, found.end, 0, 606)
    assert (found.known_from, found.known_from_ms, found.missing, found.archived_to) == (0, None, None, 404)
    assert list(history(ctx, table, oldest_first=True)) == shown[::-1]
    assert list(history(ctx, table, limit=2)) == shown[:2]
    assert list(history(ctx, table, oldest_first=True, limit=2)) == shown[::-1][:2]
    alone = list(history(ctx, table, archived=False))
    assert [one._replace(archived=True) for one in alone] == [one._replace(archived=True) for one in shown]
    without = list(history(ctx, table, values=False))
    assert [(one.value, one.size_bytes) for one in without] == [(None, one.size_bytes) for one in shown]
    assert list(history(ctx, table, b"nobody")) == []


def test_tokens_and_times_bound_a_history_as_they_bound_reads(ctx, table):
    offsets = put(ctx, table, b"1", b"2")
    archive(ctx, table)
    offsets += put(ctx, table, b"3", b"4")
    shown = list(history(ctx, table, oldest_first=True))

    def between(since=None, until=None):
        found = history(ctx, table, since=since, until=until, oldest_first=True)
        return [one.offset for one in found if one.outcome == "applied"]

    assert between(since=token(table, offsets[1])) == offsets[1:]
    assert between(until=token(table, offsets[1])) == offsets[:1]
    assert between(token(table, offsets[0] + 1), token(table, offsets[3])) == offsets[1:3]
    at_first = list(history(ctx, table, until=token(table, offsets[1])))
    assert [one.present for one in at_first] == [True], "what held then"
    for one, later in pairwise(shown):
        if one.timestamp_ms < later.timestamp_ms:
            assert between(since=one.time) == [x.offset for x in shown if x.timestamp_ms > one.timestamp_ms]
            assert between(until=one.time) == [x.offset for x in shown if x.timestamp_ms <= one.timestamp_ms]
    assert between(until=shown[-1].time) == offsets
    topics.truncate(admin(ctx.bootstrap), table.topic, {0: offsets[1] + 1})
    assert between(until=shown[0].time)[:1] == offsets[:1], "the archive knows the time"


@pytest.mark.parametrize(
    ("error", "selection"),
    [
        (UsageError, {"limit": 0}), (UsageError, {"limit": True}), (UsageError, {"oldest_first": 1}),
        (UsageError, {"since": "yesterday"}), (UsageError, {"until": "2999-01-01T00:00:00Z"}),
        (BadToken, {"since": "-1"}), (UsageError, {"since": Position({("0" * 32, 0): 1})}),
    ],
)  # fmt: skip
def test_what_cannot_bound_a_history_is_refused_at_once(ctx, table, error, selection):
    with pytest.raises(error):
        history(ctx, table, **selection)


def test_what_is_of_another_log_or_still_to_come_is_refused(ctx, table):
    put(ctx, table, b"1")
    with pytest.raises(UsageError, match="its log ends at 101"):
        history(ctx, table, until=token(table, 102))
    with pytest.raises(NoSuchTable):
        Store(ctx.bootstrap).history("nowhere", "k")
    former = replace(table, former_epochs=("f" * 32,))
    ctx.registry.write(former)
    with pytest.raises(EpochChanged, match="an earlier topic"):
        history(ctx, table, since=Position({("f" * 32, 0): 1}))


def test_what_was_trimmed_and_not_archived_is_said(ctx, table):
    offsets = put(ctx, table, b"1")
    archive(ctx, table)
    offsets += put(ctx, table, b"2", b"3")
    topics.truncate(admin(ctx.bootstrap), table.topic, {0: offsets[1] + 1})
    found = history(ctx, table)
    assert (found.missing, found.known_from) == ((101, offsets[1]), offsets[1] + 1)
    shown = list(found)
    assert [one.offset for one in shown] == [offsets[2], offsets[0]]
    assert shown[0].timestamp_ms >= found.known_from_ms >= shown[1].timestamp_ms
    alone = history(ctx, table, archived=False)
    assert (alone.missing, [one.offset for one in alone]) == ((0, offsets[1]), offsets[2:])
    ctx.registry.write(replace(table, skips={0: [(101, offsets[1])]}))
    assert history(ctx, table).missing is None, "a repair gave it up"


def test_only_the_archived_files_that_may_hold_it_are_opened(ctx, table):
    offsets = put(ctx, table, b"1")
    archive(ctx, table)
    offsets += put(ctx, table, b"2")
    archive(ctx, table)
    old, new = ctx.archive(table).covering(0, 0, 202)
    ctx.storage.remove(old.path)
    assert [one.offset for one in history(ctx, table, limit=1)] == offsets[1:]
    assert [one.offset for one in history(ctx, table, since=token(table, old.end))] == offsets[1:]
    with pytest.raises(Corrupted, match="is gone from the archive"):
        list(history(ctx, table))
    assert new.start == old.end


def test_an_archive_of_what_the_log_lost_is_never_put_before_it(ctx, table):
    put(ctx, table, b"1")
    index = ctx.archive(table)
    lost = Segment(0, 0, 101, index.segment_path(0, 0, 101, "a"), 101, 9, "0" * 32, f"100-{'ab' * 16}")
    index.append([lost], "j")
    with pytest.raises(LogTruncated, match=r"offset 100 of .* is not the one that was archived.*--accept-loss"):
        history(ctx, table)
    assert len(list(history(ctx, table, archived=False))) == 1


def test_a_storage_that_does_not_answer_is_no_reason_to_know_less_than_the_log(ctx, table, monkeypatch):
    put(ctx, table, b"1")

    def unreachable(_self):
        raise StorageUnreachable("no answer")

    monkeypatch.setattr("logstore.snapshot.archive.index.ArchiveIndex.next_offsets", unreachable)
    with pytest.raises(StorageUnreachable) as raised:
        history(ctx, table)
    assert "--no-archive" in str(raised.value.__notes__)
    assert len(list(history(ctx, table, archived=False))) == 1


def test_what_is_skipped_and_quarantined_is_shown_with_its_reason(ctx, table):
    fine = put(ctx, table, b"1")
    bad = put(ctx, table, b"2", headers=[("ls.ttl", b"short"), ("who", b"them")])
    given_up = put(ctx, table, b"3")
    ctx.registry.write(replace(table, skips={0: [(given_up[0], given_up[0])]}))
    told = [(one.offset, one.outcome, one.reason, one.present) for one in history(ctx, table)]
    assert told == [
        (given_up[0], "skipped", f"a repair steps over offsets {given_up[0]:,} to {given_up[0]:,}", False),
        (bad[0], "quarantined", "bad-ttl", False),
        (fine[0], "applied", None, True),
    ]


def test_a_store_and_one_for_asyncio_tell_it_alike(ctx, table):
    offsets = put(ctx, table, *(b"%d" % n for n in range(20)))
    archive(ctx, table)
    with Store(ctx.bootstrap) as store:
        shown = list(store.history(table.name, "ada", storage=ctx.storage.url))
        assert [one.offset for one in shown] == offsets[::-1]
        with store.history(table.name, "ada", archive=False) as found:
            assert next(found).offset == offsets[-1]
        assert list(found) == [], "it is closed"

    async def read():
        async with AsyncStore(ctx.bootstrap) as store:
            found = await store.history(table.name, "ada", storage=ctx.storage.url)
            told = [one async for one in found]
            found = await store.history(table.name, "ada", storage=ctx.storage.url)
            taking = asyncio.create_task(anext(found))
            await asyncio.sleep(0)  # it has begun
            taking.cancel()
            assert [one async for one in found] == told, "who is cancelled loses none"
            async with await store.history(table.name, "ada", archive=False) as early:
                assert (await anext(early)) == shown[0]._replace(archived=False)
                assert early.bounds.known_from == 0
            return told

    assert asyncio.run(read()) == shown


def test_a_history_that_nobody_wants_any_more_ends(ctx, table):
    put(ctx, table, b"1")
    found = history(ctx, table)
    found.stop()
    assert list(found) == []
    with pytest.raises(KeyboardInterrupt):  # in the middle of it, as by Ctrl-C
        list(history(ctx, table, scanned=interrupt))


def interrupt(_count):
    raise KeyboardInterrupt


def test_a_history_of_conditional_mutations_says_what_it_does_not_know(ctx):
    table = make_table(ctx, f"history-{secrets.token_hex(4)}", 1, conditional=True)
    plain = put(ctx, table, b"1")
    mutation_id = b"i" * 16
    hard = put(ctx, table, b"2", headers=[("ls.if", b"version:7"), ("ls.id", mutation_id), ("who", b"me")])[0]
    newest, oldest = history(ctx, table)
    assert (newest.outcome, newest.present, newest.condition, newest.id) == (
        "undecided",
        None,
        "version:7",
        mutation_id,
    )
    assert newest.headers == (("who", b"me"),)
    assert (oldest.offset, oldest.outcome, oldest.present) == (plain[0], "applied", None)
    asked = []
    newest, oldest = history(ctx, table, decide=lambda offsets: (asked.append(offsets), [("rejected", "why")])[1])
    assert (asked, newest.outcome, newest.reason, newest.present, oldest.present) == (
        [[hard]],
        "rejected",
        "why",
        False,
        True,
    )


def test_outcomes_are_those_that_the_node_remembers(dev):
    name = f"history-{secrets.token_hex(4)}"
    dev("table", "create", name, "--partitions", "1", "--conditional")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        made = store.put_if(name, "k", "1", absent=True, headers={"who": "me"})
        assert store.put_if(name, "k", "2", absent=True).outcome == "rejected"
        assert store.incr(name, "k").outcome == "invalid"
        told = [(one.operation, one.outcome, one.reason, one.present) for one in store.history(name, "k")]
    rejected = f"its condition did not hold: the row was at version {made.offset}"
    assert told[1:] == [("put", "rejected", rejected, False), ("put", "applied", None, True)]
    assert (told[0][:2], told[0][3]) == (("incr", "invalid"), False)
    assert told[0][2], "a word for why"
    last = dev("history", name, "k").stdout.splitlines()[-1]
    assert last.startswith(b"* ")
    assert b"if=absent  id=" in last


def test_a_key_with_many_mutations_is_held_in_small_pieces():
    records = [LoggedRecord(offset, offset, b"x" * 1_000, ()) for offset in range(0, 100_000, 3)]
    read = []

    def reading(start, end):
        read.append((start, end))
        return (record for record in records if start <= record.offset < end)

    held = list(newest_first(reading, 10, 100_000, held_bytes=150_000))
    assert held == [record for record in records if record.offset >= 10][::-1]
    assert max(end - start for start, end in read) <= 1 << 15, "ranges that hold too much become smaller"


def test_the_newest_of_a_range_is_held_however_large_it_is():
    records = [LoggedRecord(offset, 0, b"x" * 10_000, ()) for offset in range(5)]
    found = newest_first(lambda start, end: records[start:end], 0, 5, held_bytes=1)
    assert list(found) == records[::-1]


def test_a_record_is_judged_as_the_fold_does():
    table = Table("t", "t", "e" * 32, 1, max_value_bytes=5, skips={0: [(3, 4)]})

    def judged(value, *headers, at=0, of=table):
        return judge(LoggedRecord(at, 0, value, headers), b"k", of, 0)

    assert judged(b"v") == JudgedRecord("put", "applied")
    assert judged(None) == JudgedRecord("delete", "applied")
    assert judged(b"v", ("ls.op", b"delete")) == JudgedRecord("delete", "applied")
    assert judged(b"longer") == JudgedRecord("put", "quarantined", "long-value")
    assert judged(b"v", ("ls.op", b"\xff")) == JudgedRecord("\\xff", "quarantined", "unknown-operation")
    assert judged(b"v", ("ls.op", None)) == JudgedRecord("put", "quarantined", "null-header")
    assert judged(b"v", ("ls.op", b"cut")) == JudgedRecord("cut", "quarantined", "keyed-control")
    assert judged(b"v", ("ls.op", b"incr"))[:2] == ("incr", "refused")
    assert judged(b"v", at=4)[:2] == ("put", "skipped")
    hard = replace(table, conditional=True)
    assert judged(b"v", of=hard) == JudgedRecord("put", "applied")
    assert judged(b"v" * 8, ("ls.op", b"incr"), of=replace(hard, max_value_bytes=8)) == JudgedRecord(
        "incr", "undecided"
    )
    digest = b"\1" * 16
    assert judged(b"v", ("ls.if", b"value:" + digest), of=hard)[3] == "value:" + digest.hex()
    assert judged(b"v", ("ls.if", b"nonsense"), of=hard) == JudgedRecord("put", "quarantined", "malformed-header")
    assert judged(b"v", ("ls.ttl", bytes(8)), of=hard) == JudgedRecord("put", "quarantined", "bad-ttl")
    expiring = judged(b"v", ("ls.ttl", bytes(7) + b"\x09"), of=replace(hard, expiring=True))
    assert expiring == JudgedRecord("put", "applied", ttl_ms=9)
    wide = replace(hard, wide=True)
    assert judged(b"v", of=wide)[:2] == ("put", "undecided"), "its row may have had no room"
    assert "quarantine" in judged(b"v", of=wide).reason
    assert judged(None, of=wide) == JudgedRecord("delete", "applied")


def test_of_undecided_mutations_any_may_have_made_the_row():
    def found(offset, outcome):
        return HistoryRecord(
            LoggedRecord(offset, 0, b"", ()), JudgedRecord("put", "applied"), outcome, None, archived=False
        )

    history = [
        found(5, "quarantined"),
        found(4, "undecided"),
        found(3, "applied"),
        found(2, "undecided"),
        found(1, "applied"),
    ]
    standing = KeyStanding()
    for one in history:
        standing.see(one)
    assert [standing.of(one) for one in history] == [False, None, None, False, False]


def test_a_store_in_memory_knows_every_outcome():
    store = MemoryStore()
    store.create("t", partitions=1, conditional=True)
    store.put("t", "k", "1", headers={"who": "me"})
    store.put("t", "other", "1")
    store.put_if("t", "k", "2", absent=True)
    store.put_if("t", "k", "3", version=0)
    store.append("t", "k", "4")
    shown = [
        (one.operation, one.outcome, one.reason, one.present) for one in store.history("t", "k", oldest_first=True)
    ]
    assert shown == [
        ("put", "applied", None, False),
        ("put", "rejected", "its condition did not hold: the row was at version 0", False),
        ("put", "applied", None, False),
        ("append", "applied", None, True),
    ]


def test_the_command_prints_a_history_and_how_far_it_goes(dev, users):
    key = f"history-{secrets.token_hex(4)}"
    put = dev.json("put", users, key, "one\ttwo", "--header", "who=me")
    dev("delete", users, key)
    dev("put", users, key, "--file", "/dev/stdin", stdin=b"\xff\0" * 500)
    done = dev("history", users, key)
    lines = done.stdout.decode().splitlines()
    assert [line[:1] for line in lines] == ["*", " ", " "]
    assert "1,000 bytes" in lines[0]
    assert " delete  applied" in lines[1]
    assert f"{put['offset']:,}  " in lines[2]
    assert lines[2].endswith("'one\\ttwo'  who=me")
    assert b"3 mutations in partition" in done.stderr
    assert b"holds every mutation from offset 0 on" in done.stderr
    *mutations, bounds = [
        orjson.loads(line) for line in dev("history", users, key, "--reverse", "--json").stdout.splitlines()
    ]
    assert [(one["operation"], one["value"]) for one in mutations[:2]] == [("put", "one\ttwo"), ("delete", None)]
    assert mutations[2]["value"]["base64"]
    assert mutations[0]["headers"] == [["who", "me"]]
    assert [one["present"] for one in mutations] == [False, False, True]
    assert (bounds["history"]["mutations"], bounds["history"]["known_from"]) == (3, 0)
    only = dev("history", users, key, "--since", put["token"], "--no-values", "--no-archive", "--limit", "1")
    assert only.stdout.decode().rstrip().endswith("1,000 bytes")
    assert b"--limit" in dev("history", users, key, "--limit", "0", status=2).stderr
    assert b"there is no table" in dev("history", "nowhere", key, status=1).stderr
