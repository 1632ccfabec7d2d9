"""What every store does with siblings, whatever is behind it: each function is a test of one."""

import json

import pytest
from support_contract import DEADLINE_MS

from logstore import BatchFailed, InvalidWrite, NoSiblings, SeveralValues, Sibling, UsageError, codecs
from logstore.client.read.row import SiblingRow
from logstore.model.hard_rows.changes.siblings import MAX_SIBLINGS


def values(row):
    return [one.value for one in row.siblings]


class Cart:
    """A shopping cart as in the Dynamo paper (DeCandia et al. 2007): a set of items, merged by union."""

    def __init__(self, under, table):
        self.under, self.table, self.seen, self.items = under, table, -1, set()

    def read(self, after=None):
        row = self.under.get(self.table, "cart", after=after)
        self.seen = -1 if row is None else row.version
        self.items = set() if row is None else {item for one in values(row) for item in json.loads(one)}
        return self

    def add(self, item):
        self.items |= {item}
        content = json.dumps(sorted(self.items))
        return self.under.store.put(self.table, "cart", content, seen=self.seen)


def two_carts_that_did_not_see_each_other_both_survive_and_a_third_merges_them(under):
    table = under.make(siblings=True)
    first = Cart(under, table).read().add("milk")
    phone, laptop, tablet = (Cart(under, table).read(after=first) for _ in range(3))
    phone.add("eggs")
    both = laptop.add("tea")
    row = under.get(table, "cart", after=both)
    assert values(row) == [b'["eggs", "milk"]', b'["milk", "tea"]']
    merged = tablet.read(after=both).add("salt")
    row = under.get(table, "cart", after=merged)
    assert (json.loads(row.value), row.version) == (["eggs", "milk", "salt", "tea"], merged.offset)
    late = laptop.add("jam")  # it has not seen the merge, nor what the phone wrote
    assert len(under.get(table, "cart", after=late).siblings) == 2
    assert Cart(under, table).read(after=late).items == {"eggs", "milk", "salt", "tea", "jam"}


def a_row_of_several_values_gives_all_of_them_and_never_one(under):
    store, table = under.store, under.make(siblings=True)
    one, two = (store.put(table, "ada", value, seen=-1) for value in ("1", b"\xff"))
    expected = (Sibling(one.offset, b"1"), Sibling(two.offset, b"\xff"))
    row = under.get(table, "ada", after=two)
    found = [row, *store.get_many(table, ["ada"], after=two, deadline_ms=DEADLINE_MS)]
    found += store.scan(table, after=two, deadline_ms=DEADLINE_MS)
    for each in found:
        assert type(each) is SiblingRow
        assert (each.siblings, each.version, each.position.covers(two)) == (expected, two.offset, True)
        with pytest.raises(SeveralValues, match=f"seen={two.offset}"):
            _ = each.value
    (keys_only,) = store.scan(table, keys_only=True, after=two, deadline_ms=DEADLINE_MS)
    assert (keys_only.value, keys_only.version) == (b"", two.offset)
    assert under.get(table, "ada", as_of=two).siblings == expected


def a_put_replaces_what_its_writer_had_seen_and_without_seen_everything(under):
    store, table = under.store, under.make(siblings=True)
    written = [store.put(table, "ada", str(n), seen=-1) for n in range(4)]
    after = store.put(table, "ada", "of two", seen=written[1].offset)
    assert values(under.get(table, "ada", after=after)) == [b"2", b"3", b"of two"]
    after = store.put(table, "ada", "all")
    assert under.get(table, "ada", after=after)[1:3] == (b"all", after.offset)


def a_delete_removes_what_its_writer_had_seen(under):
    store, table = under.store, under.make(siblings=True)
    one, _ = (store.put(table, "ada", value, seen=-1) for value in ("1", "2"))
    after = store.delete(table, "ada", seen=one.offset)
    left = under.get(table, "ada", after=after)
    assert (left.value, left.version) == (b"2", after.offset)
    gone = store.delete(table, "ada", seen=left.version)
    assert under.get(table, "ada", after=gone) is None
    store.put(table, "ada", "3", seen=-1)
    store.put(table, "ada", "4", seen=-1)
    assert under.get(table, "ada", after=store.delete(table, "ada")) is None


def what_is_no_version_is_refused_before_the_log_and_what_was_none_behind_it(under):
    store, table, plain = under.store, under.make(siblings=True), under.make()
    for seen in (-2, 1 << 63, True, 1.0, "1", b"1"):
        with pytest.raises(UsageError, match="seen is the version"):
            store.put(table, "ada", "1", seen=seen)
        with pytest.raises(UsageError, match="seen is the version"):
            store.delete(table, "ada", seen=seen)
    for write in (store.put, lambda *row, **terms: store.delete(*row[:2], **terms)):
        with pytest.raises(NoSiblings, match="--siblings"):
            write(plain, "ada", "1", seen=-1)
        with pytest.raises(UsageError, match="changed nothing"):
            write(table, "ada", "1", seen=1_000_000)
    assert under.get(table, "ada", consistency="latest") is None


