"""Edits of wide rows: what a client says of cells, and what the log decides."""

import msgpack
import pytest

from logstore import MemoryStore, NotExpiring, NotWide, RowEdit, UsageError
from logstore.cli.rows.history_lines import as_object, as_text
from logstore.client.conditional.record import Expected, edit_record
from logstore.client.wide.row_edit import edited_row
from logstore.model.errors import BadKey, Corrupted, ValueTooLarge
from logstore.model.folding.terms import Condition
from logstore.model.partitioner import partition_of
from logstore.model.wide.cell import CELL_BYTES, PackedCells
from logstore.model.wide.columns import column_of, unescaped_column
from logstore.model.wide.selection import CellSelection, read_columns, selection_of

LARGEST = (1 << 63) - 1


@pytest.fixture
def store():
    store = MemoryStore()
    store.create("pages", wide=True, families={"content": {"versions": 3}, "anchor": {}}, partitions=2)
    store.create("several", wide=True, families=["f"], partitions=2, multi_row=True)
    store.create("plain", conditional=True)
    return store


def test_an_edit_stands_in_the_log_as_its_verbs():
    edit = RowEdit().set("content", "html", b"v").delete("anchor", b"\xff").delete_family("anchor")
    edit.delete_row().incr("n", "hits", -2).append("n", b"", "x")
    record = edit_record(edited_row("k", edit), Expected(version=7, column="content:ht:ml"), None)
    assert msgpack.unpackb(record.value) == [
        ["set", "content", b"html", b"v"], ["del", "anchor", b"\xff"], ["del-family", "anchor"], ["del-row"],
        ["incr", "n", b"hits", -2], ["append", "n", b"", b"x"],
    ]  # fmt: skip
    assert record.own[1:] == (("ls.op", b"edit"), ("ls.if", b"version:7@content:ht:ml"))
    assert Condition.parse(record.own[2][1]) == Condition("version", 7, column=("content", b"ht:ml"))
    assert edit.families == {"content", "anchor", "n"}


def test_cells_change_together_or_not_at_all(store):
    made = store.edit("pages", "k", RowEdit().set("content", "html", "1").set("anchor", "a", "x"), absent=True)
    assert (made.outcome, made.version) == ("applied", made.offset)
    assert store.edit("pages", "k", RowEdit().set("anchor", "a", "y"), absent=True)[:2] == ("rejected", made.version)
    long = store.edit("pages", "k", RowEdit().set("anchor", "b", "z").incr("anchor", "a"))
    assert (long.outcome, long.reason) == ("invalid", "wrong-length")
    of_cell = {"version": made.version, "column": ("anchor", "b")}
    assert store.edit("pages", "k", RowEdit().set("anchor", "b", "z"), **of_cell)[:2] == ("rejected", None)
    last = store.edit("pages", "k", RowEdit().set("anchor", "a", "z"), version=made.version, column="content:html")
    assert last.applied
    refused = store.edit("pages", "k", RowEdit().delete_row(), version=made.version, column=("anchor", b"a"))
    assert refused[:2] == ("rejected", last.version)
    assert store.edit("pages", "k", RowEdit().delete_row(), present=True).applied
    assert store.edit("pages", "k", RowEdit().incr("anchor", "n"), absent=True).applied


def test_a_cell_with_a_ttl_is_gone_again():
    now_ms = [1_000]
    store = MemoryStore(clock_ms=lambda: now_ms[0])
    store.create("sessions", wide=True, families={"f": {"versions": 2}}, expiring=True)
    store.create("stays", wide=True, families=["f"])
    store.edit("sessions", "k", RowEdit().set("f", "stays", "1"))
    store.edit("sessions", "k", RowEdit().set("f", "ends", "1", ttl_s=60).set("f", "stays", "2"))
    assert store.get_row("sessions", "k").family("f") == {b"ends": b"1", b"stays": b"2"}
    now_ms[0] += 60_000
    assert store.get_row("sessions", "k").family("f") == {b"stays": b"2"}
    with pytest.raises(NotExpiring):
        store.edit("stays", "k", RowEdit().set("f", "q", "v", ttl_s=1))
    for wrong in (0, "1", True):
        with pytest.raises(UsageError):
            RowEdit().set("f", "q", "v", ttl_s=wrong)


