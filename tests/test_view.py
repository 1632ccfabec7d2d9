"""A view: entries and position together, through kills, growth, another boot and other writers."""

import random
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from support_view import (
    IDENTITY,
    PLACE,
    descriptors,
    mixed,
    open_view,
    put,
    truncate,
    used_bytes,
    zero_pages,
    zero_root,
)

from logstore.model.errors import Corrupted, NotYet, Overloaded
from logstore.model.folding.fold import Folded, fold_batch
from logstore.view import layout, paths
from logstore.view.environment import discard_if_torn
from logstore.view.layout import Stop
from logstore.view.reader import ViewReader
from logstore.view.view import View


def in_other_process(code: str, *arguments: object, **more) -> subprocess.Popen:
    """Run Python code in a process of its own; its arguments are `sys.argv[1:]`."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **more)


WRITER = """
    import sys
    sys.path.insert(0, "tests")
    from pathlib import Path
    from support_view import open_view, put
    view = open_view(Path(sys.argv[1]))
    while True:
        put(view, {b"%08d" % n: b"v%d" % n for n in range(view.next_offset, view.next_offset + 97)})
        print(view.next_offset, flush=True)
"""


def test_killed_at_random_instants_it_is_a_prefix(tmp_path, rng):
    last = 0
    for _ in range(5):
        with in_other_process(WRITER, tmp_path / "view") as writer:
            said = [int(writer.stdout.readline()) for _ in range(rng.randrange(1, 60))]
            writer.send_signal(signal.SIGKILL)
        view = open_view(tmp_path / "view")
        assert view.next_offset >= said[-1] > last
        with view.reader().reading() as reading:
            found = {key: raw[17:] for key, raw in reading.scan()}
        assert found == {b"%08d" % n: b"v%d" % n for n in range(view.next_offset)}
        last = view.next_offset
        view.close()


MIXED = """
    import sys
    sys.path.insert(0, "tests")
    from pathlib import Path
    from support_view import PLACE, mixed, open_view
    from logstore.model.folding.fold import fold_batch
    view = open_view(Path(sys.argv[1]), sync=sys.argv[2], map_bytes=1 << 20)
    print("open", flush=True)
    begun = view.next_offset
    while True:
        first = view.next_offset
        folded = fold_batch(mixed(first, first + 1 + first * 7 % 50), PLACE, first, view.state.log_time_ms)
        view.apply(folded, leader_epoch=first)
        if first == begun:
            print("applied", flush=True)
