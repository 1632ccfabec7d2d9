"""Rules that change on the way: families added, versions and TTLs changed, each from its record of the log on."""

from dataclasses import replace

import msgpack
import pytest
from support_hard import FAMILIES, Log, Partition, reference_of, wide
from support_stretch import StretchState, columns
from test_fold_rows import KEYS, Histories, state_of
from test_stretch import KvHistories

from logstore.model.errors import NotYet
from logstore.model.folding.decided import Decided
from logstore.model.folding.entry import Entry
from logstore.model.folding.fold import Folded
from logstore.model.folding.mutation import BAD_MSGPACK, Quarantined, Refused
from logstore.model.hard_rows.encoding import decode_id, decode_outcome, first_of
from logstore.model.hard_rows.packed import unpack_row
from logstore.model.hard_rows.rules import ColumnFamily
from logstore.model.rules.rules_revision import RulesRecord, RulesRevision, read_record
from logstore.model.table import Table
from logstore.view.generation import Builder, take_in
from logstore.view.layout import Base, State
from logstore.view.view import View, ViewIdentity
from streaming.lane.change_buffer import ChangeBuffer
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

A = KEYS[0]


class ChangingHistories(Histories):
    """Histories of a wide table in which records change the rules, some of them twice or too late."""

    def __init__(self, seed):
        super().__init__(seed)
        self.table = self.rng.choice(["wide", "multi-row"])
        rules = self._rules({"dedup_window_ms": 40, "dedup_records": 6})
        self.rules = rules._replace(revisions={n: self._changed() for n in (3, 5, 8)})

    def _changed(self):
        rng, more = self.rng, {"unknown": ColumnFamily(2)} if self.rng.random() < 0.7 else {}
        now = {
            name: family._replace(versions=rng.choice([1, 2, 3]), ttl_ms=rng.choice([None, 5, 30]))
            for name, family in FAMILIES.items() if name
        }  # fmt: skip
        return FAMILIES | now | more

    def log(self, length):
        log = super().log(length)
        for _ in range(self.rng.choice([1, 3, 5])):
            at, revision = self.rng.randrange(length), self.rng.choice([3, 5, 8])
            log.records[at] = log.records[at]._replace(
                operation="rules", key=None, value=msgpack.packb({"revision": revision}), headers={}, said=True
            )
        return log


def taken(reference, rules, records):
    """Have the model take records, by the rules that those among them name."""
    revision = 0
    for offset, record in records:
        if record.operation == "rules":
            revision = max(revision, msgpack.unpackb(record.value)["revision"])
            reference.families = {name: tuple(family) for name, family in rules.at(revision).families.items()}
        if record.operation == "rules" or isinstance(record.parsed(rules), Quarantined):
            reference.log_time = max(reference.log_time, record.timestamp)
        else:
            reference.take(offset, *record[:5])
        yield offset
    reference.sweep()


def partition_of(state):
    """What a stretch has left, as the tests of the fold record by record have it."""
    found = Partition(state.rules)
    found.log_time_ms, found.counter = state.log_time_ms, state.counter
    found.rows = {key: unpack_row(Entry.decode(raw)) for key, raw in state.rows.items()}
    found.outcomes = {offset: decode_outcome(raw) for offset, raw in state.outcomes.items()}
    found.ids = {name: decode_id(raw, found.outcomes[first_of(raw)]) for name, raw in state.named.items()}
    return found


@pytest.mark.parametrize("seeds", [range(first, first + 100) for first in range(0, 300, 100)], ids=lambda one: one[0])
def test_a_log_whose_rules_change_folds_to_what_the_model_says_wherever_it_is_cut(seeds):
    for seed in seeds:
        histories = ChangingHistories(seed)
        log, state, reference = histories.log(40), StretchState(histories.rules), reference_of(histories.rules)
        model = taken(reference, histories.rules, log.between(0, 40))
        while state.next_offset < 40:
            upto = min(state.next_offset + histories.rng.choice([1, 2, 5, 20, 40]), 40)
            state.take(columns(log, state.next_offset, upto))
            while next(model, 39) < upto - 1:
                pass
            reference.sweep()
            assert partition_of(state).state() == state_of(reference), (seed, upto)


def take(log, rules, cut=None):
    state = StretchState(rules)
    for first, after in ((0, cut), (cut, len(log.records))) if cut else ((0, len(log.records)),):
        state.take(columns(log, first, after))
    return state


