"""What every store tells of changes, whatever is behind it: each function is a test of one."""

import itertools
import random
import time

import pytest
from support_contract import DEADLINE_MS
from support_wait import until

from logstore import NoSuchTable, Position, RowEdit, UsageError
from logstore.client.changes.changes import ChangeEvent
from logstore.model.errors import BadToken
from logstore.model.partitioner import partition_of

HOUR_MS = 3_600_000
FAMILIES = {"content": {"versions": 3}, "anchor": {}}


def told(under, table, since, **more):
    """What a consumer keeps of each row that is there: version, what it holds, and when that ends."""
    copy = {}
    for event in under.store.changes(table, since=since, follow=False, **more):
        if event.version >= copy.get(event.key, (-1,))[0]:
            copy[event.key] = event.version, held(event), event.ends_ms
    return {key: row for key, row in copy.items() if row[1] is not None}


def held(event):
    return event.cells or event.siblings or event.value


def applied(under, table, position):
    """Wait until a reader has it."""
    list(under.store.scan(table, after=position, keys_only=True, deadline_ms=DEADLINE_MS))


def a_copy_is_the_table(under):
    table, source = under.make(partitions=3), random.Random(1)
    first = position = under.store.put(table, "k00", "first")
    for step in range(6):
        some = {f"k{source.randrange(30):02}": source.choice([None, f"{step}"]) for _ in range(20)}
        position |= under.store.put_many(table, some)
    applied(under, table, position)
    rows = {row.key: (row.version, row.value, ()) for row in under.store.scan(table, after=position)}
    assert told(under, table, "beginning") == told(under, table, first) == told(under, table, first.token) == rows
    begins = {key: row for key, row in rows.items() if key.startswith(b"k1")}
    assert told(under, table, "beginning", prefix="k1") == begins
    assert told(under, table, "now") == {}


def events_come_in_the_order_of_the_log(under):
    table = under.make(partitions=1)
    written = [under.store.put(table, "a", "1"), under.store.put(table, "b", "2"), under.store.delete(table, "a")]
    applied(under, table, written[-1])
    events = list(under.store.changes(table, since=written[0], follow=False))
    assert [(event.event, event.key, event.value, event.version, event.partition) for event in events] == [
        ("put", b"b", b"2", written[1].offset, 0),
        ("delete", b"a", None, written[2].offset, 0),
    ]
    assert all(event.timestamp_ms > 0 for event in events)
    rows = list(under.store.changes(table, since="beginning", follow=False))
    assert rows[0] == ChangeEvent("put", b"b", b"2", written[1].offset, 0, None)


def an_iterator_stands_where_it_was_made_and_another_goes_on_behind_it(under):
    table = under.make()
    applied(under, table, under.store.put(table, "before", "1"))
    events = under.store.changes(table)
    put = under.store.put(table, "a", "1")
    found = next(events)
    assert found == ChangeEvent("put", b"a", b"1", put.offset, put.partition, found.timestamp_ms)
    assert Position.parse(events.id).covers(put)
    position = under.store.put(table, "a", "2")
    applied(under, table, position)
    again = list(under.store.changes(table, since=events.id, follow=False))
    assert [(event.value, event.version) for event in again] == [(b"2", position.offset)]


def what_was_refused_is_no_event(under):
    table = under.make(conditional=True)
    first = under.store.put(table, "k", "1")
    refused = under.store.put_if(table, "k", "2", absent=True)
    added = under.store.incr(table, "n", 4)
    gone = under.store.delete_if(table, "none", present=True)
    assert (bool(refused), bool(added), bool(gone)) == (False, True, False)
    applied(under, table, refused.position | added.position | gone.position)
    assert told(under, table, first) == {b"n": (added.version, (4).to_bytes(8), ())}


