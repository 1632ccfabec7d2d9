"""The repository: what is visible, what is current, what is kept, and that planted damage is found."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support_snapshot import judge
from support_wait import until

from logstore.model.errors import Conflict, Corrupted, JobRunning, NoSuchSnapshot, UsageError
from logstore.model.folding.digest import digest
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.model.table import Table
from logstore.snapshot.manifest import FileFacts, Manifest, PartFacts
from logstore.snapshot.repository import Repository
from logstore.snapshot.sst import SstReader, SstWriter
from logstore.snapshot.storage import Storage
from logstore.view.feed.server import FeedServer
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.lane.disk import local_snapshots
from streaming.lane.target import Target

EPOCH = "0" * 32
PAIRS = [(b"k%05d" % i, Entry(VALUE, i, 1, b"v" * 50).encode()) for i in range(3000)]


def published(repository: Repository, folder: Path, name: str) -> Manifest:
    writer = SstWriter(folder / f"{name}.sst")
    writer.put_many(PAIRS)
    facts = writer.close()
    assert facts is not None
    repository.storage.upload(folder / f"{name}.sst", repository.file_path(f"{name}/p00000-00000.sst"))
    file = FileFacts(
        0, f"{name}/p00000-00000.sst", facts.entries, facts.size_bytes, facts.first_key, facts.last_key, facts.checksum
    )
    part = PartFacts(3000, 1, 3000, digest(PAIRS).hex, {}, [])
    made = Manifest(name, "t", "t", EPOCH, 1, 100, "compact", None, 1, 1, "j", "b", {0: part}, [file])
    repository.publish(made)
    return made


@pytest.fixture
def repository(tmp_path):
    return Repository(Storage(f"file://{tmp_path}/storage"), "t", EPOCH)


def test_what_is_published_reads_back_sound(repository, tmp_path):
    assert published(repository, tmp_path, "00000000000001-aaaaaaaa") == repository.manifest("00000000000001-aaaaaaaa")
    assert repository.verify("00000000000001-aaaaaaaa") == []


def test_the_pointer_moves_only_from_where_it_was_seen(repository):
    first = repository.move(None, "a", "test")
    with pytest.raises(Conflict):
        repository.move(None, "b", "test")
    assert repository.move(first, "b", "test") == repository.current()


def test_collection_leaves_current_predecessors_and_pins(repository, tmp_path):
    names = [f"{n:014d}-aaaaaaaa" for n in range(1, 6)]
    for name in names:
        published(repository, tmp_path, name)
        repository.move(repository.current(), name, "test")
    repository.pin(names[0], "test")
    assert repository.gc(2).snapshots == names[1:3]
    assert repository.names() == [names[0], names[3], names[4]]
    with pytest.raises(NoSuchSnapshot):
        repository.manifest(names[1])


def test_what_was_rolled_back_does_not_count_when_others_follow(repository, tmp_path):
    first, bad, second = (f"{n:014d}-aaaaaaaa" for n in range(1, 4))
    for name in (first, bad):
        published(repository, tmp_path, name)
        repository.move(repository.current(), name, "test")
    assert repository.rollback(None).name == first
    assert repository.line() == [first]
    published(repository, tmp_path, second)
    published(repository, tmp_path, "00000000000004-killed00")  # never became current
    repository.move(repository.current(), second, "test")
    assert repository.line() == [first, second]
    assert repository.before() == first
    assert repository.gc(5).snapshots == [bad, "00000000000004-killed00"]
    assert repository.rollback(None).name == first
    with pytest.raises(NoSuchSnapshot):
        repository.rollback(None)


class Meanwhile(Storage):
    """Does something right after the first listing of the snapshots."""

    def list(self, path):
        found = super().list(path)
        if path.endswith("/snapshots"):
            then, self.then = self.then, lambda: None
            then()
        return found


def test_a_job_that_publishes_while_others_collect_keeps_what_is_its_own(tmp_path):
    repository = Repository(Storage(f"file://{tmp_path}/storage"), "t", EPOCH)
    old, new = "00000000000001-aaaaaaaa", f"{int(time.time() * 1000):014d}-bbbbbbbb"
    published(repository, tmp_path, old)
    repository.move(None, old, "test")

    def publish():
        published(repository, tmp_path, new)
        repository.move(repository.current(), new, "test")

    storage = Meanwhile(repository.storage.url)
    storage.then = publish
    assert Repository(storage, "t", EPOCH).gc(1).snapshots == []
    assert repository.verify(new) == []
    assert repository.current().name == new


def test_a_damaged_snapshot_can_be_dropped_unless_it_is_current_or_pinned(repository, tmp_path):
    names = [f"{n:014d}-aaaaaaaa" for n in range(1, 4)]
    for name in names:
        published(repository, tmp_path, name)
        repository.move(repository.current(), name, "test")
    path = repository.storage.local(repository.file_path(f"{names[0]}/_MANIFEST.json"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Corrupted, match=names[0]):
        repository.gc(3)
    repository.pin(names[1], "test")
    for name in names[1:]:
        with pytest.raises(UsageError):
            repository.drop(name)
    with pytest.raises(NoSuchSnapshot):
        repository.drop("00000000000009-aaaaaaaa")
    repository.drop(names[0])
    assert repository.gc(3).files == 1
    assert repository.names() == names[1:]
    assert not path.parent.exists()


def test_collection_takes_what_a_killed_writer_left_an_hour_ago(repository, tmp_path):
    published(repository, tmp_path, "00000000000001-aaaaaaaa")
    repository.move(None, "00000000000001-aaaaaaaa", "test")
    folder = repository.storage.local(repository.file_path("00000000000000-cccccccc"))
    folder.mkdir(parents=True)
    part = folder / ".p00000-00000.sst.0123456789abcdef.part"
    part.write_bytes(b"half")
    repository.gc(1)
    assert part.exists()  # perhaps somebody still writes it
    os.utime(part, (1, 1))
    repository.gc(1)
    assert not folder.exists()


def test_a_flipped_bit_is_found_and_a_key_named(repository, tmp_path):
    made = published(repository, tmp_path, "00000000000001-aaaaaaaa")
    path = repository.storage.local(repository.file_path(made.files[0].path))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4] ^= 1
    path.write_bytes(raw)
    found = " ".join(repository.verify(made.name))
    assert "checksum" in found
    assert "key b'k" in found
    path.unlink()
    assert "missing" in " ".join(repository.verify(made.name))


def test_one_job_at_a_time(repository):
    with repository.lease("a", "compact"), pytest.raises(JobRunning), repository.lease("b", "compact"):
        pass
    with repository.lease("b", "compact"):
        pass


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"\xff", b'{"job":1,"what":2,"until_ms":"x"}'])
def test_a_lease_that_cannot_be_read_is_waited_for_and_then_taken_over(repository, damage):
    with repository.lease("a", "compact"):
        pass
    path = repository.file_path("_JOB/0000000001.json")
    repository.storage.replace(path, damage)
    begun_s = time.monotonic()
    with repository.lease("b", "compact", ttl_s=0.5):
        assert time.monotonic() - begun_s > 0.2
        assert (repository.holds("b"), repository.holds("a")) == (True, False)


def test_a_job_that_lives_writes_its_damaged_lease_again(repository):
    with repository.lease("a", "compact", ttl_s=6):
        repository.storage.replace(repository.file_path("_JOB/0000000001.json"), b"?")
        with pytest.raises(JobRunning), repository.lease("b", "compact", ttl_s=30):
            pass


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"\xff", b'{"until_ms":"x"}'])
def test_a_mark_of_use_that_cannot_be_read_is_removed(repository, tmp_path, damage):
    name = "00000000000001-aaaaaaaa"
    published(repository, tmp_path, name)
    repository.move(None, name, "test")
    repository.storage.create(repository.file_path("_USES/n-0-0.json"), damage)
    assert repository.gc(1).snapshots == []
    assert repository.storage.list(repository.file_path("_USES")) == []


def test_the_order_of_snapshots_is_the_pointers_and_not_that_of_clocks(repository, tmp_path):
    names = [f"{n:014d}-aaaaaaaa" for n in (700, 500, 600)]  # of a machine whose clock stepped back
    for name in names:
        published(repository, tmp_path, name)
        repository.move(repository.current(), name, "test")
    assert repository.line() == names
    assert repository.before() == names[1]
    assert repository.candidates() == names[::-1]
    assert repository.gc(2).snapshots == [names[0]]
    assert repository.rollback(None).name == names[1]
    assert repository.line() == [names[1]]


def test_a_new_line_leaves_the_old_one_out_and_its_proved_snapshots_are_kept_while_nothing_newer_is(
    repository, tmp_path
):
    good, bad, rebuilt, later = (f"{n:014d}-aaaaaaaa" for n in range(1, 5))
    for name, word in ((good, "agree"), (bad, "refuse")):
        judge(repository, published(repository, tmp_path, name), word)
        repository.move(repository.current(), name, "test")
    made = published(repository, tmp_path, rebuilt)
    moved = repository.move(repository.current(), rebuilt, "rebuild", anew=True)
    assert (moved.line, moved.former) == ((rebuilt,), (good, bad))
    assert repository.candidates() == [rebuilt, bad, good]
    assert repository.gc(1).snapshots == [bad]
    judge(repository, made, "agree")
    assert repository.gc(1).snapshots == [good]
    published(repository, tmp_path, later)
    assert repository.move(repository.current(), later, "compact", upon=rebuilt).line == (rebuilt, later)


def test_a_snapshot_made_upon_an_older_one_leaves_out_what_came_between(repository, tmp_path):
    first, refused, second = (f"{n:014d}-aaaaaaaa" for n in range(1, 4))
    for name in (first, refused, second):
        published(repository, tmp_path, name)
    repository.move(None, first, "test")
    repository.move(repository.current(), refused, "test")
    repository.move(repository.current(), second, "test", upon=first)
    assert repository.line() == [first, second]


@pytest.mark.slow
def test_a_fetch_that_takes_longer_than_a_mark_counts_keeps_its_snapshot(repository, tmp_path, monkeypatch):
    names = [f"{n:014d}-aaaaaaaa" for n in (1, 2)]
    for name in names:
        made = published(repository, tmp_path, name)
        repository.move(repository.current(), name, "test")
    slow = repository.manifest(names[0])
    size = sum(file.size_bytes for file in slow.files)
    monkeypatch.setattr("os.link", no_links)
    feed = FeedServer(tmp_path / "feed.sock")
    library = SnapshotFetcher(tmp_path / "node", "n", AdoptionProgress(feed), fetch_mb_s=size / 12e6, use_s=5)
    library.at(repository.storage.url)
    target = Target(Table("t", "t", EPOCH, 1), 0, 0)
    with ThreadPoolExecutor(1) as fetching, closing(feed):
        begun_s, done = time.monotonic(), fetching.submit(library.bring, target, slow)
        until("it is marked", lambda: repository.storage.list(repository.file_path("_USES")))
        while not done.done():  # a whole file, the only one, comes in one piece: nothing is told of it meanwhile
            if repository.gc(1).snapshots:
                assert local_snapshots.find(library.snapshots(target), names[0]), "collected before it was here"
            wait([done], 0.05)
        assert time.monotonic() - begun_s > 2 * 5
        assert done.result().base.snapshot == names[0]
    assert repository.storage.list(repository.file_path("_USES")) == []
    repository.gc(1)
    assert (repository.names(), repository.verify(made.name)) == ([made.name], [])


def test_a_snapshot_upon_another_reads_back_and_a_node_fetches_only_what_is_new(repository, tmp_path, monkeypatch):
    base = published(repository, tmp_path, "00000000000001-aaaaaaaa")
    changed = [(b"k00001", Entry(TOMBSTONE, 3_000, 1).encode()), (b"k00002", Entry(VALUE, 3_001, 1, b"w").encode())]
    writer = SstWriter(tmp_path / "delta.sst")
    writer.put_many(changed)
    facts = writer.close()
    name = "00000000000002-bbbbbbbb"
    repository.storage.upload(tmp_path / "delta.sst", repository.file_path(f"{name}/d.sst"))
    delta = FileFacts(0, f"{name}/d.sst", 2, facts.size_bytes, b"k00001", b"k00002", facts.checksum, 1)
    held = sorted((dict(PAIRS) | dict(changed[1:])).items())
    held.pop(1)
    part = PartFacts(3_002, 1, 2_999, digest(held).hex, {}, [])
    made = replace(base, name=name, parent=base.name, parts={0: part}, files=[*base.files, delta])
    repository.publish(made)
    assert repository.verify(name) == []
    misplaced = replace(made, name=f"{name[:-1]}c", files=[*base.files, delta._replace(level=0)])
    repository.publish(misplaced)
    assert any("no place in the base" in problem for problem in repository.verify(misplaced.name))

    fetched, right = [], repository.storage.fetch
    monkeypatch.setattr(repository.storage, "fetch", lambda path, *a, **b: (fetched.append(path), right(path, *a, **b)))
    for manifest, new in ((base, base.files), (made, [delta])):
        fetched.clear()
        local = local_snapshots.fetch(
            repository, manifest, 0, tmp_path / "node", bytes_per_s=None, on_bytes=lambda _: None
        )
        assert fetched == [repository.file_path(file.path) for file in new]
        assert local_snapshots.damaged(local) is None
    with closing(SstReader.open(local.path)) as reader:
        assert list(reader.scan()) == held


def no_links(*_, **__):
    """As between two filesystems."""
    raise OSError(errno.EXDEV, "Invalid cross-device link")
