"""The digester process.

Pins where the lane stands, digests that equal a fold, generations; and what becomes of it when it is killed.
"""

import contextlib
import os
import signal
from dataclasses import asdict
from pathlib import Path

import pytest
from support_log import until
from support_view import IDENTITY, open_view, put, zero_pages

from logstore.model.folding.digest import digest
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.model.folding.fold import Folded
from logstore.snapshot.sst import SstReader, SstWriter, prepare
from logstore.view import generation
from logstore.view.layout import Base
from logstore.view.reader import ViewReader
from logstore.view.view import View
from streaming.digest.client import DIED
from streaming.digest.digester import DigestRequest
from streaming.digest.view_digest import digest_of

WAIT_S = 90.0


def pin(digest_client, view, base_dir=None):
    pending = digest_client.pin(str(view.path), base_dir and str(base_dir), lambda _: None)
    assert pending.begun.wait(WAIT_S)
    return pending


def outcome(pending):
    assert pending.done.wait(WAIT_S)
    assert pending.failure is None, pending.failure
    return pending.outcome


def live(view):
    with view.reader().reading() as reading:
        return {key: entry for key, entry in reading.scan() if entry[0] != TOMBSTONE}


def test_a_pin_holds_the_state_while_the_view_goes_on(tmp_path, digest_client):
    view = open_view(tmp_path / "1")
    put(view, {b"k%d" % n: b"v" * 50 for n in range(3_000)} | {b"l" * 600: b"long", b"gone": None})
    expected, at = digest(live(view).items()), view.next_offset
    digest_client.views([str(view.path)])
    pending = pin(digest_client, view)
    put(view, {b"k%d" % n: b"later" for n in range(2_000)})
    assert pending.pinned_at == at
    assert outcome(pending) == (expected.hex, expected.entries)
    assert expected.entries == 3_001
    view.close()


def test_a_view_is_pinned_although_nobody_said_that_it_would_be(tmp_path, digest_client):
    view = open_view(tmp_path / "1")
    put(view, {b"k": b"v"})
    assert pin(digest_client, view).pinned_at == 1
    view.close()


def test_a_view_that_is_not_there_is_a_failure(tmp_path, digest_client):
    pending = digest_client.pin(str(tmp_path / "none"), None, lambda _: None)
    assert pending.done.wait(WAIT_S)
    assert "cannot be read" in pending.failure


def based_view(tmp_path, count, changed):
    """A base of `count` rows and a view over it: every `changed`th row is newer, some are gone and some are new."""
    old = {b"k%07d" % n: Entry(VALUE, n, 1, b"v" * 40).encode() for n in range(count)}
    writer = SstWriter(tmp_path / "one.sst")
    for key, entry in old.items():
        writer.put(key, entry)
    writer.close()
    prepare(tmp_path / "base", [[tmp_path / "one.sst"]])
    amount = digest(old.items())
    base = Base("00000000000001-0000abcd", count, 1, amount.hex, amount.entries, "")
    view = View(tmp_path / "1", IDENTITY, base)
    new = {b"k%07d" % n: Entry(VALUE, count + n, 2, b"new").encode() for n in range(0, count, changed)}
    new |= {b"k%07d" % n: Entry(TOMBSTONE, 2 * count + n, 3).encode() for n in range(1, count, changed)}
    new |= {b"fresh": Entry(VALUE, 3 * count, 4, b"x").encode(), b"never": Entry(TOMBSTONE, 3 * count + 1, 5).encode()}
    view.apply(Folded(4 * count, 5, new, [], None))
    merged = {key: entry for key, entry in (old | new).items() if entry[0] != TOMBSTONE}
    return view, base, digest(merged.items())


@pytest.mark.parametrize("changed", [2, 500])
def test_by_difference_the_digest_is_that_of_view_and_base_together(tmp_path, digest_client, changed):
    view, base, expected = based_view(tmp_path, 5_000, changed)
    assert outcome(pin(digest_client, view, tmp_path / "base")) == (expected.hex, expected.entries)
    under = SstReader.open(tmp_path / "base")
    with view.reader().reading() as reading:
        assert digest_of(reading, base, under) == expected
    under.close()
    view.close()


def test_a_base_that_is_not_there_is_a_failure_and_no_digest(tmp_path, digest_client):
    view, _, _ = based_view(tmp_path, 10, 2)
    pending = pin(digest_client, view)
    assert pending.done.wait(WAIT_S)
    assert "is not here" in pending.failure
    view.close()