def test_several_rows_of_a_partition_change_together(store):
    keys = [f"k{n}" for n in range(20)]
    here = [key for key in keys if partition_of(key.encode(), 2) == 0]
    elsewhere = next(key for key in keys if key not in here)
    made = store.edit_rows("several", {key: RowEdit().set("f", "q", key) for key in here})
    assert made.applied
    for key in here:
        same = store.edit("several", key, RowEdit().set("f", "q", "2"), version=made.version, column="f:q")
        assert same.applied, "every row was written"
    wrong = store.edit_rows("several", {here[0]: RowEdit().delete_row(), elsewhere: RowEdit().set("f", "q", "1")})
    assert (wrong.outcome, wrong.reason) == ("invalid", "wrong-partition")
    assert store.edit("several", here[0], RowEdit().delete_row(), present=True).applied
    twice = store.edit_rows("several", {here[1]: RowEdit().delete_row(), here[2]: RowEdit().incr("f", "q")})
    assert twice.reason == "wrong-length"
    assert store.edit("several", here[1], RowEdit().delete_row(), present=True).applied, "nothing of it was done"


def test_what_a_table_does_not_take_is_refused_before_the_log(store):
    set_one = RowEdit().set("content", "q", "v")
    before = store.put("pages", "k", "v")
    wrong = [
        (UsageError, "has no column family 'title'; it has anchor, content",
         lambda: store.edit("pages", "k", RowEdit().set("title", "q", "v"))),
        (NotWide, "table create NAME --wide", lambda: store.edit("plain", "k", set_one)),
        (UsageError, "--multi-row", lambda: store.edit_rows("pages", {"k": set_one})),
        (UsageError, "changes nothing", lambda: store.edit("pages", "k", RowEdit())),
        (UsageError, "is a RowEdit", lambda: store.edit("pages", "k", [["del-row"]])),
        (UsageError, "a mapping", lambda: store.edit_rows("several", {})),
        (UsageError, "a mapping", lambda: store.edit_rows("several", [("k", set_one)])),
        (UsageError, "twice", lambda: store.edit_rows("several", {"k": set_one, b"k": set_one})),
        (UsageError, "exactly one", lambda: store.edit("pages", "k", set_one, absent=True, version=1)),
        (UsageError, "beside version=N", lambda: store.edit("pages", "k", set_one, column="content:q")),
        (UsageError, "family:qualifier", lambda: store.edit("pages", "k", set_one, version=1, column="content")),
        (UsageError, "at most 1,000 bytes",
         lambda: store.edit("pages", "k", set_one, version=1, column=("content", b"q" * 1_001))),
        (BadKey, "1 to 65,535", lambda: store.edit("pages", "", set_one)),
        (ValueTooLarge, "at most 1,000,000",
         lambda: store.edit("pages", "k", RowEdit().set("content", "q", b"v" * 1_000_000))),
    ]  # fmt: skip
    for error, says, call in wrong:
        with pytest.raises(error, match=says):
            call()
    after = store.edit("pages", "k", set_one, present=True)
    assert (after.applied, after.offset) == (True, before.offset + 1), "nothing came between"


@pytest.mark.parametrize(
    "call",
    [
        lambda edit: edit.set("f:g", "q", "v"), lambda edit: edit.set("f" * 65, "q", "v"),
        lambda edit: edit.set(5, "q", "v"), lambda edit: edit.set("é", "q", "v"), lambda edit: edit.set("f", 5, "v"),
        lambda edit: edit.set("f", "q", None), lambda edit: edit.incr("f", "q", 1.0),
        lambda edit: edit.incr("f", "q", True), lambda edit: edit.incr("f", "q", LARGEST + 1),
        lambda edit: edit.delete("f", None), lambda edit: edit.delete_family(None),
        lambda edit: edit.append("f", "q", 1),
    ],
)  # fmt: skip
def test_an_edit_takes_only_what_can_be(call):
    edit = RowEdit()
    with pytest.raises(UsageError):
        call(edit)
    assert edit == RowEdit()


