"""Shared readers of one process: many threads, one opening, maps that grow, and the gate before all of that."""

import multiprocessing
import threading

import pytest
from support_view import open_view, put
from support_wait import until

from logstore.model.errors import NotYet
from logstore.view import layout
from logstore.view.shared import reader as shared
from logstore.view.shared.gate import Gate
from logstore.view.shared.reader import SharedReader, close_idle

SMALL = 1 << 20
ROWS = {b"k%02d" % n: bytes([n]) * 100_000 for n in range(50)}


def _grow(path, pipe):
    """The view's writer: a first row, and when it is told to, more than its first map holds."""
    view = open_view(path, map_bytes=SMALL)
    put(view, {b"first": b"1"})
    pipe.send(None)
    while pipe.recv() == "grow":
        for key, value in ROWS.items():
            put(view, {key: value})
        pipe.send(None)
    view.close()


@pytest.fixture
def growing(tmp_path):
    """A view of little room that another process writes, and the way to have it grow."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_grow, args=(tmp_path / "view", there))
    process.start()
    there.close()

    def said():
        assert here.poll(120), "the writer says nothing"
        here.recv()

    def grow():
        here.send("grow")
        said()

    said()
    yield tmp_path / "view", grow
    here.send("end")
    process.join(60)
    assert process.exitcode == 0


@pytest.fixture
def scant(monkeypatch):
    """Maps that reach no further than their file."""
    monkeypatch.setattr(shared, "ROOM", 1)
    monkeypatch.setattr(layout, "DEFAULT_MAP_BYTES", SMALL)


@pytest.mark.usefixtures("scant")
def test_a_view_that_outgrows_its_map_is_read_on_by_all_threads(growing):
    path, grow = growing
    reader = SharedReader.open(path)
    assert SharedReader.open(path) is reader
    before, done, wrong = reader.map_bytes(), threading.Event(), []

    def look():
        while not done.is_set():
            if reader.point(b"first")[1][17:] != b"1":
                wrong.append("first")
            with reader.reading() as reading:
                wrong.extend(key for key, raw in reading.scan(b"k") if raw[17:] != ROWS[key])

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        grow()
        until("all rows are there", lambda: all(reader.point(key)[1] for key in ROWS))
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert reader.map_bytes() > before


@pytest.mark.usefixtures("scant")
def test_who_reads_a_view_does_not_take_its_map_over(growing):
    path, grow = growing
    reader = SharedReader.open(path)
    with reader.reading() as reading:
        grow()
        with pytest.raises(NotYet, match="grown beyond its map"):
            reader.point(b"first")
        assert reading.get(b"first")[17:] == b"1"
    assert reader.point(b"k49")[1][17:] == ROWS[b"k49"]


def test_a_map_reaches_further_than_its_file(growing):
    path, _ = growing
    assert SharedReader.open(path).map_bytes() >= 4 * layout.DEFAULT_MAP_BYTES


def test_a_closed_reader_is_not_taken_for_another_view_that_has_its_inode(tmp_path):
    view = open_view(tmp_path / "old")
    put(view, {b"k": b"1"})
    view.close()
    old = SharedReader.open(tmp_path / "old")
    close_idle([old])
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "data.mdb").rename(tmp_path / "new" / "data.mdb")  # as a file made where one was deleted
    new = SharedReader.open(tmp_path / "new")
    assert new is not old
    assert new.point(b"k")[1][17:] == b"1"
    assert SharedReader.open(tmp_path / "new") is new
    with pytest.raises(NotYet, match="another view lies at"):
        old.point(b"k")


def test_nobody_comes_in_while_one_is_alone_and_who_is_inside_is_waited_for(monkeypatch):
    monkeypatch.setattr("logstore.view.shared.gate.PATIENCE_S", 60.0)
    gate, came, said = Gate(), threading.Event(), []
    me = gate.enter()
    with gate.alone() as alone:
        assert alone, "who is inside itself is not waited for"
        other = threading.Thread(target=lambda: (said.append(gate.enter()), came.set()))
        other.start()
        assert gate.enter() == me, "inside already"
        gate.leave(me)
        assert not came.is_set()
    assert came.wait(60)
    other.join(60)
    monkeypatch.setattr("logstore.view.shared.gate.PATIENCE_S", 0.05)
    with gate.alone() as alone:
        assert not alone, "another thread has not gone out"
    gate.leave(said[0])
    with gate.alone() as alone:
        assert alone
    gate.leave(me)


def test_a_gate_that_stays_closed_is_told(monkeypatch):
    monkeypatch.setattr("logstore.view.shared.gate.PATIENCE_S", 0.01)
    gate, refused = Gate(), []

    def come():
        try:
            gate.enter()
        except NotYet as error:
            refused.append(error)

    with gate.alone():
        other = threading.Thread(target=come)
        other.start()
        other.join(60)
    assert len(refused) == 1
    with gate.alone() as alone:
        assert alone, "who was refused is not inside"