def rules_record(revision, families=None, **more):
    return msgpack.packb({"revision": revision, **({} if families is None else {"families": families}), **more})


RULES = wide(revisions={7: {**FAMILIES, "n": ColumnFamily(2, 50), "b": ColumnFamily(1)}})
SAME = {"n": {"versions": 2, "ttl_ms": 50}, "b": {}, "a": {"versions": 2, "ttl_ms": 30, "group": "bulk"}}


@pytest.mark.parametrize("cut", [None, 3, 4, 5])
def test_a_family_is_there_from_its_record_on_and_not_before(cut):
    log = Log()
    for _ in range(3):
        log.edit(A, ["set", "b", "q", "v"])
    log.edit(A, ["set", "n", "q", "early"])
    log.add(None, rules_record(7, SAME), "rules")
    log.edit(A, ["set", "n", "q", "late"])
    log.edit(A, ["set", "b", "q", "w"])
    found = partition_of(take(log, RULES, cut))
    assert found.history(A, "n", b"q") == [b"late"]
    assert found.history(A, "b", b"q") == [b"w"], "versions act on a cell at its next write"
    assert found.row(A).cells["n", b"q"].members[0].expires_ms == 1_050
    assert found.outcomes[3].outcome.reason == "unknown-family"


def test_what_was_trimmed_never_comes_back_and_entries_keep_their_ends():
    revisions = {4: {**FAMILIES, "b": ColumnFamily(1)}, 6: {**FAMILIES, "b": ColumnFamily(5, 9)}}
    log = Log()
    for n in range(3):
        log.edit(A, ["set", "b", "q", str(n)])
    log.add(None, rules_record(4), "rules").edit(A, ["set", "b", "q", "3"])
    log.add(None, rules_record(6), "rules").edit(A, ["set", "b", "q", "4"])
    found = partition_of(take(log, wide(revisions=revisions)))
    assert found.history(A, "b", b"q") == [b"4", b"3"]
    newest, older = found.row(A).cells["b", b"q"].members[0], found.row(A).cells["b", b"q"].older[0]
    assert (newest.expires_ms, older.expires_ms) == (1_009, None)


def test_a_record_of_rules_that_are_in_force_or_older_is_stepped_over():
    log = Log().add(None, rules_record(7), "rules").add(None, rules_record(7), "rules")
    state = take(log.add(None, rules_record(3), "rules").edit(A, ["set", "n", "q", "1"]), RULES)
    assert (state.revision, state.next_offset) == (7, 4)
    assert partition_of(state).value(A, "n", b"q") == b"1"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (rules_record(9), "no definition that is known here"),
        (rules_record(7, {"n": {}}), "other column families"),
        (rules_record(7, {"n": {"later": 1}}), "other column families"),
        (rules_record(7, {"n": 5}), "other column families"),
    ],
)
def test_a_record_that_the_definition_does_not_have_is_waited_for(value, why):
    log = Log().edit(A, ["set", "b", "q", "1"]).add(None, value, "rules").edit(A, ["set", "b", "q", "2"])
    state = StretchState(RULES)
    folded = state.take(columns(log, 0, 3))
    assert why in folded.awaited
    assert (state.next_offset, folded.refused) == (1, None)
    assert partition_of(state).value(A, "b", b"q") == b"1", "what is before it is folded"
    again = state.take(columns(log, 1, 3))
    assert (again.next_offset, again.entries) == (1, {})
    if why.startswith("no definition"):
        state.rules = RULES._replace(revisions={9: FAMILIES})
        assert state.take(columns(log, 1, 3)).awaited is None
        assert partition_of(state).value(A, "b", b"q") == b"2"


def test_a_state_of_rules_that_nobody_knows_waits_before_anything_is_folded():
    state = StretchState(RULES)
    state.revision = 9
    folded = state.take(columns(Log().edit(A, ["set", "b", "q", "1"]), 0, 1))
    assert "revision 9" in folded.awaited
    assert (folded.next_offset, folded.entries, state.revision) == (0, {}, 9)


NO_RECORD = [
    b"\xc0", b"\x05", b"\x80", rules_record("7"), rules_record(0), rules_record(-1), rules_record(True),
    rules_record(7.0), rules_record(7, []), rules_record(7, {"f": {"x": "y" * (1 << 20)}}),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_RECORD, ids=lambda value: value[:12].hex())