"""


@pytest.mark.parametrize("sync", ["none", "commit"])
def test_killed_at_any_instant_it_is_the_fold_of_a_prefix(tmp_path, sync, rng):
    last = 0
    for round_ in range(6):
        with in_other_process(MIXED, tmp_path / "view", sync) as writer:
            assert writer.stdout.readline() == "open\n"
            if round_ == 5:
                assert writer.stdout.readline() == "applied\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(rng.uniform(0.01, 0.2))
            writer.kill()
        view = open_view(tmp_path / "view", sync=sync)
        wanted = fold_batch(mixed(0, view.next_offset), PLACE, 0, 0)
        with view.reader().reading() as reading:
            assert dict(reading.scan()) == wanted.entries
            assert sum(reading.quarantine_counts().values()) == len(wanted.quarantined)
            assert reading.quarantine().records == wanted.quarantined[-1_000:]
        assert view.state.log_time_ms == wanted.log_time_ms
        assert view.next_offset >= last
        last = view.next_offset
        view.close()
    assert last > 0


def test_a_reader_of_another_process_sees_whole_commits_only(tmp_path):
    with in_other_process(WRITER, tmp_path / "view") as writer:
        try:
            assert writer.stdout.readline()
            reader, seen = ViewReader.open(tmp_path / "view"), set()
            while len(seen) < 20:
                with reader.reading() as reading:
                    position = reading.state.next_offset
                    assert [int(key) for key, _ in reading.scan()] == list(range(position))
                assert not position % 97
                seen.add(position)
                writer.stdout.readline()
            reader.close()
        finally:
            writer.kill()


def test_it_goes_on_where_it_stood(tmp_path):
    view = open_view(tmp_path / "view")
    put(view, {b"a": b"1", b"b": None})
    view.stop(Stop("gap", "look", 2))
    view.close()
    again = open_view(tmp_path / "view")
    assert (again.next_offset, again.state.stop) == (2, Stop("gap", "look", 2))
    put(again, {b"c": b"3"})
    assert again.state.stop is None
    again.close()


def test_another_view_is_not_opened_as_this_one(tmp_path):
    open_view(tmp_path / "view").close()
    with pytest.raises(Corrupted, match="another view"):
        View(tmp_path / "view", replace(IDENTITY, epoch="f" * 32))


def test_what_is_no_view_is_refused(tmp_path):
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "data.mdb").write_bytes(b"nonsense" * 2_000)
    with pytest.raises(Corrupted):
        open_view(tmp_path / "view")


def test_a_position_never_goes_back(tmp_path):
    view = open_view(tmp_path / "view")
    put(view, {b"a": b"1"})
    with pytest.raises(AssertionError):
        view.apply(Folded(0, 0, {}, [], None))
    view.close()


def test_written_without_sync_and_another_boot_it_is_thrown_away(tmp_path, monkeypatch):
    path = tmp_path / "view"
    view = open_view(path)
    put(view, {b"a": b"1"})
    assert not discard_if_torn(path)  # the same boot: a killed process loses nothing
    monkeypatch.setattr(paths, "BOOT_ID", tmp_path / "boot_id")
    paths.BOOT_ID.write_text("another boot")
    assert discard_if_torn(path)
    assert not path.exists()
    view._env.close()


@pytest.mark.parametrize("sync", ["none", "commit"])
def test_closed_cleanly_it_survives_another_boot(tmp_path, monkeypatch, sync):
    path = tmp_path / "view"
    view = open_view(path, sync=sync)
    put(view, {b"a": b"1"})
    view.close()
    monkeypatch.setattr(paths, "BOOT_ID", tmp_path / "boot_id")
    paths.BOOT_ID.write_text("another boot")
    assert not discard_if_torn(path)
    again = open_view(path)
    assert again.next_offset == 1
    again.close()


def test_synced_from_now_on_its_mark_is_gone(tmp_path):
    view = open_view(tmp_path / "view")
    put(view, {b"a": b"1"})
    view._env.close()  # not cleanly
    assert (tmp_path / "view" / "unsynced").exists()
    again = open_view(tmp_path / "view", sync="commit")
    assert not (tmp_path / "view" / "unsynced").exists()
    again.close()


FOLLOWER = """
    import sys
    from pathlib import Path
    from logstore.view.reader import ViewReader
    reader = ViewReader.open(Path(sys.argv[1]))
    for line in sys.stdin:
        print(reader.point(line.strip().encode())[1] is not None, flush=True)
