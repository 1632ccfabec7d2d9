"""What every store does with conditional writes, whatever is behind it: each function is a test of one."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support_contract import DEADLINE_MS
from support_wait import until

from logstore import NoSuchTable, NotConditional, NotExpiring, UsageError
from logstore.client.conditional.record import Expected, append_record, incr_record, put_record
from logstore.model.errors import BadKey, ValueTooLarge

LARGEST = (1 << 63) - 1


def value_of(under, table, key, outcome):
    row = under.get(table, key, after=outcome.token)
    return None if row is None else row.value


def count_of(under, table, key, outcome):
    return int.from_bytes(value_of(under, table, key, outcome), signed=True)


def a_row_is_made_once(under):
    table = under.make(conditional=True)
    first, second = (under.store.put_if(table, "ada", value, absent=True) for value in ("1", "2"))
    assert (first.outcome, first.version, bool(first)) == ("applied", first.offset, True)
    assert (second.outcome, second.version, bool(second)) == ("rejected", first.offset, False)
    assert second.position.covers(first.position)
    assert value_of(under, table, "ada", second) == b"1"


def a_condition_holds_or_nothing_changes(under):
    store, table = under.store, under.make(conditional=True)
    assert store.put_if(table, "ada", "0", present=True)[:2] == ("rejected", None)
    assert store.put_if(table, "ada", "0", version=0)[:2] == ("rejected", None)
    put = store.put(table, "ada", "1")
    rejected = "rejected", put.offset
    assert store.put_if(table, "ada", "0", value_is="2")[:2] == rejected
    assert store.delete_if(table, "ada", absent=True)[:2] == rejected
    assert store.delete_if(table, "ada", version=put.offset + 1)[:2] == rejected
    put = store.put_if(table, "ada", "2", version=put.offset)
    put = store.put_if(table, "ada", "3", value_is=b"2", headers={"by": "me"})
    assert (put.applied, value_of(under, table, "ada", put)) == (True, b"3")
    gone = store.delete_if(table, "ada", present=True)
    assert (gone.applied, value_of(under, table, "ada", gone)) == (True, None)
    assert store.delete_if(table, "ada", present=True)[:2] == ("rejected", None), (
        "a deleted row is as one never written"
    )
    assert store.put_if(table, "ada", "4", absent=True).applied


def of_two_writers_with_one_expectation_one_wins(under):
    table = under.make(conditional=True)
    assert under.store.cas(table, "ada", None, "0").applied
    for turn in range(5):
        with ThreadPoolExecutor(2) as pool:
            race = [pool.submit(under.store.cas, table, "ada", str(turn), str(turn + 1)) for _ in range(2)]
            outcomes = sorted(one.result().outcome for one in race)
        assert outcomes == ["applied", "rejected"], turn
    last = under.store.cas(table, "ada", "5", None)
    assert value_of(under, table, "ada", last) is None


def a_counter_misses_none_of_its_increments(under):
    table = under.make(conditional=True)
    with ThreadPoolExecutor(8) as pool:
        counted = [
            pool.submit(under.store.incr, table, "hits", 1 + worker % 3) for worker in range(8) for _ in range(5)
        ]
        outcomes = [one.result() for one in counted]
    assert {one.outcome for one in outcomes} == {"applied"}
    last = under.store.incr(table, "hits", -1)
    assert count_of(under, table, "hits", last) == 5 * (3 * 1 + 3 * 2 + 2 * 3) - 1


def bytes_are_put_behind_others(under):
    table = under.make(conditional=True, max_value_bytes=9)
    assert under.store.append(table, "ada", "1815").applied
    whole = under.store.append(table, b"ada", b"-1852")
    assert value_of(under, table, "ada", whole) == b"1815-1852"
    longer = under.store.append(table, "ada", "!")
    assert (longer.outcome, longer.reason, longer.version) == ("invalid", "too-large", None)
    assert value_of(under, table, "ada", longer) == b"1815-1852"


def what_cannot_be_counted_is_invalid(under):
    store, table = under.store, under.make(conditional=True)
    store.put(table, "ada", "1815")
    assert store.incr(table, "ada").reason == "wrong-length"
    assert store.incr(table, "most", LARGEST).applied
    assert store.incr(table, "most").reason == "overflow"
    least = store.incr(table, "least", -LARGEST - 1)
    assert count_of(under, table, "least", least) == -LARGEST - 1


def a_record_that_comes_twice_has_effect_once(under):
    store, table = under.store, under.make(conditional=True)
    record = incr_record("hits", 5, None)
    first, second, third = (store.decide(table, record) for _ in range(3))
    assert first.outcome == "applied"
    for repeated in (second, third):
        assert repeated[:5] == ("duplicate", first.offset, None, first.offset, "applied")
        assert (repeated.applied, repeated.offset > first.offset, repeated.id) == (True, True, first.id)
    assert count_of(under, table, "hits", third) == 5
    refused = put_record("hits", "v", Expected(absent=True), None)
    was = store.decide(table, refused)
    assert store.decide(table, refused)[:5] == ("duplicate", was.version, None, was.offset, "rejected")


def an_id_with_another_content_is_invalid(under):
    store, table = under.store, under.make(conditional=True)
    record = incr_record("hits", 5, None)
    first = store.decide(table, record)
    other = store.decide(table, append_record("hits", "x", None)._replace(own=(*record.own[:1], ("ls.op", b"append"))))
    assert (other.outcome, other.reason, other.applied) == ("invalid", "id-reused", False)
    elsewhere = store.decide(table, incr_record("misses", 1, None)._replace(own=record.own))
    assert elsewhere.outcome == "applied", "an id is its row's"
    assert count_of(under, table, "hits", other) == 5
    assert store.outcome_of(table, "hits", first.id, deadline_ms=DEADLINE_MS).outcome == "applied"


def an_outcome_is_found_by_its_id(under):
    store, table = under.store, under.make(conditional=True)
    made = store.put_if(table, "ada", "1", absent=True)
    refused = store.put_if(table, "ada", "2", absent=True)
    store.decide(
        table,
        put_record("ada", "2", Expected(absent=True), None)._replace(own=(("ls.id", refused.id), ("ls.if", b"absent"))),
    )
    for known in (made, refused):
        for name in (known.id, known.id.hex()):
            found = store.outcome_of(table, "ada", name, deadline_ms=DEADLINE_MS)
            assert found._replace(token="") == known._replace(token=""), "the first record of an id decides"
            assert found.position.covers(known.position)
    assert store.outcome_of(table, "ada", b"\0" * 16, after=made.token, deadline_ms=DEADLINE_MS) is None
    assert store.outcome_of(table, "bob", made.id, consistency="linearizable", deadline_ms=DEADLINE_MS) is None


def sessions_and_typed_tables_see_what_was_decided(under):
    from logstore import codecs  # noqa: PLC0415 - of one test

    table = under.make(conditional=True)
    session = under.store.session()
    assert session.incr(table, "hits", 3).applied
    assert int.from_bytes(session.get(table, "hits", deadline_ms=DEADLINE_MS).value, signed=True) == 3
    assert session.outcome_of(table, "hits", b"\1" * 16, deadline_ms=DEADLINE_MS) is None
    people = under.store.table(table, codecs.json)
    born = people.put_if("ada", {"born": 1815}, absent=True)
    assert people.cas("ada", {"born": 1815}, {"born": 1815, "died": 1852}).applied
    assert not people.put_if("ada", None, version=born.version)
    assert not people.delete_if("ada", value_is={"born": 1815})
    gone = people.delete_if("ada", value_is={"born": 1815, "died": 1852})
    assert people.get("ada", after=gone.token, deadline_ms=DEADLINE_MS) is None


def a_pipeline_decides_without_waiting_for_each(under):
    table, done = under.make(conditional=True), []
    with under.store.pipeline(table) as pipeline:
        added = [pipeline.incr(f"n{i % 7}", i) for i in range(700)]
        made, refused = (pipeline.put_if("ada", value, absent=True) for value in ("1", "2"))
        swapped = pipeline.cas("ada", "1", "3")
        longer = pipeline.append("ada", "4", headers={"by": "me"})
        invalid = pipeline.incr("ada")
        gone = pipeline.delete_if("ada", value_is="34")
        plain = pipeline.put("bob", "1")
        gone.add_done_callback(done.append)
        assert pipeline.count == 707
        pipeline.flush(60)
        assert (gone.done(), gone.exception(), done) == (True, None, [gone])
    outcomes = [one.result() for one in (made, refused, swapped, longer, invalid, gone)]
    assert [one.outcome for one in outcomes] == ["applied", "rejected", "applied", "applied", "invalid", "applied"]
    assert [one.offset for one in outcomes] == list(range(outcomes[0].offset, outcomes[0].offset + 6))
    assert refused.result()[:2] == ("rejected", made.result().offset)
    assert {one.result().outcome for one in added} == {"applied"}
    for i in range(7):
        assert count_of(under, table, f"n{i}", added[693 + i].result()) == sum(range(i, 700, 7))
    assert under.scan(table, after=plain.result(), prefix="b") == [b"bob"]
    with pytest.raises(UsageError):
        pipeline.incr("n0")
    with under.store.pipeline(under.make()) as pipeline, pytest.raises(NotConditional):
        pipeline.incr("n0")


def a_plain_table_takes_none(under):
    store, table = under.store, under.make()
    for call in (
        lambda: store.put_if(table, "k", "v", absent=True), lambda: store.delete_if(table, "k", present=True),
        lambda: store.cas(table, "k", None, "v"), lambda: store.incr(table, "k"), lambda: store.append(table, "k", "v"),
        lambda: store.outcome_of(table, "k", b"\0" * 16, deadline_ms=DEADLINE_MS),
    ):  # fmt: skip
        with pytest.raises(NotConditional, match="table create NAME --conditional"):
            call()
    assert under.get(table, "k", after=store.put(table, "other", "")) is None


def what_is_wrong_is_refused_before_the_log(under):
    store, table = under.store, under.make(conditional=True, max_value_bytes=9)
    before = store.put(table, "k", "v")
    wrong = [
        (UsageError, lambda: store.put_if(table, "k", "w")), (UsageError, lambda: store.delete_if(table, "k")),
        (UsageError, lambda: store.put_if(table, "k", "w", absent=True, present=True)),
        (UsageError, lambda: store.put_if(table, "k", "w", absent=1)),
        (UsageError, lambda: store.put_if(table, "k", "w", version=-1)),
        (UsageError, lambda: store.put_if(table, "k", "w", version=True)),
        (UsageError, lambda: store.put_if(table, "k", "w", version="0")),
        (UsageError, lambda: store.put_if(table, "k", "w", value_is=5)),
        (UsageError, lambda: store.put_if(table, "k", None, present=True)),
        (UsageError, lambda: store.put_if(table, "k", "w", present=True, headers={"ls.id": b"\0" * 16})),
        (BadKey, lambda: store.cas(table, "", None, "w")), (BadKey, lambda: store.append(table, b"k" * 65_536, "w")),
        (ValueTooLarge, lambda: store.cas(table, "k", "v", "0123456789")),
        (ValueTooLarge, lambda: store.append(table, "k", "0123456789")),
        (UsageError, lambda: store.incr(table, "k", LARGEST + 1)), (UsageError, lambda: store.incr(table, "k", 1.0)),
        (UsageError, lambda: store.incr(table, "k", True)), (UsageError, lambda: store.append(table, "k", 5)),
        (UsageError, lambda: store.outcome_of(table, "k", "xy")),
        (UsageError, lambda: store.outcome_of(table, "k", b"1")),
        (UsageError, lambda: store.outcome_of(table, "k", b"\0" * 16, consistency="strong")),
        (BadKey, lambda: store.outcome_of(table, "", b"\0" * 16)),
        (NoSuchTable, lambda: store.incr("none", "k")),
        (NoSuchTable, lambda: store.outcome_of("none", "k", b"\0" * 16)),
    ]  # fmt: skip
    for error, call in wrong:
        with pytest.raises(error):
            call()
    after = store.put_if(table, "k", "w", version=before.offset)
    assert (after.outcome, after.offset) == ("applied", before.offset + 1), "nothing came between"


def a_row_with_a_ttl_is_gone_again(under):
    store, table = under.store, under.make(expiring=True)
    assert store.put(table, "stays", "v", ttl_s=3_600)
    stays = store.put_if(table, "kept", "v", absent=True, ttl_s=3_600)
    gone = store.put(table, "gone", "v", ttl_s=0.05)
    until("its end has come", lambda: under.get(table, "gone", after=gone) is None)
    assert value_of(under, table, "stays", stays) == b"v"
    assert under.scan(table, after=stays.token) == [b"kept", b"stays"]
    again = store.put_if(table, "gone", "w", absent=True)
    assert again.applied, "to conditions, a row that has ended is as one never written"
    assert value_of(under, table, "gone", again) == b"w"
    for plain in (under.make(), under.make(conditional=True)):
        with pytest.raises(NotExpiring, match="--expiring"):
            store.put(plain, "k", "v", ttl_s=1)
    for wrong in (0, -1, "1", True, float("nan"), 1e10):
        with pytest.raises(UsageError):
            store.put(table, "k", "v", ttl_s=wrong)


CONDITIONAL = [
    a_row_is_made_once, a_condition_holds_or_nothing_changes, of_two_writers_with_one_expectation_one_wins,
    a_counter_misses_none_of_its_increments, bytes_are_put_behind_others, what_cannot_be_counted_is_invalid,
    a_record_that_comes_twice_has_effect_once, an_id_with_another_content_is_invalid, an_outcome_is_found_by_its_id,
    a_row_with_a_ttl_is_gone_again, a_pipeline_decides_without_waiting_for_each,
    sessions_and_typed_tables_see_what_was_decided, a_plain_table_takes_none, what_is_wrong_is_refused_before_the_log,
]  # fmt: skip
