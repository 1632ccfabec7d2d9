"""The next generation of a view, built over a base while the old one is written."""

from itertools import pairwise

import pytest
from support_view import IDENTITY, PLACE, mixed, open_view, put

from logstore.model.errors import Corrupted
from logstore.model.folding.fold import Folded, fold_batch
from logstore.view import generation, paths
from logstore.view.layout import Base, Quarantine
from logstore.view.reader import ViewReader
from logstore.view.view import View
from streaming.lane.change_buffer import ChangeBuffer

BASE = Base("00000000000001-0000abcd", 500, 999, "0" * 32, 7, "")


def content(view):
    with view.reader().reading() as reading:
        return dict(reading.scan()), reading.state, reading.quarantine(), reading.base


def apply(view, first, behind, buffer=None):
    folded = fold_batch(mixed(first, behind), PLACE, view.next_offset, view.state.log_time_ms)
    view.apply(folded, 3)
    if buffer is not None:
        buffer.add(folded)


def test_a_base_of_a_plain_table_keeps_its_bytes_and_one_with_outcomes_has_its_counter_and_the_rows_digest():
    assert BASE.encode() == (
        b'{"cut":500,"digest":"' + b"0" * 32 + b'","entries":7,"last":"","leader_epoch":-1,"log_time_ms":999,'
        b'"root":"","snapshot":"00000000000001-0000abcd"}'
    )
    conditional = BASE._replace(counter=3, rows_digest="1" * 32)
    assert Base.decode(conditional.encode()) == conditional
    assert (BASE.rows.hex, conditional.rows.hex, conditional.rows.entries) == ("0" * 32, "1" * 32, 7)


def test_a_new_view_over_a_base_begins_at_its_cut(tmp_path):
    skipped = Quarantine({"null-key": 3, "long-key": 1}, [(4, "null-key"), (9, "long-key")])
    view = View(tmp_path / "1", IDENTITY, BASE, quarantine=skipped)
    assert content(view) == ({}, (500, 999, -1, None, None), skipped, BASE)
    put(view, {b"k": b"v"})
    view.close()
    again = open_view(tmp_path / "1")
    assert (again.base, again.next_offset) == (BASE, 501)
    assert again.reader().base() == BASE
    again.close()


def test_a_view_without_a_base_says_so(tmp_path):
    view = open_view(tmp_path / "1")
    assert (view.base, view.reader().base()) == (None, None)
    view.close()


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b'{"snapshot":1,"cut":2,"log_time_ms":3,"digest":"","entries":0}'])
def test_a_damaged_base_is_found(raw):
    with pytest.raises(Corrupted):
        Base.decode(raw)
    assert Base.decode(BASE.encode()) == BASE


def test_a_generation_holds_what_is_newer_than_the_cut_and_a_tee_brings_it_up(tmp_path, rng):
    ends = sorted(rng.sample(range(501, 6_000), 6))
    old = open_view(tmp_path / "1")
    apply(old, 0, ends[0])
    builder = generation.Builder(old.reader(), generation.unborn(tmp_path, 2), IDENTITY, BASE)
    builder.round()
    apply(old, ends[0], ends[1])
    builder.round()
    buffer = ChangeBuffer()
    for first, behind in pairwise(ends[1:4]):
        apply(old, first, behind, buffer)
    builder.round()
    assert builder.state.next_offset == ends[3]
    builder.close()
    for first, behind in pairwise(ends[3:6]):
        apply(old, first, behind, buffer)
    new = View(generation.unborn(tmp_path, 2), IDENTITY)
    new.apply(buffer.since(new.next_offset, old.state), old.state.leader_epoch)
    new.move(tmp_path / "2")
    entries, state, skipped, base = content(new)
    all_of_it, expected_state, expected_skipped, _ = content(old)
    assert entries == {key: entry for key, entry in all_of_it.items() if int.from_bytes(entry[1:9], "big") >= BASE.cut}
    assert (state, skipped, base) == (expected_state, expected_skipped, BASE)
    put(new, {b"after": b"v"})
    new.close()
    old.close(flush=False)
    assert paths.newest_generation(tmp_path) == 2
    assert not generation.unborn(tmp_path, 2).exists()


def test_rounds_end_when_little_comes(tmp_path):
    old = open_view(tmp_path / "1")
    apply(old, 0, 2_000)
    builder = generation.Builder(old.reader(), generation.unborn(tmp_path, 2), IDENTITY, BASE)
    builder.rounds()
    assert builder.state == old.state
    builder.close()
    old.close()


def test_an_attempt_that_was_killed_is_begun_again_from_nothing(tmp_path):
    old = open_view(tmp_path / "1")
    apply(old, 0, 1_000)
    left = View(generation.unborn(tmp_path, 2), IDENTITY)
    put(left, {b"half": b"done"})
    left.close(flush=False)
    assert paths.newest_generation(tmp_path) == 1
    builder = generation.Builder(old.reader(), generation.unborn(tmp_path, 2), IDENTITY, BASE)
    builder.round()
    builder.close()
    with ViewReader.open(generation.unborn(tmp_path, 2)).reading() as reading:
        assert reading.get(b"half") is None
    old.close()


def test_older_generations_and_attempts_are_told_from_the_one_in_use(tmp_path):
    for name in ("1", "2", "2.new", "3", "3.new", "4.new", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "owner").touch()
    assert sorted(path.name for path in generation.older(tmp_path, 3)) == ["1", "2", "2.new", "3.new"]
    generation.remove(tmp_path / "2")
    assert not (tmp_path / "2").exists()


def test_too_much_is_not_kept():
    buffer = ChangeBuffer(limit_bytes=1_000)
    buffer.add(Folded(1, 1, {b"k": b"v" * 700}, [], None))
    assert not buffer.over
    buffer.add(Folded(2, 1, {b"k": b"w" * 700}, [], None))
    assert buffer.over
