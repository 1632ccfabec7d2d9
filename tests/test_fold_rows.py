"""The fold of hard rows against an independent model, and the sentences of the design one by one."""

import random

import msgpack
import pytest
import xxhash
from support_hard import Log, Partition, kv, reference_of, wide
from support_reference import Reference

from logstore.model.folding.mutation import Quarantined
from logstore.model.hard_rows.outcomes import AppliedOutcome, DuplicateOutcome, InvalidOutcome, RejectedOutcome
from logstore.model.partitioner import partition_of

KEYS = [key for key in (b"row-%d" % n for n in range(40)) if partition_of(key, 2) == 0][:4]
ELSEWHERE = next(key for key in (b"row-%d" % n for n in range(40)) if partition_of(key, 2) == 1)
A, B = KEYS[:2]
ID, OTHER_ID = b"i" * 16, b"j" * 16


# against the model


class Histories:
    """Random histories in which things meet: few rows, cells and ids, conditions on what may well be there."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.table = self.rng.choice(["kv", "kv with versions", "siblings", "wide", "multi-row"])
        self.rules = self._rules({"max_value_bytes": 20, "dedup_window_ms": 40, "dedup_records": 6})

    def _rules(self, small):
        if self.table == "siblings":
            return kv(keeps_siblings=True, **small)
        if self.table.startswith("kv"):
            return kv(versions=3 if "versions" in self.table else 1, **small)
        return wide(multi_row=self.table == "multi-row", max_row_cells=3, **{**small, "max_value_bytes": 120})

    def log(self, length):
        now, log = 1_000, Log()
        for offset in range(length):
            now += self.rng.choice([-4, 0, 0, 1, 2, 8])
            operation, value = self._operation()
            key = self.rng.choice(KEYS[:2])
            log.add(key, value, operation, timestamp=now, **self._terms(offset))
        return log

    def _operation(self):
        rng = self.rng
        if rng.random() < (0.7 if self.rules.wide else 0.02):
            return "edit", msgpack.packb(self._edits())
        operation = rng.choice(["put", "put", "put", "delete", "incr", "append"])
        if operation == "incr":
            return operation, rng.choice([b"short", None, self._delta().to_bytes(8, "big", signed=True)])
        return operation, None if operation == "delete" else self._payload()

    def _terms(self, offset):
        rng = self.rng
        near = max(offset - rng.choice([0, 1, 1, 2, 2, 3, 5, 9]), -1)
        cell = rng.choice([b":", b"a:q", b"b:q", b"gone:q"])
        digest = xxhash.xxh3_128_digest(self._payload())
        conditions = [
            b"absent", b"present", b"version:%d" % max(near, 0), b"version:%d@%b" % (max(near, 0), cell),
            b"value:" + digest,
        ]  # fmt: skip
        seen = (
            {"seen": b"%d" % rng.choice([near, near, -1])}
            if rng.random() < (0.8 if self.rules.keeps_siblings else 0.02)
            else {}
        )
        return seen | {
            name: content
            for name, share, content in (
                ("id", 0.3, b"%016d" % rng.randrange(3)),
                ("if", 0.3, rng.choice(conditions)),
                ("ttl", 0.3, rng.choice([0, 3, 3, 9, 20, 2**63 - 1]).to_bytes(8, "big")),
            )
            if rng.random() < share
        }

    def _edits(self):
        rng = self.rng
        if rng.random() < (0.4 if self.rules.multi_row else 0.02):
            rows = rng.choices([*KEYS[:2], *KEYS[:2], *KEYS[:2], ELSEWHERE], k=rng.choice([1, 2, 2, 3]))
            return [["row", row, self._row_edits()] for row in rows]
        return self._row_edits()

    def _row_edits(self):
        return [self._edit() for _ in range(self.rng.choice([1, 1, 2, 3, 4]))]

    def _edit(self):
        rng = self.rng
        family, qualifier = rng.choice(["", "a", "a", "b", "b"] * 5 + ["unknown"]), rng.choice([b"", b"q", b"q"])
        verb = rng.choice(["set", "set", "set", "del", "incr", "append", "append", "del-row", "del-family"])
        if verb == "set":
            return [verb, family, qualifier, self._payload(), *rng.choice([[], [], [rng.choice([0, 5, 40])]])]
        more = {"del": [], "incr": [self._delta()], "append": [self._payload()]}
        if verb in more:
            return [verb, family, qualifier, *more[verb]]
        return [verb, family] if verb == "del-family" else [verb]

    def _payload(self):
        return self.rng.choice([b"", b"a", b"bc", b"12345678", b"\x7f" + b"\xff" * 7])

    def _delta(self):
        return self.rng.choice([1, 1, -1, 2**63 - 1])


@pytest.mark.parametrize("seeds", [range(first, first + 150) for first in range(0, 600, 150)], ids=lambda one: one[0])
def test_every_history_folds_to_what_the_model_says(seeds):
    for seed in seeds:
        histories = Histories(seed)
        rules, log = histories.rules, histories.log(40)
        partition, reference = Partition(rules), reference_of(rules)
        while partition.next_offset < len(log.records):
            upto = min(partition.next_offset + histories.rng.choice([1, 2, 5, 20]), len(log.records))
            for offset, record in log.between(partition.next_offset, upto):
                if isinstance(record.parsed(rules), Quarantined):
                    reference.log_time = max(reference.log_time, record.timestamp)
                else:
                    reference.take(offset, *record[:5])
            partition.take(log, upto)
            reference.sweep()
            assert partition.state() == state_of(reference), (seed, upto)
            if histories.rng.random() < 0.5:
                partition.reclaim()
                assert partition.state() == state_of(reference), "removing bytes changes no state"


def test_rows_folded_one_by_one_are_those_folded_together():
    """What Spark does, which has the records by key: but for edits of several rows, no row asks another."""
    for seed in range(150):
        histories = Histories(seed)
        rules, log = histories.rules._replace(multi_row=False), histories.log(40)
        together, alone = Partition(rules), Partition(rules)
        together.take(log, len(log.records))
        alone.take_by_row(log)
        assert alone.state() == together.state(), seed


def test_histories_meet_every_outcome():
    met = set()
    for seed in range(150):
        histories = Histories(seed)
        for outcome in outcomes(histories.log(40), histories.rules):
            met.add((type(outcome), *([outcome.reason] if isinstance(outcome, InvalidOutcome) else [])))
    reasons = {
        "id-reused", "not-wide", "unknown-family", "wrong-partition", "wrong-length", "overflow", "too-large",
        "row-too-wide", "siblings", "bad-seen", "too-many-siblings",
    }  # fmt: skip
    assert met == {
        (AppliedOutcome,),
        (RejectedOutcome,),
        (DuplicateOutcome,),
        *((InvalidOutcome, reason) for reason in reasons),
    }


def state_of(reference: Reference):
    """The state of the model in the form in which `Partition.state` gives that of the fold."""
    cells = {
        cell: (reference.changed[cell], [tuple(one) for one in values]) for cell, values in reference.cells.items()
    }
    return cells, reference.groups, reference.ids, reference.outcomes, reference.log_time, reference.counter


# sentence by sentence


def folded(log, rules=None):
    partition = Partition(rules or kv())
    partition.take(log, len(log.records))
    return partition


def outcomes(log, rules=None):
    return [remembered.outcome for remembered in folded(log, rules).outcomes.values()]


def test_a_condition_asks_the_state_below_the_record():
    log = Log().put(A, b"1", condition=b"absent").put(A, b"2", condition=b"absent").put(A, b"3", condition=b"version:0")
    assert outcomes(log) == [AppliedOutcome(), RejectedOutcome(0), AppliedOutcome()]
    assert folded(log).value(A) == b"3"


def test_a_deleted_row_is_as_one_never_written():
    log = Log().put(A, b"1").delete(A).put(A, b"2", condition=b"version:0").put(A, b"3", condition=b"version:1")
    log.put(A, b"4", condition=b"present").put(A, b"5", condition=b"absent")
    assert outcomes(log) == [RejectedOutcome(None), RejectedOutcome(None), RejectedOutcome(None), AppliedOutcome()]


def test_log_time_is_advanced_before_a_record_asks():
    log = Log().put(A, b"1", ttl=10, timestamp=100).put(B, b"x", timestamp=109)
    log.put(A, b"2", condition=b"present", timestamp=50).put(A, b"3", condition=b"present", ttl=5, timestamp=105)
    log.put(A, b"4", condition=b"present", timestamp=114)
    assert outcomes(log) == [AppliedOutcome(), AppliedOutcome(), RejectedOutcome(None)], (
        "log time never goes back; the end is the end"
    )


def test_an_id_has_effect_once():
    log = Log().incr(A, 5, id=ID).incr(A, 5, id=ID).incr(A, 6, id=ID).incr(B, 5, id=ID)
    assert outcomes(log) == [
        AppliedOutcome(),
        DuplicateOutcome(0, AppliedOutcome()),
        InvalidOutcome("id-reused"),
        AppliedOutcome(),
    ]
    assert folded(log).value(A) == (5).to_bytes(8, "big")


def test_a_repeated_id_tells_the_outcome_of_the_first_whatever_it_was():
    log = Log().put(A, b"1", id=ID, condition=b"present").put(A, b"2").put(A, b"1", id=ID, condition=b"present")
    assert outcomes(log) == [RejectedOutcome(None), DuplicateOutcome(0, RejectedOutcome(None))]


def test_an_id_is_never_renewed_and_ends_with_its_window():
    rules = kv(dedup_window_ms=100)
    log = Log().incr(A, 1, id=ID, timestamp=0).incr(A, 1, id=ID, timestamp=99).incr(A, 1, id=ID, timestamp=100)
    assert outcomes(log, rules) == [AppliedOutcome(), DuplicateOutcome(0, AppliedOutcome()), AppliedOutcome()]
    assert list(folded(log, rules).state()[3]) == [1, 2], "the first outcome has ended with its id"
    assert folded(log, rules).value(A) == (2).to_bytes(8, "big")


def test_an_id_ends_with_its_number_even_while_time_stands_still():
    rules = kv(dedup_records=2)
    log = Log().incr(A, 1, id=ID).incr(B, 1).incr(A, 1, id=ID).incr(A, 1, id=ID)
    assert folded(log, rules).value(A) == (2).to_bytes(8, "big")


def test_the_content_of_an_id_is_its_operation_terms_and_value():
    log = Log().put(A, b"1", id=ID)
    log.put(A, b"1", id=ID, operation="put").put(A, b"2", id=ID).put(A, b"1", id=ID, ttl=5)
    log.put(A, b"1", id=ID, condition=b"absent").delete(A, id=ID)
    reused = InvalidOutcome("id-reused")
    assert outcomes(log) == [AppliedOutcome(), DuplicateOutcome(0, AppliedOutcome()), reused, reused, reused, reused]


def test_a_delete_ignores_its_value_when_ids_are_compared():
    log = Log().add(A, b"x", "delete", id=ID).add(A, b"y", "delete", id=ID).add(A, None, None, id=ID)
    assert outcomes(log) == [
        AppliedOutcome(),
        DuplicateOutcome(0, AppliedOutcome()),
        DuplicateOutcome(0, AppliedOutcome()),
    ]


def test_counters_end_at_their_bounds_and_change_nothing_there():
    log = Log().incr(A, 2**63 - 1).incr(A, 1).put(B, b"no counter").incr(B, 1).add(A, b"short", "incr")
    assert outcomes(log) == [
        AppliedOutcome(),
        InvalidOutcome("overflow"),
        InvalidOutcome("wrong-length"),
        InvalidOutcome("wrong-length"),
    ]
    assert folded(log).value(A) == (2**63 - 1).to_bytes(8, "big")


def test_an_append_beyond_the_limit_of_a_value_is_invalid():
    log = Log().append(A, b"12345").append(A, b"67890").append(A, b"!")
    assert outcomes(log, kv(max_value_bytes=10)) == [AppliedOutcome(), AppliedOutcome(), InvalidOutcome("too-large")]


def test_a_ttl_of_nothing_deletes_and_the_longest_never_overflows():
    log = Log().put(A, b"1").put(A, b"2", ttl=0, timestamp=5).put(B, b"3", ttl=2**63 - 1, timestamp=5)
    partition = folded(log)
    assert partition.value(A) is None
    assert partition.cell(B).members[0].expires_ms == 2**63 - 1


def test_incr_and_append_keep_the_end_that_the_cell_has():
    log = Log().put(A, b"1", ttl=10, timestamp=0).append(A, b"2", timestamp=5).append(A, b"3", ttl=10, timestamp=6)
    assert [folded(log.upto(n)).cell(A).members[0].expires_ms for n in (1, 2, 3)] == [10, 10, 16]


def test_older_versions_are_of_the_present_life_alone():
    log = Log().put(A, b"1").put(A, b"2").delete(A).put(A, b"3").put(A, b"4")
    assert folded(log, kv(versions=3)).history(A) == [b"4", b"3"]


def test_a_put_that_finds_the_newest_ended_begins_a_new_life():
    log = Log().put(A, b"1", timestamp=0).put(A, b"2", ttl=5, timestamp=0).put(A, b"3", timestamp=5)
    assert folded(log, kv(versions=3)).history(A) == [b"3"]


def test_what_was_trimmed_never_comes_back():
    log = Log().put(A, b"1", timestamp=0).put(A, b"2", ttl=5, timestamp=0).put(A, b"3", timestamp=1)
    log.put(B, b"", timestamp=9)
    assert folded(log, kv(versions=2)).history(A) == [b"3"]


def test_an_edit_is_all_or_nothing():
    log = Log().edit(A, ["set", "a", "q", b"1"], ["set", "unknown", "q", b"2"]).edit(A, ["set", "a", "q", b"3"])
    assert outcomes(log, wide()) == [InvalidOutcome("unknown-family"), AppliedOutcome()]


def test_edits_act_upon_each_other_and_only_the_last_result_is_written():
    log = Log().edit(A, ["set", "b", "q", b"old"])
    log.edit(A, ["set", "b", "q", b"1"], ["append", "b", "q", b"2"], ["append", "b", "q", b"3"])
    assert folded(log, wide()).history(A, "b", b"q") == [b"123", b"old"]


def test_a_cell_that_is_deleted_and_set_in_one_record_begins_a_new_life():
    log = Log().edit(A, ["set", "b", "q", b"old"]).edit(A, ["del", "b", "q"], ["set", "b", "q", b"new"])
    assert folded(log, wide()).history(A, "b", b"q") == [b"new"]


def test_the_row_version_is_that_of_the_last_record_that_named_a_cell_of_it():
    log = Log().edit(A, ["set", "a", "q", b"1"]).edit(A, ["set", "b", "q", b"2"]).edit(A, ["del", "b", "q"])
    assert folded(log, wide()).row(A).version == 2, "deleting the newer cell does not bring the older version back"
    assert folded(log, wide()).row(A).versions == {"": 2, "bulk": 0}


def test_a_group_that_a_new_life_does_not_name_has_no_version():
    log = Log().edit(A, ["set", "a", "q", b"1"]).edit(A, ["del-row"]).edit(A, ["set", "b", "q", b"2"])
    assert folded(log, wide()).row(A).versions == {"": 2}


def test_a_condition_may_name_a_cell_and_is_told_its_version():
    log = Log().edit(A, ["set", "a", "q", b"1"]).edit(A, ["set", "b", "q", b"2"])
    log.edit(A, ["del-row"], condition=b"version:1@a:q").edit(A, ["del-row"], condition=b"version:7@a:none")
    log.edit(A, ["del", "a", "q"], condition=b"version:0@a:q")
    assert outcomes(log, wide())[2:] == [RejectedOutcome(0), RejectedOutcome(None), AppliedOutcome()]


def test_a_row_holds_so_many_cells_and_no_more():
    log = Log().edit(A, *(["set", "a", str(n), b""] for n in range(3))).edit(A, ["set", "a", "more", b""])
    log.edit(A, ["del", "a", "0"], ["set", "a", "more", b""])
    assert outcomes(log, wide(max_row_cells=3)) == [AppliedOutcome(), InvalidOutcome("row-too-wide"), AppliedOutcome()]


def test_a_multi_row_edit_is_judged_on_all_rows_it_names():
    log = Log().edit(A, ["row", A, [["set", "a", "q", b"1"]]], ["row", B, [["incr", "a", "q", 1]]])
    log.edit(A, ["row", A, [["set", "a", "q", b"2"]]], ["row", B, [["set", "a", "q", b"no counter"]]])
    log.edit(A, ["row", A, [["set", "a", "q", b"3"]]], ["row", B, [["incr", "a", "q", 1]]])
    log.edit(A, ["row", ELSEWHERE, [["set", "a", "q", b"4"]]])
    found = folded(log, wide(multi_row=True))
    assert [remembered.outcome for remembered in found.outcomes.values()] == [
        AppliedOutcome(), AppliedOutcome(), InvalidOutcome("wrong-length"), InvalidOutcome("wrong-partition"),
    ]  # fmt: skip
    assert found.value(A, "a", b"q") == b"2", "the third record changed neither of its rows"


BAD_EDITS = [
    {}, 7, [7], [[]], [["unknown"]], [[b"set", "a", "q", b""]], [["set", b"a", "q", b""]], [["set", "ä", "q", b""]],
    [["set", "a", "q"]], [["set", "a", "q", b"", 1, 2]], [["set", "a", "q", b"", -1]], [["set", "a", "q", b"", None]],
    [["set", "a", "q", 5]], [["set", "a", 5, b""]], [["incr", "a", "q", True]], [["incr", "a", "q", 2**63]],
    [["incr", "a", "q", 1.0]], [["incr", "a", "q", b"1"]], [["del-row", "a"]], [["del-family"]], [["del", "a"]],
    [["append", "a", "q", None]], [["row", A, []], ["row", b"", []]], [["row", A, [["row", A, []]]]],
    [["row", b"k" * 65_536, []]], [["row", A, {}]], [["row", A]], [["set", "a", "q", b"", 2**63]],
    [msgpack.ExtType(1, b"x")], [msgpack.Timestamp(1)],
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_EDITS, ids=lambda bad: repr(bad)[:40])
def test_what_is_no_edit_is_invalid_for_ever(bad):
    rules = wide(multi_row=True, max_value_bytes=100_000)
    assert outcomes(Log().add(A, msgpack.packb(bad), "edit"), rules) == [InvalidOutcome("bad-edit")]


def test_an_object_that_python_cannot_hold_is_no_edit():
    for raw in (b"\x81\x91\x01\x02", b"\x81\x80\x01", b"\xc7\x01\x05\x00", b"\xd6\xff\xff\xff\xff\xff"):
        assert outcomes(Log().add(A, raw, "edit"), wide()) == [InvalidOutcome("bad-edit")]


def test_qualifiers_and_payloads_are_bytes_whatever_they_were_written_as():
    raw = b"\x91\x94\xa3set\xa1a\xa2\xff\xfe\xa1\xff"  # str that is no UTF-8
    found = folded(Log().add(A, raw, "edit").edit(A, ["append", "a", b"\xff\xfe", b"!"]), wide())
    assert found.value(A, "a", b"\xff\xfe") == b"\xff!"


def test_an_edit_of_a_table_that_is_not_wide_is_invalid():
    assert outcomes(Log().edit(A, ["set", "", "", b"1"])) == [InvalidOutcome("not-wide")]


def test_rows_in_edits_are_for_tables_of_multi_row_edits():
    log = Log().edit(A, ["row", A, [["del-row"]]])
    assert log.records[0].parsed(wide()) == Quarantined("unknown-operation")


def test_ttls_are_for_tables_of_the_brokers_time():
    rules = wide(by_broker_time=False)
    for log in (
        Log().put(A, b"1", ttl=1), Log().edit(A, ["set", "a", "q", b"1", 5]), Log().edit(A, ["del-row"], ttl=0),
        Log().edit(A, ["row", B, [["set", "a", "q", b"1", 5]]]),
    ):  # fmt: skip
        assert log.records[0].parsed(rules) == Quarantined("bad-ttl")


def test_writers_time_ends_no_id():
    rules = kv(by_broker_time=False, dedup_window_ms=5)
    log = Log().incr(A, 1, id=ID, timestamp=0).incr(A, 1, id=ID, timestamp=10**6)
    assert outcomes(log, rules) == [AppliedOutcome(), DuplicateOutcome(0, AppliedOutcome())]


# siblings


def siblings(**more):
    return kv(keeps_siblings=True, **more)


def test_writers_that_had_not_seen_each_other_leave_siblings():
    log = Log().put(A, b"one", seen=-1).put(A, b"two", seen=-1).put(A, b"both", seen=1).put(A, b"late", seen=0)
    assert folded(log.upto(2), siblings()).members(A) == [b"one", b"two"]
    assert folded(log.upto(3), siblings()).members(A) == [b"both"]
    assert folded(log, siblings()).members(A) == [b"both", b"late"]


def test_a_delete_removes_what_it_had_seen_and_the_row_is_another_one_then():
    log = Log().put(A, b"one", seen=-1).put(A, b"two", seen=-1).delete(A, seen=0)
    found = folded(log, siblings())
    assert found.members(A) == [b"two"]
    assert found.row(A).version == 2, "an ETag of the row before must not be this one's"


def test_a_writer_that_does_not_say_what_it_had_seen_replaces_all():
    log = Log().put(A, b"one", seen=-1).put(A, b"two", seen=-1).put(A, b"three")
    assert folded(log, siblings()).members(A) == [b"three"]


def test_nobody_has_seen_what_is_not_written_yet():
    log = Log().put(A, b"one", seen=0)
    assert outcomes(log, siblings()) == [InvalidOutcome("bad-seen")]


def test_siblings_end_one_by_one():
    log = Log().put(A, b"one", seen=-1, ttl=5, timestamp=0).put(A, b"two", seen=-1, timestamp=0)
    assert folded(log, siblings()).members(A) == [b"one", b"two"]
    assert folded(log.put(B, b"", timestamp=5), siblings()).members(A) == [b"two"]


def test_there_are_32_siblings_at_most_and_no_more_bytes_than_a_value_may_have():
    log = Log()
    for n in range(33):
        log.put(A, b"%d" % n, seen=-1)
    assert outcomes(log, siblings())[31:] == [AppliedOutcome(), InvalidOutcome("too-many-siblings")]
    log = Log().put(A, b"12345", seen=-1).put(A, b"678901", seen=-1)
    assert outcomes(log, siblings(max_value_bytes=10)) == [AppliedOutcome(), InvalidOutcome("too-many-siblings")]


def test_nothing_builds_on_more_than_one_sibling():
    log = Log().put(A, b"12345678", seen=-1).put(A, b"two", seen=-1).incr(A, 1).append(A, b"x")
    log.put(A, b"", condition=b"value:" + xxhash.xxh3_128_digest(b"two"))
    assert outcomes(log, siblings())[2:] == [InvalidOutcome("siblings"), InvalidOutcome("siblings"), RejectedOutcome(1)]


def test_what_a_writer_had_seen_means_nothing_where_no_siblings_are_kept():
    assert Log().put(A, b"1", seen=-1).records[0].parsed(kv()) == Quarantined("malformed-header")
