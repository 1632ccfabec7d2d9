"""Proof and adoption wait for what goes on, however slow, and not for what does not.

Clocks are the tests' own: each step takes as long as they say.
"""

import itertools
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import msgpack
import pytest
from support_log import until
from support_view import open_view, put

from batch.jobs import node_adoptions
from batch.jobs.node_adoptions import reached, until_still
from logstore.model.folding.digest import digest
from logstore.process import child
from logstore.process.progress import Patience
from logstore.view.feed.adoption_records import AdoptionRecord, DigestRecord
from streaming.adoption import refold
from streaming.adoption.agreement import LOST_S, Agreement
from streaming.adoption.refold import STILL_S, NotFolded
from streaming.digest.client import DigestClient
from streaming.digest.digester import MESSAGE_BYTES, PIN_S, Digester

CUT = 9


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class DigesterAlone:
    """A digester without its threads, whose work is done when a test says so."""

    def __init__(self, clock):
        self.mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.mine.setblocking(False)
        self.digester, self.other = Digester(other, clock), other

    def pin(self, number, view):
        self.digester._pin(number, str(view[0]), None)
        assert self.said()[0][0] == "pinned"

    def work(self):
        self.digester._do(self.digester._jobs.get_nowait())
        return self.said()

    def said(self):
        found = []
        while True:
            try:
                found.append(msgpack.unpackb(self.mine.recv(MESSAGE_BYTES)))
            except BlockingIOError:
                return found

    def close(self):
        self.digester._shut([])
        self.mine.close()
        self.other.close()


def view_of(path, count):
    """A view that was closed, as one process opens it once; and the digest of what it holds."""
    opened = open_view(path)
    put(opened, {b"k%05d" % n: b"v" for n in range(count)})
    with opened.reader().reading() as reading:
        found = digest(reading.scan())
    opened.close()
    return path, found


@pytest.fixture
def view(tmp_path):
    return view_of(tmp_path / "1", 5_000)


@pytest.fixture
def small(tmp_path):
    return view_of(tmp_path / "2", 1)


def test_a_digester_says_how_far_it_is(view):
    alone = DigesterAlone(itertools.count().__next__)  # a second passes between two looks
    alone.pin(7, view)
    *moved, (word, number, hex_, entries) = alone.work()
    assert [at for _, _, at in moved] == sorted({at for _, _, at in moved})
    assert ({word for word, _, _ in moved}, moved[-1][2]) == ({"moved"}, 5_000)
    assert (word, number, hex_, entries) == ("digest", 7, view[1].hex, 5_000)
    alone.close()


def test_a_pin_is_waited_with_as_long_as_the_work_before_it_goes_on(view, small):
    clock = Clock()
    alone = DigesterAlone(clock)
    alone.pin(1, view)
    alone.pin(2, small)
    clock.now_s = PIN_S + 1
    assert alone.work()[-1][:2] == ["failed", 1], "nothing went on since it was pinned"
    assert alone.work()[-1][:2] == ["failed", 2]
    alone.pin(4, small)
    alone.pin(5, view)
    clock.now_s += PIN_S - 1
    assert alone.work()[-1][:2] == ["digest", 4]
    clock.now_s += PIN_S - 1
    assert alone.work()[-1][:2] == ["digest", 5], "pinned for nearly twice as long, while the one before it went on"
    alone.close()


# a digester that goes on by one step whenever it is told to open a view
STEPS = """
import socket, sys, msgpack
sock, steps, pinned = socket.socket(fileno=int(sys.argv[1])), 0, None
while raw := sock.recv(1 << 17):
    word, *rest = msgpack.unpackb(raw)
    if word == "pin":
        pinned = rest[0]
        sock.send(msgpack.packb(["pinned", pinned, 9]))
    elif word == "open" and pinned is not None:
        steps += 1
        sock.send(msgpack.packb(["moved", pinned, 1_000 * steps]))
"""


@pytest.fixture
def stepping(monkeypatch):
    monkeypatch.setattr(child, "python", lambda _module, *arguments: [sys.executable, "-c", STEPS, *arguments])
    client = DigestClient()
    client.start()
    until("the digester runs", lambda: client.pid)
    yield client
    client.close()


def agreement(worked, clock):
    return Agreement("", None, None, None, lambda _topic, _partition: 0, threading.Event(), worked, clock)


