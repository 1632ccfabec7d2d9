"""A view on a small disk that is full again and again: an error each time, never a signal, never half a batch."""

import subprocess
import sys
import textwrap

import pytest

SMALL_DISK = (
    'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"'  # in a mount namespace of the process's own: gone with it
)

FILL_AND_FREE = """
    import random, sys
    sys.path.insert(0, "tests")
    from pathlib import Path
    from support_view import IDENTITY
    from logstore.model.errors import DiskFull
    from logstore.model.folding.fold import Folded
    from logstore.view.view import View

    disk, seed, map_bytes, sync = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    rng, model, counts, full, went_on = random.Random(seed), {}, 0, 0, 0
    balloon = disk / "balloon"

    def fill():
        with balloon.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def batch():
        key = lambda: rng.choice([b"%d", b"k" * 600 + b"%d"]) % rng.randrange(300)
        entries = {key(): rng.randbytes(rng.choice([17, 117, 3_017, 30_017])) for _ in range(rng.choice([1, 30, 100]))}
        return entries, [(n, "null-key") for n in range(rng.choice([0, 0, 5_000]))]

    def check(view):
        with view.reader().reading() as reading:
            assert dict(reading.scan()) == model and reading.state == view.state
            assert reading.quarantine_counts().get("null-key", 0) == counts

    view = View(disk / "view", IDENTITY, map_bytes=map_bytes, sync=sync)
    for step in range(400):
        if rng.random() < 0.05 and not balloon.exists():
            fill()
        entries, bad = batch()
        folded = Folded(view.next_offset + 10_000, 0, entries, [(view.next_offset + n, why) for n, why in bad], None)
        try:
            view.apply(folded)
        except DiskFull:
            full += 1
            check(view)
            if rng.random() < 0.3:
                balloon.unlink(missing_ok=True)
                if not balloon.exists() and rng.random() < 0.5:
                    view.close()
                    view = View(disk / "view", IDENTITY, map_bytes=map_bytes, sync=sync)
            continue
        went_on += bool(full)
        model |= entries
        counts += len(bad)
    check(view)
    print(full, went_on)
"""


OWN = """
    import sys
    from pathlib import Path
    from logstore.model.errors import DiskFull
    from logstore.view.paths import Owner

    disk = Path(sys.argv[1])
    for number in range(100):
        try:
            Owner(disk / "views" / "t" / "e" / str(number)).release()
        except DiskFull as error:
            print(number, len(list(disk.rglob("*"))), error)
            break
    for child in disk.glob("views/t/e/*/owner"):
        child.unlink()
    Owner(disk / "views" / "t" / "e" / str(number)).release()
"""


@pytest.mark.parametrize("inodes", [20, 21])  # the last one is a folder, or the file in it
def test_no_room_to_own_a_partition_is_an_error_that_passes(tmp_path, inodes):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = SMALL_DISK.replace("size=12m", f"size=12m,nr_inodes={inodes}")
    program = [sys.executable, "-c", textwrap.dedent(OWN), str(disk)]
    within = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(disk)]
    done = subprocess.run([*within, *program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "free some space" in done.stdout, done.stdout
    assert int(done.stdout.split()[1]) == inodes - 1  # the root is one, too


@pytest.mark.parametrize(
    ("seed", "map_bytes", "sync"), [(1, 32 << 30, "none"), (2, 1 << 20, "none"), (4, 32 << 30, "commit")]
)
@pytest.mark.slow
def test_a_full_disk_is_an_error_that_changes_nothing_and_passes(tmp_path, seed, map_bytes, sync):
    disk = tmp_path / "disk"
    disk.mkdir()
    program = [sys.executable, "-c", textwrap.dedent(FILL_AND_FREE), str(disk), str(seed), str(map_bytes), sync]
    within = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, str(disk)]
    done = subprocess.run([*within, *program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2_000:])  # -7 would be SIGBUS
    full, went_on = map(int, done.stdout.split())
    assert full > 5
    assert went_on > 50
