"""Sweep.

What nobody can ask for is removed, by several processes at once, and never under somebody who writes or reads.
"""

import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support_tiers import short_and_long

from logstore.model.errors import Overloaded
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.table import Table
from logstore.snapshot.sst import SstReader, SstWriter, prepare
from logstore.view import paths
from streaming.control.sweep import sweep

EPOCH, OTHER = "e" * 32, "f" * 32
DROPPED = Table("t", "t", EPOCH, 3, dropped=True)


def grow(data_dir, table, partitions=3):
    """Views and local snapshots of a table, as a worker leaves them."""
    for partition in range(partitions):
        paths.Owner(paths.partition_dir(data_dir, table.name, table.epoch, partition)).release()
        view = paths.partition_dir(data_dir, table.name, table.epoch, partition) / "1"
        base = paths.snapshot_dir(data_dir, table.name, table.epoch, partition) / "s.files"
        for folder in (view, base):
            folder.mkdir(parents=True)
            (folder / "data.mdb").write_text("x")


def make(folder):
    """As who tries again does: the folders above may be swept for as long as they are empty."""
    while not folder.is_dir():
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            folder.mkdir(parents=True, exist_ok=True)


def left(data_dir):
    return sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if path.is_file())


def test_views_and_local_snapshots_of_a_dropped_table_go_and_those_of_a_live_one_stay(tmp_path):
    live = Table("live", "live", OTHER, 3)
    grow(tmp_path, live)
    before = left(tmp_path)
    grow(tmp_path, DROPPED)
    sweep(tmp_path, [DROPPED, live])
    assert left(tmp_path) == before
    assert not (tmp_path / "views" / "t").exists()
    assert not (tmp_path / "snapshots" / "t").exists()


def test_under_its_former_name_goes_what_belongs_to_a_promoted_table(tmp_path):
    promoted, former = Table("t", "fork", OTHER, 3), Table("fork", "t", EPOCH, 3, former_epochs=(OTHER,))
    for table in (promoted, former, Table("fork", "fork", OTHER, 3)):
        grow(tmp_path, table)
    sweep(tmp_path, [promoted, former])
    for kind in ("views", "snapshots"):
        assert sorted(str(path.relative_to(tmp_path / kind)) for path in (tmp_path / kind).glob("*/*")) == [
            f"fork/{EPOCH}",
            f"t/{OTHER}",
        ]


def test_local_snapshots_alone_are_removed_too(tmp_path):
    (paths.snapshot_dir(tmp_path, "t", EPOCH, 0) / "s").mkdir(parents=True)
    sweep(tmp_path, [DROPPED])
    assert list(tmp_path.glob("*/*")) == []


def test_a_partition_that_is_written_stays_whole_until_its_writer_lets_go(tmp_path):
    grow(tmp_path, DROPPED)
    owner = paths.Owner(paths.partition_dir(tmp_path, "t", EPOCH, 1))
    sweep(tmp_path, [DROPPED])
    assert left(tmp_path) == [
        f"snapshots/t/{EPOCH}/1/s.files/data.mdb",
        f"views/t/{EPOCH}/1/1/data.mdb",
        f"views/t/{EPOCH}/1/owner",
    ]
    owner.release()
    sweep(tmp_path, [DROPPED])
    assert list(tmp_path.glob("*/*")) == []


def test_who_has_a_local_snapshot_open_reads_on(tmp_path):
    folder = paths.snapshot_dir(tmp_path, "t", EPOCH, 0)
    folder.mkdir(parents=True)
    rows = {b"%05d" % n: Entry(VALUE, n, 1, b"v" * 1_000).encode() for n in range(5_000)}
    writer = SstWriter(folder / "0.sst")
    writer.put_many(rows.items())
    writer.close()
    prepare(folder / "s", [[folder / "0.sst"]])
    reader = SstReader.open(folder / "s", cache_bytes=1 << 16)
    sweep(tmp_path, [DROPPED])
    assert left(tmp_path) == []
    assert dict(reader.scan()) == rows
    reader.close()


def test_what_a_killed_sweep_left_is_removed_by_the_next(tmp_path):
    for kind in ("views", "snapshots"):
        (tmp_path / kind / "t" / EPOCH / "0.0123abcd.gone" / "1").mkdir(parents=True)
    sweep(tmp_path, [DROPPED])
    assert list(tmp_path.glob("*/*")) == []


def test_what_cannot_be_removed_is_said_and_the_rest_goes(tmp_path, caplog):
    grow(tmp_path, DROPPED)
    (tmp_path / "views" / "t" / EPOCH / "stray").write_text("")
    sweep(tmp_path, [DROPPED])
    assert left(tmp_path) == [f"views/t/{EPOCH}/stray"]
    assert "stray cannot be removed" in caplog.text


def test_threads_that_sweep_the_same_tree_at_once_do_not_disturb_each_other(tmp_path, rng):
    with ThreadPoolExecutor(4) as pool:
        for _ in range(100):
            grow(tmp_path, DROPPED, rng.randrange(1, 6))
            together = threading.Barrier(4)
            for done in [
                pool.submit(lambda start: (start.wait(90), sweep(tmp_path, [DROPPED])), together) for _ in range(4)
            ]:
                done.result(30)
            sweep(tmp_path, [DROPPED])
            assert list(tmp_path.glob("*/*")) == []


SWEEP = """
import sys
from pathlib import Path
from logstore.model.table import Table
from streaming.control.sweep import sweep
print("sweeps", flush=True)
while True:
    sweep(Path(sys.argv[1]), [Table("t", "t", sys.argv[2], 3, dropped=True)])
"""


@pytest.fixture
def sweepers(tmp_path):
    """Two processes that sweep again and again."""
    command = [sys.executable, "-c", SWEEP, str(tmp_path), EPOCH]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        assert process.stdout.readline() == "sweeps\n", process.stderr.read()
    yield started
    for process in started:
        process.kill()
        process.communicate(timeout=90)


@short_and_long("rounds", 500, 2_000)
def test_processes_that_sweep_leave_alone_what_this_one_writes(tmp_path, sweepers, rounds):
    owned = 0
    for _ in range(rounds):
        directory = paths.partition_dir(tmp_path, "t", EPOCH, 0)
        try:
            owner = paths.Owner(directory)
        except Overloaded:
            continue
        owned += 1
        base = paths.snapshot_dir(tmp_path, "t", EPOCH, 0)
        make(base)
        for folder in (directory, base):
            (folder / "mine").write_text("x")
        assert (directory / "mine").exists()
        assert (base / "mine").exists()
        owner.release()
    assert owned > rounds // 20
    assert [process.poll() for process in sweepers] == [None, None]
    for process in sweepers:
        process.kill()
        process.wait(90)
    sweep(tmp_path, [DROPPED])
    assert list(tmp_path.glob("*/*")) == []