def test_a_digest_that_comes_nearer_is_waited_for_and_one_that_does_not_is_lost(stepping, tmp_path):
    clock = Clock()
    agrees = agreement(stepping.worked, clock)
    table = SimpleNamespace(allow_control_records=True)
    followed = SimpleNamespace(target=SimpleNamespace(key=("e", 0), table=table), view=SimpleNamespace(path=tmp_path))
    assert not agrees._is_lost(followed, CUT), "it is only missed now"
    pending = stepping.pin(str(tmp_path), None, lambda _: None, CUT)
    assert pending.begun.wait(30)
    for step in range(1, 7):
        stepping.views([f"view-{step}"])
        until("it is a step further", lambda step=step: stepping.worked(str(tmp_path), CUT) == 1_000 * step)
        clock.now_s += LOST_S - 1
        assert not agrees._is_lost(followed, CUT), "it takes far longer than the limit, and goes on"
    assert stepping.worked(str(tmp_path), CUT + 1) is None
    clock.now_s += LOST_S - 1
    assert not agrees._is_lost(followed, CUT)
    clock.now_s += 2
    assert agrees._is_lost(followed, CUT), "no step since"
    assert not agrees._is_lost(followed, CUT + 5), "another cut has a time of its own"


# a fold that goes on by one step whenever it is told to, and ends with the last
FOLDS = """
import sys
for count, line in enumerate(sys.stdin, 1):
    with open(sys.argv[1], "w") as file:
        file.write(f"{count}\\n")
    if line.strip() == "end":
        break
"""


def test_a_fold_that_goes_on_is_waited_for_however_long_it_takes(tmp_path):
    clock, told, steps = Clock(), tmp_path / "progress", []
    with subprocess.Popen([sys.executable, "-c", FOLDS, str(told)], stdin=subprocess.PIPE) as process:

        def saw(count):
            steps.append(count)
            clock.now_s += STILL_S - 1
            process.stdin.write(b"on\n" if count < 5 else b"end\n")
            process.stdin.flush()

        process.stdin.write(b"on\n")
        process.stdin.flush()
        refold._wait(process, threading.Event(), told, saw, Patience(STILL_S, clock))
    assert steps[:5] == [1, 2, 3, 4, 5]
    assert process.returncode == 0


def test_a_fold_that_does_not_go_on_is_ended(tmp_path):
    clock, told = Clock(), tmp_path / "progress"
    with subprocess.Popen([sys.executable, "-c", FOLDS, str(told)], stdin=subprocess.PIPE) as process:
        process.stdin.write(b"on\n")
        process.stdin.flush()
        until("it began", lambda: told.exists() and told.read_text() == "1\n")
        patience = Patience(STILL_S, clock)

        def saw(_count):
            clock.now_s += STILL_S + 1  # and then nothing

        with pytest.raises(NotFolded, match="came no further"):
            refold._wait(process, threading.Event(), told, saw, patience)
    assert process.returncode == -9


def test_nodes_are_waited_for_while_they_come_further(monkeypatch):
    monkeypatch.setattr(node_adoptions, "AGAIN_S", 0)
    clock, at = Clock(), iter([3, 6, 6, 9, 9, 9, 0, 9, 9, 9])

    def look(seen):
        clock.now_s += 20
        record = AdoptionRecord(candidate="s-2", state="fetching", work="fetch", worked=next(at))
        seen.update(reached("http://n", 0, record))
        return ["lacking"]

    assert until_still(look, bool, Patience(50, clock)) == ["lacking"]
    assert list(at) == [9, 9, 9], "the limit began anew with 3, 6 and 9, and with nothing after that"
    assert until_still(lambda _: [], bool, Patience(50, clock)) == []


def test_how_far_a_node_is_grows_with_what_it_does():
    def is_further(before, after):
        was, now = reached("u", 1, before), reached("u", 1, after)
        return any(at > was.get(piece, -1) for piece, at in now.items())

    none = AdoptionRecord()
    assert not is_further(none, none)
    assert is_further(none, none._replace(candidate="s", work="digest"))
    assert is_further(none, none._replace(digests=(DigestRecord(5, "ab", 1),)))
    assert is_further(none, none._replace(base="s", cut=5))
    assert not is_further(none, none._replace(reason="another one"))