def rows_are_told_with_their_ends(under):
    table = under.make(partitions=1, expiring=True)
    first = under.store.put(table, "stays", "1")
    under.store.put(table, "ends", "1", ttl_s=3_600)
    under.store.put(table, "n", (1).to_bytes(8), ttl_s=7_200)
    added = under.store.incr(table, "n", 4)
    under.store.put(table, "anew", "1", ttl_s=3_600)
    last = under.store.put(table, "anew", "2")
    applied(under, table, last)
    events = [event for event in under.store.changes(table, since=first, follow=False) if event.key == b"ends"]
    assert [event.expires_ms for event in events] == [event.ends_ms[0] for event in events]
    assert all(0 <= event.expires_ms - event.timestamp_ms - HOUR_MS < 60_000 for event in events)
    for since in ("beginning", first.token):
        rows = told(under, table, since)
        assert rows[b"ends"][2] == (events[-1].expires_ms,)
        assert rows[b"n"][:2] == (added.version, (5).to_bytes(8))
        assert rows[b"n"][2][0] > events[-1].expires_ms, "an increment keeps the end"
        assert rows[b"anew"] == (last.offset, b"2", ())


def a_row_that_has_ended_is_gone_from_a_copy_that_keeps_the_ends(under):
    table = under.make(partitions=1, expiring=True)
    first = under.store.put(table, "stays", "1")
    under.store.put(table, "ends", "1", ttl_s=0.001)
    last = under.store.put(table, "k", "2", ttl_s=3_600)

    def living():
        return {row.key: row for row in under.store.scan(table, after=last, deadline_ms=DEADLINE_MS)}

    rows = until("the row has ended", lambda: b"ends" not in (found := living()) and found)
    # A store in memory has but one clock, and names no instant.
    seen_ms = max(row.position.time_ms for row in rows.values()) or time.time_ns() // 1_000_000
    for since in ("beginning", first):
        copy = told(under, table, since)
        alive = {key for key, row in copy.items() if not row[2] or row[2][0] > seen_ms}
        assert alive == {b"stays", b"k"} - ({b"stays"} if since == first else set())


def siblings_are_told_each_with_its_end(under):
    table = under.make(partitions=1, siblings=True, expiring=True)
    first = under.store.put(table, "k", "1", seen=-1)
    under.store.put(table, "k", "2", seen=-1, ttl_s=3_600)
    last = under.store.put(table, "other", "3")
    applied(under, table, last)
    for since in ("beginning", first):
        version, values, ends = told(under, table, since)[b"k"]
        assert ([one.value for one in values], version) == ([b"1", b"2"], first.offset + 1)
        assert (ends[0], ends[1] > HOUR_MS) == (None, True)


def wide_rows_are_told_whole(under):
    table, source = under.make(partitions=2, wide=True, multi_row=True, families=FAMILIES), random.Random(3)
    keys = list(itertools.islice((f"k{n}" for n in itertools.count() if partition_of(b"k%d" % n, 2) == 0), 4))
    first = position = under.store.edit(table, "k0", RowEdit().set("content", "html", "0")).position
    for step in range(40):
        change = RowEdit()
        for _ in range(source.randrange(1, 4)):
            family, qualifier = source.choice(list(FAMILIES)), source.choice("abc")
            change.set(family, qualifier, f"{step}") if source.random() < 0.8 else change.delete(family, qualifier)
        if step % 4 == 0:
            outcome = under.store.edit_rows(table, dict.fromkeys(source.sample(keys, 3), change))
        else:
            outcome = under.store.edit(table, f"k{source.randrange(12)}", change)
        position |= outcome.position
    position |= under.store.delete(table, "k1") | under.store.put(table, "k2", "plain")
    applied(under, table, position)
    rows = {
        row.key: (row.version, row.cells, ())
        for row in under.store.scan_rows(table, after=position, deadline_ms=DEADLINE_MS)
    }
    assert len(rows) > 4
    assert told(under, table, "beginning") == told(under, table, first) | {
        key: row for key, row in rows.items() if row[0] <= first.offset and key == b"k0"
    }
    assert told(under, table, "beginning") == rows