def test_a_killed_digester_fails_what_it_had_begun_and_is_started_again(tmp_path, digest_client):
    view = open_view(tmp_path / "1")
    put(view, {b"k%d" % n: b"v" for n in range(1_000)})
    before = digest_client.pid
    os.kill(before, signal.SIGSTOP)
    pending = digest_client.pin(str(view.path), None, lambda _: None)
    assert not pending.begun.wait(0.02)
    os.kill(before, signal.SIGKILL)
    assert pending.done.wait(WAIT_S)
    assert pending.failure == DIED
    until("another digester runs", lambda: digest_client.pid not in (None, before))
    assert outcome(pin(digest_client, view))[1] == 1_000
    view.close()


def test_it_builds_a_generation_while_the_view_is_written(tmp_path, digest_client):
    view, base, _ = based_view(tmp_path, 5_000, 3)
    newer = base._replace(snapshot="00000000000002-0000abcd", cut=view.next_offset - 5_000)
    path = generation.unborn(tmp_path, 2)
    pending = digest_client.build(DigestRequest(str(view.path), str(path), asdict(IDENTITY), newer._asdict(), "none"))
    assert pending.begun.wait(WAIT_S)
    put(view, {b"meanwhile": b"v"})
    digest_client.last(pending)
    assert outcome(pending) == (view.next_offset,)
    with view.reader().reading() as reading:
        expected = {key: entry for key, entry in reading.scan() if int.from_bytes(entry[1:9], "big") >= newer.cut}
    with ViewReader.open(path).reading() as reading:
        assert dict(reading.scan()) == expected
        assert (reading.base, reading.state) == (newer, view.state)
    view.close()


def test_a_pin_does_not_wait_for_the_digest_before_it(tmp_path, digest_client, rng):
    view = open_view(tmp_path / "1")
    for first in range(0, 200_000, 10_000):
        put(view, {b"%07d" % n: rng.randbytes(100) for n in range(first, first + 10_000)})
    digest_client.views([str(view.path)])

    def pinned_meanwhile():
        """Two cuts, one right after the other; the digest at the first may be left out for that at the second."""
        first, second = pin(digest_client, view), pin(digest_client, view)
        computing = not first.done.is_set()
        assert outcome(second)[1] == 200_000
        assert first.done.wait(WAIT_S)
        return computing

    until("a cut is pinned while the digest of one before it is computed", pinned_meanwhile)
    view.close()


def test_what_nobody_expected_ends_the_digester_and_another_one_starts(tmp_path, digest_client):
    view = open_view(tmp_path / "1")
    put(view, {b"k": b"v"})
    before = digest_client.pid
    pending = digest_client.build(DigestRequest(str(view.path), str(tmp_path / "2.new"), {"nonsense": 1}, {}, "none"))
    assert pending.done.wait(WAIT_S)
    assert pending.failure == DIED
    until("another digester runs", lambda: digest_client.pid not in (None, before))
    assert outcome(pin(digest_client, view))[1] == 1
    view.close()


def test_a_view_that_turns_out_damaged_is_a_failure_and_pins_nothing(tmp_path, digest_client):
    view = open_view(tmp_path / "1")
    put(view, {b"%d" % n: b"v" * 100 for n in range(1_000)})
    assert outcome(pin(digest_client, view))[1] == 1_000
    before = digest_client.pid
    zero_pages(view.path)
    pending = digest_client.pin(str(view.path), None, lambda _: None)
    assert pending.done.wait(WAIT_S)
    assert "is damaged" in pending.failure
    assert digest_client.pid == before
    view.close(flush=False)


def test_another_view_under_the_same_path_is_the_one_that_is_pinned(tmp_path, digest_client):
    view = open_view(tmp_path / "1")
    put(view, {b"%d" % n: b"v" for n in range(10)})
    digest_client.views([str(view.path)])
    assert outcome(pin(digest_client, view))[1] == 10
    view.close(flush=False)
    generation.remove(view.path)
    again = open_view(tmp_path / "1")
    put(again, {b"new": b"v"})
    pending = pin(digest_client, again)
    assert (pending.pinned_at, outcome(pending)[1]) == (1, 1)
    again.close()


def test_a_base_is_let_go_with_its_partition(tmp_path, digest_client):
    view, _, _ = based_view(tmp_path, 1_000, 2)
    digest_client.views([str(view.path)])
    outcome(pin(digest_client, view, tmp_path / "base"))
    assert _opened(digest_client.pid, tmp_path / "base")
    digest_client.views([])
    until("its files are closed", lambda: not _opened(digest_client.pid, tmp_path))
    digest_client.views([str(view.path)])
    outcome(pin(digest_client, view, tmp_path / "base"))
    view.close()


def _opened(pid, directory):
    """What a process has open below a directory."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(fd.readlink()))
    return [path for path in found if path.startswith(str(directory))]