def test_a_history_shows_edits_in_words(store):
    store.edit("pages", "k", RowEdit().set("content", "html", "<p>").set("anchor", b"\xff", b"\xfe").delete_row())
    store.edit("pages", "k", RowEdit().incr("anchor", "n", 3).delete_family("content"), present=True)
    refused, made = store.history("pages", "k")
    assert [one.verb for one in made.edits] == ["set", "set", "del-row"]
    assert b"set content:html=<p>; set anchor:(1 bytes)=(1 bytes); del-row" in as_text(made, values=True)
    assert b"incr anchor:n=+3; del-family content" in as_text(refused, values=True)
    assert b'{"verb":"set","family":"content","qualifier":"html","value":"<p>"}' in as_object(made, values=True)
    assert made._replace(value=b"\x05").edits is None
    key = next(key for key in ("a", "b", "c", "d") if partition_of(key.encode(), 2) == partition_of(b"k", 2))
    store.edit_rows("several", {"k": RowEdit().delete_row(), key: RowEdit().set("f", "", "v")})
    assert f"del-row k/; set {key}/f:=v".encode() in as_text(next(iter(store.history("several", "k"))), values=True)


def test_columns_have_one_text_whatever_is_in_them():
    named = (("f", b""), ("f", b"a,b%c:d"), ("", b""), ("g", bytes(range(256))))
    selection = CellSelection(named, 2)
    assert read_columns(selection.text.encode()) == named
    assert unescaped_column(b"f:a:b%2Cc") == ("f", b"a:b,c")
    assert selection_of(["f:", ("f", "a,b%c:d"), b":", ("g", bytes(range(256))), "f:"], 2) == selection
    assert column_of("f:x:y") == ("f", b"x:y")


@pytest.mark.parametrize(
    ("columns", "versions"),
    [
        ("f:q", 1), (["f"], 1), ([5], 1), ([("f",)], 1), ([], 1), (["f:"] * 1_001, 1), (None, 0), (None, 10_001),
        (None, True), (None, "1"), (5, 1), (["f,g:q"], 1),
    ],
)  # fmt: skip
def test_a_selection_that_cannot_be_is_refused(columns, versions):
    with pytest.raises(UsageError):
        selection_of(columns, versions)


def test_the_cells_that_are_selected_are_those_that_hold():
    cells_of_it = [
        ["a", b"", [[5, 50, b"e", None]]], ["a", b"x", [[9, 90, b"new", None], [3, 30, b"old", 100]]],
        ["b", b"y", [[4, 40, b"ends", 200], [2, 20, b"hidden", None]]],
    ]  # fmt: skip
    row = PackedCells(msgpack.packb([[["", 9]], cells_of_it]))
    cells = CellSelection(versions=2).of(row).cells
    assert [(cell.family, cell.qualifier, cell.version) for cell in cells] == [
        ("a", b"", 5), ("a", b"x", 9), ("a", b"x", 3), ("b", b"y", 4), ("b", b"y", 2),
    ]  # fmt: skip
    assert [cell.value for cell in CellSelection((("a", b"x"),)).of(row).cells] == [b"new"]
    assert [cell.value for cell in CellSelection((("a", b""), ("b", b"z")), 9).of(row).cells] == [b"e", b"new", b"old"]
    later = CellSelection(versions=9).of(row, 200)
    assert [cell.value for cell in later.cells] == [b"e", b"new"], "an end hides what is older"
    assert len(later) == 2 * CELL_BYTES + len(b"x" + b"e" + b"new")
    assert not CellSelection((("b", b"z"),)).of(row)
    for damaged in (b"", b"\x91\x05", row[:-1], b"\x92\x90\x91\x05"):
        with pytest.raises(Corrupted):
            CellSelection().of(PackedCells(damaged))