def cells_are_told_each_with_its_end(under):
    table = under.make(partitions=1, wide=True, expiring=True, families=FAMILIES)
    first = under.store.put(table, "other", "1")
    change = RowEdit().set("anchor", "ends", "1", ttl_s=3_600).set("anchor", "stays", "2")
    last = under.store.edit(table, "k", change).position
    applied(under, table, last)
    for since in ("beginning", first):
        version, cells, ends = told(under, table, since)[b"k"]
        assert ([cell.qualifier for cell in cells], version) == ([b"ends", b"stays"], last.offset)
        assert (ends[0] > HOUR_MS, ends[1]) == (True, None)


def what_cells_held_before_is_told_where_their_versions_hold_it(under):
    table = under.make(partitions=1, wide=True, families=FAMILIES)
    first = under.store.put(table, "other", "plain")

    def changed(edit):
        """The event of one more edit of a row, once it has been applied and before another one is."""
        applied(under, table, under.store.edit(table, "k", edit).position)
        return next(events)

    events = under.store.changes(table, since=first, before=True)
    new = changed(RowEdit().set("content", "html", "1").set("anchor", "a", "1"))
    both = [("anchor", b"a", None, "one-version"), ("content", b"html", None, "none-held")]
    assert (new.before, new.before_reason) == (tuple(both), None)
    again = changed(RowEdit().set("content", "html", "2").set("anchor", "b", "1"))
    html = next(cell for cell in new.cells if cell.family == "content")
    assert again.before == (("anchor", b"b", None, "one-version"), ("content", b"html", html, None))
    assert [cell.value for cell in again.cells] == [b"1", b"1", b"2"], "what was not written is in the row alone"
    less = changed(RowEdit().delete("anchor", "a"))
    assert (less.before, less.before_reason, len(less.cells)) == ((), "deleted", 2)
    under.store.delete(table, "k")
    gone = next(events)
    assert (gone.event, gone.before, gone.before_reason) == ("delete", (), "deleted")
    (there,) = under.store.changes(table, since="beginning", follow=False, before=True)
    assert (there.key, there.before, there.before_reason) == (b"other", (), "snapshot")
    plain = under.make(partitions=1)
    first = under.store.put(plain, "k", "1")
    applied(under, plain, under.store.put(plain, "k", "2"))
    (put,) = under.store.changes(plain, since=first, follow=False, before=True)
    assert (put.value, put.before, put.before_reason) == (b"2", (), "one-version")
    (put,) = under.store.changes(plain, since=first, follow=False)
    assert (put.before, put.before_reason) == ((), None), "nobody asked"


def what_no_feed_can_mean_is_refused(under):
    table = under.make()
    for wrong in (
        {"since": 5},
        {"follow": 1},
        {"before": "yes"},
        {"patience_s": -1},
        {"since": "2026-13-45T00:00:00Z"},
    ):
        with pytest.raises(UsageError):
            next(under.store.changes(table, **{"patience_s": 0, "since": "beginning", **wrong}))
    with pytest.raises(BadToken):
        next(under.store.changes(table, since="nonsense"))
    with pytest.raises(BadToken):
        next(under.store.changes(table, since=under.store.put(under.make(), "k", "v")))
    with pytest.raises(NoSuchTable):
        next(under.store.changes("none", since="beginning"))


CHANGES = [
    a_copy_is_the_table, events_come_in_the_order_of_the_log,
    an_iterator_stands_where_it_was_made_and_another_goes_on_behind_it, what_was_refused_is_no_event,
    rows_are_told_with_their_ends, a_row_that_has_ended_is_gone_from_a_copy_that_keeps_the_ends,
    siblings_are_told_each_with_its_end, wide_rows_are_told_whole, cells_are_told_each_with_its_end,
    what_cells_held_before_is_told_where_their_versions_hold_it, what_no_feed_can_mean_is_refused,
]  # fmt: skip
