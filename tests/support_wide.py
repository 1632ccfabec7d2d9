"""What every store does with wide rows, whatever is behind it: each function is a test of one."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support_contract import DEADLINE_MS

from logstore import BatchFailed, InvalidWrite, NotWide, RowEdit, UsageError, WideTable, codecs
from logstore.model.partitioner import partition_of

FAMILIES = {"content": {"versions": 3}, "anchor": {}}


def make(under, **limits):
    return under.make(wide=True, families=FAMILIES, **limits)


def get(under, table, key, columns=None, versions=1, **more):
    return under.store.get_row(table, key, columns, versions, deadline_ms=DEADLINE_MS, **more)


def cells_of(row):
    return None if row is None else [(cell.family, cell.qualifier, cell.value) for cell in row.cells]


def a_row_is_edited_and_read_by_its_cells(under):
    table = make(under)
    for n in range(4):
        last = under.store.edit(table, "k", RowEdit().set("content", "html", str(n)).set("anchor", b"\xff", b"\xfe"))
    row = get(under, table, "k", after=last.token)
    assert cells_of(row) == [("anchor", b"\xff", b"\xfe"), ("content", b"html", b"3")]
    assert (row.key, row.version, row.partition, row.source) == (b"k", last.version, last.partition, "view")
    assert row.position.covers(last.position)
    assert (row["content", b"html"], row["content:html"], row["anchor", b"\xff"]) == (b"3", b"3", b"\xfe")
    assert ("content", "html") in row
    assert ("content", "none") not in row
    assert (row.get("content:none"), row.family("anchor")) == (None, {b"\xff": b"\xfe"})
    with pytest.raises(KeyError):
        row["content:none"]
    several = get(under, table, "k", ["content:"], 9, after=last.token)
    assert [cell.value for cell in several.versions_of("content:html")] == [b"3", b"2", b"1"]
    assert [cell.version for cell in several.cells] == [last.offset, last.offset - 1, last.offset - 2]
    assert several["content:html"] == b"3"


def columns_say_which_cells_are_read(under):
    table = make(under)
    odd = b"a,b%c:\xff \xc3\xa4"
    edit = RowEdit().set("content", "html", "h").set("anchor", "", "e").set("anchor", odd, "o").set("anchor", "x", "x")
    last = under.store.edit(table, "k", edit).token
    for columns, values in (
        (["content:html"], [b"h"]), ([("anchor", odd)], [b"o"]), (["anchor:"], [b"e", b"o", b"x"]),
        (["content:", b"anchor:x"], [b"x", b"h"]), (["anchor:none", "content:html"], [b"h"]),
    ):  # fmt: skip
        assert [cell.value for cell in get(under, table, "k", columns, after=last).cells] == values, columns
    assert get(under, table, "k", ["content:none"], after=last) is None, "a row without such a cell is not there"
    assert get(under, table, "none", after=last) is None


def cells_are_deleted_counted_and_appended_to(under):
    store, table = under.store, make(under)
    store.edit(table, "k", RowEdit().incr("anchor", "n", 5).append("anchor", "log", "one").set("content", "a", "1"))
    last = store.edit(
        table, "k", RowEdit().incr("anchor", "n", -7).append("anchor", "log", "two").delete_family("content")
    )
    row = get(under, table, "k", after=last.token)
    assert (int.from_bytes(row["anchor:n"], signed=True), row["anchor:log"], len(row.cells)) == (-2, b"onetwo", 2)
    last = store.edit(table, "k", RowEdit().delete_row())
    assert get(under, table, "k", after=last.token) is None
    put = store.put(table, "k", "plain")
    last = store.append(table, "k", "er")
    assert cells_of(get(under, table, "k", after=last.token)) == [("", b"", b"plainer")]
    assert last.version == put.offset + 1


def of_two_writers_with_one_expectation_of_a_cell_one_wins(under):
    table = make(under)
    last = under.store.edit(table, "k", RowEdit().set("content", "html", "0"))
    for turn in range(3):
        with ThreadPoolExecutor(2) as pool:
            race = [
                pool.submit(
                    under.store.edit, table, "k", RowEdit().set("content", "html", f"{turn} {writer}"),
                    version=last.version, column="content:html",
                )
                for writer in range(2)
            ]  # fmt: skip
            outcomes = sorted((one.result() for one in race), key=lambda one: one.outcome)
        assert [one.outcome for one in outcomes] == ["applied", "rejected"], turn
        last = outcomes[0]
        beside = under.store.edit(table, "k", RowEdit().set("anchor", "a", str(turn)))
        assert beside.applied
    row = get(under, table, "k", after=beside.token)
    assert row["content:html"].startswith(b"2 ")
    assert [cell.version for cell in row.versions_of("content:html")] == [last.version]


def many_rows_and_ranges_are_read_with_their_cells(under):
    store, table = under.store, make(under, partitions=3)
    keys = [f"k{n:02}" for n in range(12)]
    writes = [store.edit(table, key, RowEdit().set("content", "html", key)) for key in keys]
    writes.append(store.edit(table, keys[3], RowEdit().delete("content", "html").set("anchor", "a", "1")))
    after = writes[0].position.merge([one.position for one in writes])
    options = {"after": after, "deadline_ms": DEADLINE_MS}
    found = store.get_rows(table, [keys[5], "none", keys[3], keys[5]], ["content:"], **options)
    assert [row and row["content:html"].decode() for row in found] == [keys[5], None, None, keys[5]]
    rows = list(store.scan_rows(table, ["content:html"], prefix="k", **options))
    assert [row.key.decode() for row in rows] == [key for key in keys if key != keys[3]]
    assert [row["content:html"] for row in rows] == [row.key for row in rows]
    whole = list(store.scan_rows(table, start=keys[2], end=keys[5], reverse=True, limit=2, **options))
    assert [row.key.decode() for row in whole] == [keys[4], keys[3]]
    assert cells_of(whole[1]) == [("anchor", b"a", b"1")]
    assert [row.key.decode() for row in store.scan(table, keys_only=True, **options)] == keys


def several_rows_are_edited_together(under):
    store, table = under.store, make(under, multi_row=True, partitions=2)
    here = [key for key in (f"k{n}" for n in range(12)) if partition_of(key.encode(), 2) == 0][:3]
    away = next(key for key in (f"x{n}" for n in range(12)) if partition_of(key.encode(), 2) == 1)
    made = store.edit_rows(table, {key: RowEdit().set("content", "html", key) for key in here})
    assert made.applied
    rows = store.get_rows(table, here, after=made.token, deadline_ms=DEADLINE_MS)
    assert [(row["content:html"].decode(), row.version) for row in rows] == [(key, made.version) for key in here]
    wrong = store.edit_rows(table, {here[0]: RowEdit().delete_row(), away: RowEdit().set("content", "html", "1")})
    assert (wrong.outcome, wrong.reason) == ("invalid", "wrong-partition")
    assert get(under, table, here[0], after=wrong.token) is not None


def a_session_sees_its_edits(under):
    table = make(under)
    session = under.store.session()
    assert session.edit(table, "k", RowEdit().set("anchor", "a", "1"), absent=True).applied
    assert session.get_row(table, "k", deadline_ms=DEADLINE_MS)["anchor:a"] == b"1"
    assert [row.key for row in session.scan_rows(table, deadline_ms=DEADLINE_MS)] == [b"k"]
    assert session.get_rows(table, ["k", "l"], deadline_ms=DEADLINE_MS)[1] is None


def each_kind_of_table_is_read_in_its_own_way(under):
    store, table, plain = under.store, make(under), under.make()
    last = store.edit(table, "k", RowEdit().set("content", "html", "1")).token
    store.put(plain, "k", "v")
    options = {"after": last, "deadline_ms": DEADLINE_MS}
    for call in (
        lambda: store.get(table, "k", **options), lambda: store.get(table, "none", **options),
        lambda: store.get_many(table, ["k"], **options), lambda: list(store.scan(table, **options)),
    ):  # fmt: skip
        with pytest.raises(WideTable, match="get_row"):
            call()
    for call in (
        lambda: store.get_row(plain, "k", deadline_ms=DEADLINE_MS),
        lambda: store.get_rows(plain, ["k"], deadline_ms=DEADLINE_MS),
        lambda: list(store.scan_rows(plain, deadline_ms=DEADLINE_MS)),
        lambda: store.edit(plain, "k", RowEdit().set("content", "html", "1")),
    ):  # fmt: skip
        with pytest.raises(NotWide, match="--wide"):
            call()
    for call in (
        lambda: store.get_row(table, "k", ["title:"], **options), lambda: store.get_row(table, "k", ["content"]),
        lambda: store.get_row(table, "k", "content:"), lambda: store.get_row(table, "k", None, 0),
        lambda: list(store.scan_rows(table, ["title:x"], **options)),
        lambda: store.edit(table, "k", RowEdit().set("title", "x", "1")),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            call()


def families_are_added_and_changed_and_act_on_what_is_written_then(under):
    store, table = under.store, make(under)
    for n in range(4):
        last = store.edit(table, "k", RowEdit().set("content", "html", str(n)).set("anchor", "a", str(n)))
    with pytest.raises(UsageError, match="no column family 'notes'"):
        store.edit(table, "k", RowEdit().set("notes", "first", "1"))
    changed = {"content": {"versions": 1}, "anchor": {"versions": 2}}
    for _ in range(2):  # what holds already is not changed
        under.alter(table, add_families={"notes": {"versions": 2}}, families=changed)
    several = get(under, table, "k", None, 9, after=last.token)
    assert [cell.value for cell in several.versions_of("content:html")] == [b"3", b"2", b"1"]
    for n in range(4, 7):
        edit = RowEdit().set("notes", "first", str(n)).set("content", "html", str(n)).set("anchor", "a", str(n))
        last = store.edit(table, "k", edit)
        assert last.applied
    several = get(under, table, "k", None, 9, after=last.token)
    assert {name: [one.value for one in several.versions_of(name)] for name in ("content:html", "anchor:a")} == {
        "content:html": [b"6"], "anchor:a": [b"6", b"5"],
    }  # fmt: skip
    assert [one.value for one in several.versions_of("notes:first")] == [b"6", b"5"]
    assert cells_of(get(under, table, "k", ["notes:"], after=last.token)) == [("notes", b"first", b"6")]


def families_that_cannot_be_altered_stay_as_they_are(under):
    table, plain = make(under), under.make()
    for asked in (
        {"add_families": {"content": {"versions": 9}}}, {"add_families": ["a b"]}, {"add_families": "notes"},
        {"add_families": {"n": {"ttl_ms": 9}}}, {"families": {"none": {"versions": 2}}}, {"families": ["content"]},
        {"families": {"content": {"versions": 0}}}, {"families": {"content": None}}, {},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            under.alter(table, **asked)
    with pytest.raises(NotWide):
        under.alter(plain, add_families=["notes"])
    with pytest.raises(UsageError, match="there is no table"):
        under.alter(f"{table}-none", add_families=["notes"])
    last = under.store.edit(table, "k", RowEdit().set("content", "html", "1"))
    assert last.offset == 0, "nothing was written"


def a_put_that_the_row_refuses_is_told_by_every_way_to_write_it(under):
    store, table = under.store, make(under, partitions=1)
    full = RowEdit().set("content", "0", bytes(999_000))
    for n in range(1, 5):
        assert store.edit(table, "full", full).applied
        full = RowEdit().set("content", str(n), bytes(999_000))
    much, before = bytes(300_000), get(under, table, "full", consistency="latest").version
    typed, session = store.table(table, codecs.text), store.session()
    for put in (
        lambda: store.put(table, "full", much), lambda: store.put(table, "full", much, level="applied"),
        lambda: session.put(table, "full", much), lambda: typed.put("full", "x" * 300_000),
    ):  # fmt: skip
        with pytest.raises(InvalidWrite, match="begin another row") as caught:
            put()
        assert (caught.value.reason, caught.value.retriable) == ("row-too-wide", False)
    outcome = store.outcome_of(table, "full", caught.value.position, deadline_ms=DEADLINE_MS)
    assert (outcome.outcome, outcome.reason) == ("invalid", "row-too-wide")
    with pytest.raises(BatchFailed, match="1 changed nothing") as several:
        store.put_many(table, [("a", "1"), ("gone", None), ("full", much), ("b", "2")])
    assert list(several.value.failed_places) == [range(2, 3)]
    assert get(under, table, "a", after=several.value.position)["", b""] == b"1"
    with pytest.raises(InvalidWrite), store.pipeline(table) as pipe:
        pending = [pipe.put("c", "3"), pipe.put("full", much), pipe.delete("c")]
    assert [one.exception() is None for one in pending] == [True, False, True]
    for level, tells in (("applied", True), ("all", False), ("one", False)):
        pipe = store.pipeline(table, level=level)
        pending = [pipe.put("c", "3"), pipe.put("full", much), pipe.delete("c")]
        assert [one.exception() is None for one in pending] == [True, not tells, True], level
    last = store.put(table, "full", much, level="all")
    assert get(under, table, "full", after=last).version == before, "asked otherwise, and so not told"
    assert get(under, table, "d", after=store.put_many(table, {"d": "4"}))["", b""] == b"4"
    assert get(under, table, "full", after=store.delete(table, "full")) is None


def edits_of_a_pipeline_have_their_outcomes_later(under):
    store, table = under.store, make(under, partitions=1, multi_row=True)
    with store.pipeline(table) as pipe:
        counted = [pipe.edit(f"k{n % 3}", RowEdit().incr("content", "hits", n)) for n in range(30)]
        made, refused = (pipe.edit("one", RowEdit().set("anchor", "a", value), absent=True) for value in "12")
        appended = pipe.append("one", "behind")
        both = pipe.edit_rows({"one": RowEdit().set("anchor", "b", "x"), "two": RowEdit().set("anchor", "b", "y")})
        of_cell = pipe.edit("one", RowEdit().delete_row(), version=made.result().version, column="anchor:b")
        invalid = pipe.edit("one", RowEdit().incr("anchor", "b"))
        with pytest.raises(UsageError, match="no column family 'none'"):
            pipe.edit("one", RowEdit().set("none", "a", "1"))
    assert {one.result().outcome for one in [*counted, made, appended, both]} == {"applied"}
    assert refused.result()[:2] == ("rejected", made.result().version)
    assert of_cell.result()[:2] == ("rejected", both.result().version)
    assert (invalid.result().outcome, invalid.result().reason) == ("invalid", "wrong-length")
    last = counted[-1].result().position | both.result().position
    for n in range(3):
        row = get(under, table, f"k{n}", after=last)
        assert int.from_bytes(row["content:hits"]) == sum(range(n, 30, 3))
    assert cells_of(get(under, table, "one", after=last)) == [
        ("", b"", b"behind"), ("anchor", b"a", b"1"), ("anchor", b"b", b"x")
    ]  # fmt: skip
    assert cells_of(get(under, table, "two", after=last)) == [("anchor", b"b", b"y")]
    one_by_one = make(under, partitions=1)
    with store.pipeline(one_by_one) as pipe, pytest.raises(UsageError, match="--multi-row"):
        pipe.edit_rows({"one": RowEdit().delete_row(), "two": RowEdit().delete_row()})


WIDE = [
    edits_of_a_pipeline_have_their_outcomes_later,
    a_put_that_the_row_refuses_is_told_by_every_way_to_write_it,
    a_row_is_edited_and_read_by_its_cells, columns_say_which_cells_are_read, cells_are_deleted_counted_and_appended_to,
    of_two_writers_with_one_expectation_of_a_cell_one_wins, many_rows_and_ranges_are_read_with_their_cells,
    several_rows_are_edited_together, a_session_sees_its_edits,
    families_are_added_and_changed_and_act_on_what_is_written_then, families_that_cannot_be_altered_stay_as_they_are,
    each_kind_of_table_is_read_in_its_own_way,
]  # fmt: skip