"""


def test_the_map_grows_and_a_reader_of_another_process_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "DEFAULT_MAP_BYTES", 1 << 20)
    view = open_view(tmp_path / "view", map_bytes=1 << 20)
    put(view, {b"first": b"1"})
    code = FOLLOWER.replace(
        "reader =", "from logstore.view import layout; layout.DEFAULT_MAP_BYTES = 1 << 20\n    reader ="
    )
    with in_other_process(code, tmp_path / "view", stdin=subprocess.PIPE) as follower:
        assert _ask(follower, "first") == "True"
        for n in range(40):
            put(view, {b"%d-%d" % (n, i): b"x" * 1_000 for i in range(100)})
        assert view.reader().map_bytes() > 4 << 20
        assert _ask(follower, "39-99") == "True"
        assert _ask(follower, "nothing") == "False"
        follower.stdin.close()
    view.close()


def _ask(follower, key):
    follower.stdin.write(key + "\n")
    follower.stdin.flush()
    return follower.stdout.readline().strip()


def test_slots_of_killed_readers_are_cleared(tmp_path):
    view = open_view(tmp_path / "view")
    put(view, {b"k": b"v"})
    held = FOLLOWER.replace(
        "for line in sys.stdin:",
        "txn = reader._env.begin()\n    print('holds', flush=True)\n    for line in sys.stdin:",
    )
    with in_other_process(held, tmp_path / "view", stdin=subprocess.PIPE) as follower:
        assert follower.stdout.readline() == "holds\n"
        assert len(view._env.readers().splitlines()) == 2
        follower.kill()
    view.free_slots()
    assert "no active readers" in view._env.readers()
    view.close()


def test_one_process_writes_and_a_killed_one_writes_no_more(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        from logstore.view.paths import Owner
        owner = Owner(Path(sys.argv[1]))
        print("owns", flush=True)
        sys.stdin.read()
    """
    with in_other_process(code, tmp_path / "p", stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == "owns\n"
        with pytest.raises(Overloaded):
            paths.Owner(tmp_path / "p")
        other.kill()
    paths.Owner(tmp_path / "p").release()
    paths.Owner(tmp_path / "p").release()


def test_whose_folder_was_removed_and_made_again_before_the_lock_owns_nothing(tmp_path, monkeypatch):
    first, lock = paths.Owner(tmp_path / "p"), paths.fcntl.flock

    def sweep_first(fd, kind):
        monkeypatch.setattr(paths.fcntl, "flock", lock)
        (tmp_path / "p").rename(tmp_path / "gone")
        first.release()
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "owner").touch()
        lock(fd, kind)

    monkeypatch.setattr(paths.fcntl, "flock", sweep_first)
    with pytest.raises(Overloaded, match="removes"):
        paths.Owner(tmp_path / "p")
    paths.Owner(tmp_path / "p").release()


def test_quarantine_counts_all_and_lists_the_newest(tmp_path):
    view = open_view(tmp_path / "view")
    for first in (0, 900):
        bad = [(n, "null-key" if n % 2 else "empty-key") for n in range(first, first + 900)]
        view.apply(Folded(first + 900, 0, {}, bad, None))
    with view.reader().reading() as reading:
        quarantine = reading.quarantine()
    assert quarantine.counts == {"null-key": 900, "empty-key": 900}
    assert [offset for offset, _ in quarantine.records] == list(range(800, 1_800))
    view.close()


def test_a_whole_batch_of_garbage_is_counted_and_the_newest_listed(tmp_path):
    view = open_view(tmp_path / "view")
    view.apply(Folded(5_000, 0, {}, [(n, "null-key") for n in range(5_000)], None))
    with view.reader().reading() as reading:
        assert reading.quarantine() == ({"null-key": 5_000}, [(n, "null-key") for n in range(4_000, 5_000)])
    view.close()


def test_a_torn_view_that_was_removed_half_way_is_never_believed(tmp_path, monkeypatch):
    path = tmp_path / "view"
    view = open_view(path)
    put(view, {b"a": b"1"})
    view._env.close()
    monkeypatch.setattr(paths, "BOOT_ID", tmp_path / "boot_id")
    paths.BOOT_ID.write_text("another boot")

    def killed(gone):
        (gone / "unsynced").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            discard_if_torn(path)
    discard_if_torn(path)
    again = open_view(path)
    assert again.next_offset == 0
    again.close()


def test_a_reader_refuses_what_is_not_there(tmp_path):
    with pytest.raises(Corrupted):
        ViewReader.open(tmp_path / "nowhere")


def test_small_views_take_little_disk(tmp_path):
    view = open_view(tmp_path / "view")
    put(view, {b"k": b"v"})
    allocated = (tmp_path / "view" / "data.mdb").stat().st_blocks * 512
    assert allocated < 4 << 20
    view.close()