def a_writer_can_ask_what_became_of_a_write_by_its_position(under):
    store, table = under.store, under.make(siblings=True)
    one = store.put(table, "ada", "1", seen=-1)
    outcome = store.outcome_of(table, "ada", one, deadline_ms=DEADLINE_MS)
    assert (outcome.outcome, outcome.version, outcome.offset, outcome.id) == ("applied", one.offset, one.offset, None)
    pipe = store.pipeline(table)
    ahead, plain = pipe.put("ada", "2", seen=1_000_000), pipe.put("ada", "3")
    with pytest.raises(InvalidWrite, match="bad-seen"):
        pipe.flush()
    position = ahead.exception().position
    refused = store.outcome_of(table, "ada", position, deadline_ms=DEADLINE_MS)
    assert (refused.outcome, refused.reason, bool(refused)) == ("invalid", "bad-seen", False)
    assert store.outcome_of(table, "ada", plain.result(), deadline_ms=DEADLINE_MS) is None
    other = store.put(under.make(siblings=True), "ada", "1", seen=-1)
    with pytest.raises(UsageError):
        store.outcome_of(table, "ada", one | other)


def the_values_of_a_row_are_bounded(under):
    store, table = under.store, under.make(siblings=True, partitions=1, max_value_bytes=100)
    pipe = store.pipeline(table)
    written = [pipe.put("many", str(n), seen=-1) for n in range(MAX_SIBLINGS + 1)]
    large = [pipe.put("large", bytes(50 + n), seen=-1) for n in range(2)]
    with pytest.raises(BatchFailed, match="2 changed nothing") as caught:
        pipe.flush()
    assert (caught.value.total, caught.value.failed) == (MAX_SIBLINGS + 3, 2)
    assert [one.exception() is None for one in written] == [True] * MAX_SIBLINGS + [False]
    refused = [written[-1].exception(), large[1].exception()]
    assert [(type(one), one.reason) for one in refused] == [(InvalidWrite, "too-many-siblings")] * 2
    with pytest.raises(InvalidWrite, match="merge its values") as alone:
        store.put(table, "many", "one more", seen=-1)
    outcome = store.outcome_of(table, "many", alone.value.position, deadline_ms=DEADLINE_MS)
    assert (outcome.outcome, outcome.reason) == ("invalid", "too-many-siblings")
    unasked = store.put(table, "many", "whatever becomes of it", seen=-1, level="all")
    assert store.outcome_of(table, "many", unasked, deadline_ms=DEADLINE_MS).reason == "too-many-siblings"
    row = under.get(table, "many", after=unasked)
    assert values(row) == [b"%d" % n for n in range(MAX_SIBLINGS)]
    merged = store.put(table, "many", "all", seen=row.version)
    assert under.get(table, "many", after=merged).value == b"all"


def what_needs_one_value_is_refused_while_there_are_several(under):
    store, table = under.store, under.make(siblings=True)
    two = [store.put(table, "ada", bytes(8), seen=-1) for _ in range(2)][1]
    for outcome in (store.incr(table, "ada"), store.append(table, "ada", "x")):
        assert (outcome.outcome, outcome.reason) == ("invalid", "siblings")
    rejected = store.put_if(table, "ada", "1", value_is=bytes(8))
    assert rejected[:2] == ("rejected", two.offset), "it is not the only value"
    assert store.put_if(table, "ada", bytes(8), version=two.offset).applied
    counted = store.incr(table, "ada", 5)
    assert (counted.applied, under.get(table, "ada", after=counted.token).value) == (True, (5).to_bytes(8))
    assert store.put_if(table, "ada", "1", value_is=(5).to_bytes(8)).applied


def sessions_and_typed_tables_write_what_they_had_seen(under):
    store, table = under.store, under.make(siblings=True)
    session, typed = store.session(), store.table(table, codec=codecs.json)
    session.put(table, "ada", "[1]", seen=-1)
    after = typed.put("ada", [2], seen=-1)
    row = typed.get("ada", after=after, deadline_ms=DEADLINE_MS)
    assert values(row) == [[1], [2]]
    with pytest.raises(SeveralValues):
        _ = row.value
    session.saw(after)
    assert values(session.get(table, "ada", deadline_ms=DEADLINE_MS)) == [b"[1]", b"[2]"]
    merged = typed.put("ada", [1, 2], seen=row.version)
    assert typed.get("ada", after=merged, deadline_ms=DEADLINE_MS).value == [1, 2]
    assert typed.get("ada", after=typed.delete("ada", seen=merged.offset), deadline_ms=DEADLINE_MS) is None
    session.delete(table, "ada", seen=session.put(table, "ada", "[3]", seen=-1).offset)
    assert session.get(table, "ada", deadline_ms=DEADLINE_MS) is None


SIBLINGS = [
    two_carts_that_did_not_see_each_other_both_survive_and_a_third_merges_them,
    a_row_of_several_values_gives_all_of_them_and_never_one,
    a_put_replaces_what_its_writer_had_seen_and_without_seen_everything,
    a_delete_removes_what_its_writer_had_seen,
    what_is_no_version_is_refused_before_the_log_and_what_was_none_behind_it,
    a_writer_can_ask_what_became_of_a_write_by_its_position,
    the_values_of_a_row_are_bounded,
    what_needs_one_value_is_refused_while_there_are_several,
    sessions_and_typed_tables_write_what_they_had_seen,
]