def test_what_is_no_record_of_rules_is_quarantined(value):
    assert read_record(value) is None
    state = take(Log().add(None, value, "rules").edit(A, ["set", "b", "q", "1"]), wide(max_value_bytes=2 << 20))
    assert state.quarantined == [(0, BAD_MSGPACK)]
    assert state.next_offset == 2


def test_a_table_of_one_value_a_row_is_stopped_by_a_record_of_rules():
    state = StretchState(KvHistories(1).rules)
    folded = state.take(columns(Log().add(None, rules_record(7), "rules"), 0, 1))
    assert isinstance(folded.refused, Refused)


def test_the_bytes_of_a_record_of_rules_never_change():
    revision = RulesRevision(12, {"notes": {"versions": 2, "ttl_ms": 86_400_000}, "title": {}}, (3, None), (1, 2))
    raw = msgpack.packb(revision.payload())
    assert raw == (
        b"\x82\xa8revision\x0c\xa8families\x82\xa5notes\x82\xa8versions\x02\xa6ttl_ms\xce\x05&\\\x00\xa5title\x80"
    )
    assert read_record(raw) == RulesRecord(12, revision.families)


TABLE = Table(
    "t", "t", "e" * 32, 2, conditional=True, wide=True, families={"b": {}},
    rules=(RulesRevision(0, {"b": {}}), RulesRevision(7, {"b": {}, "n": {}}, (None, None), (0, 0))),
)  # fmt: skip
LOG = (
    Log().edit(A, ["set", "b", "q", "1"]).add(None, rules_record(7, {"n": {}, "b": {}}), "rules")
    .edit(A, ["set", "n", "q", "2"]).edit(A, ["set", "b", "q", "3"])
)  # fmt: skip


@pytest.fixture
def followed(tmp_path):
    one = FollowedPartition(Target(replace(TABLE, rules=()), 0, 0), tmp_path)
    yield one
    one.close()


def row_of(followed):
    with followed.view.reader().reading() as reading:
        row = unpack_row(Entry.decode(reading.get(A)))
        return {column: cell.members[0].payload for column, cell in row.cells.items()}


def test_a_lane_waits_at_a_record_until_it_knows_the_definition(followed):
    with pytest.raises(NotYet, match=r"offset 1 of t/0 waits for a newer definition.*table alter t"):
        followed.take(columns(LOG, 0, 4), 1)
    assert (followed.next_offset, row_of(followed), followed.stop) == (1, {("b", b"q"): b"1"}, None)
    with pytest.raises(NotYet):
        followed.take(columns(LOG, 1, 4), 1)
    followed.target = Target(TABLE, 0, 0)  # without the offsets of its records: the fold meets them itself
    assert followed.take(columns(LOG, 1, 4), 1)
    assert row_of(followed) == {("n", b"q"): b"2", ("b", b"q"): b"3"}
    assert followed.view.revision == 7


def test_a_view_that_is_opened_again_goes_on_by_the_rules_that_were_in_force(tmp_path):
    for first, after in ((0, 2), (2, 4)):
        one = FollowedPartition(Target(TABLE, 0, 0), tmp_path)
        assert one.take(columns(LOG, first, after), 1)
        assert one.view.revision == 7
        assert first == 0 or row_of(one) == {("n", b"q"): b"2", ("b", b"q"): b"3"}
        one.close()


def test_a_view_upon_a_snapshot_and_one_that_is_copied_have_its_rules(tmp_path):
    base = Base("s", 2, 1_000, "0" * 32, 0, "s", rules=7)
    assert Base.decode(base.encode()) == base
    view = View(tmp_path / "view", ViewIdentity.of(TABLE, 0), base)
    take_in(view, ())
    assert view.revision == 7
    copy = Builder(view.reader(), tmp_path / "copy", ViewIdentity.of(TABLE, 0), base)
    copy.round()
    copy.close()
    view.close()
    copied = View(tmp_path / "copy", ViewIdentity.of(TABLE, 0))
    assert copied.revision == 7
    copied.close()


def test_what_a_view_misses_while_it_is_copied_brings_its_rules_along():
    buffer = ChangeBuffer()
    for revision in (0, 7):
        buffer.add(Folded(revision, 0, {}, [], None, Decided({}, {}, revision, revision)))
    assert buffer.since(0, State(8, 0)).decided == Decided({}, {}, 7, 7)