@pytest.mark.parametrize("sync", ["none", "commit"])
@pytest.mark.parametrize("left", [0, 100, 4_096, 8_192, -4_096])
def test_a_file_that_was_cut_short_is_damage_and_no_signal(tmp_path, sync, left):
    path = tmp_path / "view"
    view = open_view(path, sync=sync)
    put(view, {b"%d" % n: b"v" * 100 for n in range(1_000)})
    view.close()
    truncate(path, left if left >= 0 else used_bytes(path) + left)
    for open_it in (open_view, ViewReader.open):
        with pytest.raises(Corrupted, match="is damaged: its file has"):
            open_it(path)


def test_a_file_that_has_all_that_is_in_use_is_whole(tmp_path):
    view = open_view(tmp_path / "view")
    rows = put(view, {b"%d" % n: b"v" * 100 for n in range(1_000)}).entries
    view.close()
    truncate(tmp_path / "view", used_bytes(tmp_path / "view"))
    again = open_view(tmp_path / "view")
    with again.reader().reading() as reading:
        assert dict(reading.scan()) == rows
    again.close()


@pytest.mark.parametrize("sync", ["none", "commit"])
def test_commits_that_free_their_last_pages_leave_a_whole_file(tmp_path, sync):
    rng = random.Random(3)
    view = open_view(tmp_path / "view", sync=sync, map_bytes=1 << 20)
    for _ in range(200):
        put(
            view,
            {
                b"%d" % rng.randrange(300): rng.randbytes(rng.choice([1, 3_000, 30_000]))
                for _ in range(rng.choice([1, 20]))
            },
        )
        assert (tmp_path / "view" / "data.mdb").stat().st_size >= used_bytes(tmp_path / "view")
    view.close()


@pytest.mark.parametrize("sync", ["none", "commit"])
@pytest.mark.parametrize("harm", [zero_root, zero_pages])
def test_zeroed_pages_are_damage_when_it_is_opened(tmp_path, sync, harm):
    view = open_view(tmp_path / "view", sync=sync)
    put(view, {b"k": b"v"})
    view.close()
    harm(tmp_path / "view")
    for open_it in (open_view, ViewReader.open):
        with pytest.raises(Corrupted, match="is damaged"):
            open_it(tmp_path / "view")


def test_pages_that_are_zeroed_while_it_is_open_are_damage_to_every_commit(tmp_path):
    view = open_view(tmp_path / "view")
    put(view, {b"%d" % n: b"v" * 100 for n in range(1_000)})
    zero_pages(tmp_path / "view")
    with pytest.raises(Corrupted, match="is damaged"):
        put(view, {b"1": b"w"})
    with pytest.raises(Corrupted, match="is damaged"):
        view.set_quarantine(layout.Quarantine({"null-key": 1}, [(0, "null-key")]))
    assert view.next_offset == 1_000
    view.close(flush=False)


@pytest.mark.parametrize("open_it", [open_view, ViewReader.open])
@pytest.mark.parametrize(("spare", "error"), [(0, OSError), (1, NotYet)])
def test_without_descriptors_a_view_is_not_called_damaged(tmp_path, open_it, spare, error):
    open_view(tmp_path / "view").close()
    with descriptors(spare), pytest.raises(error, match="Too many open files"):
        open_it(tmp_path / "view")
    open_it(tmp_path / "view").close()


def test_thousands_of_views_fit_into_the_address_space_of_a_process(tmp_path):
    code = textwrap.dedent("""
        import re, sys
        from pathlib import Path
        from logstore.process import descriptors
        from logstore.view.view import View, ViewIdentity
        descriptors.raise_limit()
        views = [View(Path(sys.argv[1]) / str(n), ViewIdentity("t", "e" * 32, n, 300, 1_000)) for n in range(300)]
        print(int(re.search(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10)
        for view in views:
            view.close(flush=False)
    """)
    program = [sys.executable, "-c", code, str(tmp_path)]
    taken = int(subprocess.run(program, capture_output=True, check=True, text=True, timeout=120).stdout)
    assert taken / 300 * 10_000 < 1 << 46, "ten thousand views take less than half of 47 bits"
