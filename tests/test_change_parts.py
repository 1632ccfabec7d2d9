"""Parts of the change feed: changes of records, resume points, chunks and rings, and a reader without Kafka."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import RowEdit
from logstore.client.changes.page_body import ChangesBody, EventBody
from logstore.client.conditional.record import Expected, edit_record
from logstore.client.wide.row_edit import edited_rows
from logstore.model.changes.resume_point import START, ResumePoint
from logstore.model.changes.row_change import RowChange, changes_of, without_skipped
from logstore.model.errors import BadToken
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.folding.sibling import Sibling
from logstore.model.hard_rows.rules import rules_of
from logstore.model.partitioner import partition_of
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.model.wide.cell import RowCells, WideCell
from logstore.serve.changes.chunk import Chunk, Ring, cut, up_to
from logstore.serve.changes.encoding import documents, events
from tests.support_serve import problem, serving

EPOCH = "ab" * 16
RULES = FoldRules(0, 2, 100)
_KEYS = st.sampled_from([None, b"", *(b"%d" % i for i in range(12))])
_VALUES = st.sampled_from([None, b"", b"v", b"x" * 101])
_HEADERS = st.sampled_from([
    None, [("mine", b"1")], [("ls.v", b"\x01")], [("ls.op", b"put")], [("ls.op", b"delete")], [("ls.op", b"barrier")],
    [("ls.odd", b"")],
])  # fmt: skip


@given(st.lists(st.tuples(_KEYS, _VALUES, _HEADERS), max_size=40), st.integers(0, 1_000))
def test_the_newest_change_of_each_row_is_what_the_fold_says(given_records, first):
    keys, values, headers = (
        (list(column) for column in zip(*given_records, strict=True)) if given_records else ([],) * 3
    )
    offsets = list(range(first, first + len(keys)))
    records = Records(offsets, keys, values, [7] * len(keys), headers)
    folded = fold_batch(records, RULES, first, 0)
    newest = {change.key: change for change in changes_of(records, RULES)}
    assert {key: (entry.kind, entry.version, entry.payload) for key, entry in decoded(folded).items()} == {
        key: (TOMBSTONE if change.value is None else VALUE, change.version, change.value or b"")
        for key, change in newest.items()
    }


def decoded(folded):
    return {key: Entry.decode(raw) for key, raw in folded.entries.items()}


def test_offsets_that_a_repair_gave_up_are_no_changes():
    changes = [RowChange(offset, b"k", b"v", 1) for offset in range(10)]
    assert [change.version for change in without_skipped(changes, [(2, 4), (9, 20)])] == [0, 1, 5, 6, 7, 8]
    assert without_skipped(changes, ()) is changes


@given(
    st.dictionaries(st.integers(0, 9), st.integers(0, 2**40), min_size=1), st.none() | st.binary(min_size=1, max_size=9)
)
def test_a_resume_point_is_its_text(offsets, scanned):
    point = ResumePoint(Position({(EPOCH, partition): offset for partition, offset in offsets.items()}), scanned)
    assert ResumePoint.parse(point.text) == point
    assert point.offsets(EPOCH, range(10)) == {partition: offsets.get(partition, 0) for partition in range(10)}


def test_the_beginning_is_a_resume_point():
    assert (START.text, ResumePoint.parse("beginning")) == ("beginning", START)


@pytest.mark.parametrize("text", ["", ";", "now", f"{EPOCH}-0-1;*", f"{EPOCH}-0;aa", f"{EPOCH}-0-1;aa;bb"])
def test_what_is_no_resume_point_is_refused(text):
    with pytest.raises(BadToken):
        ResumePoint.parse(text)


def chunk(start, versions, following):
    return Chunk(0, start, following, [RowChange(version, b"k%d" % version, b"v" * 10, 1) for version in versions])


def versions_of(chunks):
    return [change.version for one in chunks for change in one.changes]


def test_a_part_of_a_chunk_covers_its_offsets():
    whole = chunk(5, [6, 8, 9], 12)
    assert (whole.from_offset(3), whole.below(12)) == (whole, whole)
    part = whole.from_offset(8)
    assert (part.start, part.following, versions_of([part])) == (8, 12, [8, 9])
    part = whole.below(8)
    assert (part.start, part.following, versions_of([part])) == (5, 8, [6])


@given(st.sets(st.integers(0, 3_000), max_size=900), st.integers(0, 1_000))
def test_a_chunk_that_is_cut_is_the_same_stretch(versions, at):
    whole = chunk(0, sorted(versions), 3_001)
    pieces = list(cut(whole))
    assert [one.start for one in pieces] == [0, *(one.following for one in pieces[:-1])]
    assert pieces[-1].following == 3_001
    assert versions_of(pieces) == versions_of([whole])
    ring = Ring(0, 1 << 30)
    for one in pieces:
        ring.add(one)
    assert versions_of(ring.behind(at)) == [version for version in sorted(versions) if version >= at]


def test_a_ring_lets_go_of_the_oldest_and_knows_where_it_begins():
    ring = Ring(0, 1_000)
    for at in range(20):
        ring.add(chunk(at, [at], at + 1))
    assert ring.end == 20
    assert 0 < 20 - ring.start <= 5
    assert versions_of(ring.behind(ring.start)) == list(range(ring.start, 20))
    assert list(ring.behind(20)) == []


def test_what_is_taken_at_once_is_bounded_and_never_nothing():
    chunks = [chunk(at, [at], at + 1) for at in range(20)]
    assert len(up_to(chunks, 1)) == 1
    assert len(up_to(chunks, 1_000)) == 5


def test_the_text_of_a_chunk_is_drawn_once():
    one = Chunk(3, 0, 9, [RowChange(0, b"k", b"\xff", 5), RowChange(8, b"\n", None, 6)])
    assert events(one) is events(one)
    assert events(one).decode() == (
        "event: put\n"
        'data: {"event":"put","key":"k","value":{"base64":"/w=="},"version":0,"timestamp":5,"partition":3}\n'
        "\nevent: delete\n"
        'data: {"event":"delete","key":"\\n","value":null,"version":8,"timestamp":6,"partition":3}\n'
    )


def test_a_record_that_edits_several_rows_makes_a_change_of_each_that_lives_here():
    table = Table("t", "t", EPOCH, 2, conditional=True, wide=True, multi_row=True)
    here, away = ([key for key in map(str, range(30)) if partition_of(key.encode(), 2) == p] for p in (0, 1))
    change = edited_rows(dict.fromkeys([here[0], here[1], away[0]], RowEdit().set("f", "q", "v")))
    record = edit_record(change, Expected(), None)
    records = Records([4, 5], [record.key, here[2].encode()], [record.value, b"v"], [7, 7], [list(record.own), None])
    found = changes_of(records, FoldRules.of(table, 0), rules_of(table, 0))
    assert [(one.version, one.key, one.is_decided) for one in found] == [
        (4, here[0].encode(), False), (4, here[1].encode(), False), (5, here[2].encode(), False),
    ]  # fmt: skip


def test_a_record_that_changed_several_rows_is_never_cut():
    changes = [RowChange(offset, b"%d" % n, b"v" * 5_000, 1) for offset in range(3) for n in range(30)]
    pieces = list(cut(Chunk(0, 0, 3, changes)))
    assert [[change.version for change in one.changes] for one in pieces] == [[offset] * 30 for offset in range(3)]
    assert [(one.start, one.following) for one in pieces] == [(0, 1), (1, 2), (2, 3)]


def test_an_event_has_the_end_beside_what_ends():
    cells = RowCells([WideCell("f", b"q", 2, 5, b"1"), WideCell("f", b"r", 3, 6, b"2")], (None, 9))
    siblings = (Sibling(1, b"a"), Sibling(2, b"b"))
    found = documents(
        [Chunk(0, 0, 9, [
            RowChange(1, b"v", b"1", 5, ends=(8,)), RowChange(2, b"s", siblings, 5, ends=(8, None)),
            RowChange(3, b"c", cells, 5, ends=cells.ends), RowChange(4, b"d", None, 5),
        ])], bytes,
    )  # fmt: skip
    assert [one.get("expires") for one in found] == [8, None, None, None]
    assert [one.get("expires") for one in found[1]["siblings"]] == [8, None]
    assert [one.get("expires") for one in found[2]["cells"]] == [None, 9]
    page = ChangesBody([EventBody(**one) for one in found], "", live=True)
    assert [one.siblings for one in page.events] == [None, found[1]["siblings"], None, None]


def test_a_reader_that_was_not_told_where_kafka_is_says_so(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        node.put("t", b"k", b"v")
        reader.wait_ready()
        problem(reader.get("/v1/tables/t/changes?wait=0"), 503, "log-unreachable")
        page = reader.get("/v1/tables/t/changes?wait=0&since=beginning").json()
        assert [(one["event"], one["key"], one["value"]) for one in page["events"]] == [("put", "k", "v")]
        assert page["live"]
        problem(reader.get("/v1/tables/none/changes"), 404, "no-such-table")
        problem(reader.http.post("/v1/tables/t/changes"), 405, "method-not-allowed")
