"""Checkpoints and pages of the archive: what they say, what they cost, and what damage or a kill leaves."""

import base64
import os
import random
import shutil
from contextlib import suppress

import orjson
import pytest

from benchmarks.far_storage import CountingStorage
from logstore.model.errors import Conflict, Corrupted
from logstore.snapshot.archive import index as archive_index
from logstore.snapshot.archive import leftovers, manifest, page
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.manifest import ArchivedPart, Checkpoint
from logstore.snapshot.archive.page import PageFacts
from logstore.snapshot.archive.segment import Segment, path_of
from logstore.snapshot.storage import Storage

EPOCH = "e" * 32
ROOT = f"t/{EPOCH}/archive"
GOLDEN_PAGE = (  # two segments, as an earlier version of Arrow wrote them
    "UEFSMRUAFSAVMiwVBBUKFQYVBhwAAAAotS/9IBCBAAACAAAABAGAAQQCAAIAAAAAFQAVIBUyLBUEFQoVBhUGHAAAACi1L/0gEIEA"
    "AAIAAAAEAYACBAIAFAAAAAAVABUgFTIsFQQVChUGFQYcAAAAKLUv/SAQgQAAAgAAAAQBgAIEAhQoAAAAABUAFSQVNiwVBBUAFQYV"
    "BhwAAAAotS/9IBKRAAACAAAABAECAAAAYTACAAAAYWEVABUgFTIsFQQVChUGFQYcAAAAKLUv/SAQgQAAAgAAAAQBgAIEAhQUAAAA"
    "ABUAFSAVMiwVBBUKFQYVBhwAAAAotS/9IBCBAAACAAAABAGAAgQCEgAAAAAAFQAVnAEVOiwVBBUAFQYVBhwAAAAotS/9IE6lAABg"
    "AgAAAAQBIAAAADBhAgCOIkEDvBUAFaYBFUwsFQQVABUGFQYcAAAAKLUv/SBT7QAAqAIAAAAEASIAAAA5LTBhIwAAADIxZQIASuGF"
    "CL4VABUgFTIsFQQVChUGFQYcAAAAKLUv/SAQgQAAAgAAAAQBgAIEAgoUAAAAABUEGaw1ABgGc2NoZW1hFRIAFQIlAhgJcGFydGl0"
    "aW9uABUEJQIYBXN0YXJ0ABUEJQIYA2VuZAAVDCUCGAdhdHRlbXB0JQBMHAAAABUEJQIYB3JlY29yZHMAFQQlAhgKc2l6ZV9ieXRl"
    "cwAVDCUCGAhjaGVja3N1bSUATBwAAAAVDCUCGARsYXN0JQBMHAAAABUEJQIYCWxhdGVzdF9tcwAWBBkcGZwmABwVAhklBgoZGAlw"
    "YXJ0aXRpb24VDBYEFkYWWCYISRwVABUKFQIAPCkGGSYABAAAACYAHBUEGSUGChkYBXN0YXJ0FQwWBBZGFlgmYEkcFQAVChUCADwp"
    "BhkmAAQAAAAmABwVBBklBgoZGANlbmQVDBYEFkYWWCa4AUkcFQAVChUCADwpBhkmAAQAAAAmABwVDBklBgAZGAdhdHRlbXB0FQwW"
    "BBZKFlwmkAJJHBUAFQAVAgA8FggZBhkmAAQAAAAmABwVBBklBgoZGAdyZWNvcmRzFQwWBBZGFlgm7AJJHBUAFQoVAgA8KQYZJgAE"
    "AAAAJgAcFQQZJQYKGRgKc2l6ZV9ieXRlcxUMFgQWRhZYJsQDSRwVABUKFQIAPCkGGSYABAAAACYAHBUMGSUGABkYCGNoZWNrc3Vt"
    "FQwWBBbEARZiJpwESRwVABUAFQIAPBaAARkGGSYABAAAACYAHBUMGSUGABkYBGxhc3QVDBYEFs4BFnQm/gRJHBUAFQAVAgA8FooB"
    "GQYZJgAEAAAAJgAcFQQZJQYKGRgJbGF0ZXN0X21zFQwWBBZGFlgm8gVJHBUAFQoVAgA8KQYZJgAEAAAAFoAHFgQmCBbCBgAZHBgM"
    "QVJST1c6c2NoZW1hGNgFLy8vLy94Z0NBQUFRQUFBQUFBQUtBQXdBQmdBRkFBZ0FDZ0FBQUFBQkJBQU1BQUFBQ0FBSUFBQUFCQUFJ"
    "QUFBQUJBQUFBQWtBQUFDb0FRQUFaQUVBQURRQkFBQUVBUUFBMEFBQUFKZ0FBQUJvQUFBQVBBQUFBQVFBQUFDTS92Ly9BQUFCQWhB"
    "QUFBQWNBQUFBQkFBQUFBQUFBQUFKQUFBQWJHRjBaWE4wWDIxekFBQUFmUDcvL3dBQUFBRkFBQUFBd1A3Ly93QUFBUVVRQUFBQUdB"
    "QUFBQVFBQUFBQUFBQUFCQUFBQUd4aGMzUUFBQUFBU1AvLy8raisvLzhBQUFFRkVBQUFBQndBQUFBRUFBQUFBQUFBQUFnQUFBQmph"
    "R1ZqYTNOMWJRQUFBQUIwLy8vL0ZQLy8vd0FBQVFJUUFBQUFIQUFBQUFRQUFBQUFBQUFBQ2dBQUFITnBlbVZmWW5sMFpYTUFBQVQv"
    "Ly84QUFBQUJRQUFBQUVqLy8vOEFBQUVDRUFBQUFCZ0FBQUFFQUFBQUFBQUFBQWNBQUFCeVpXTnZjbVJ6QURULy8vOEFBQUFCUUFB"
    "QUFIai8vLzhBQUFFRkVBQUFBQndBQUFBRUFBQUFBQUFBQUFjQUFBQmhkSFJsYlhCMEFBUUFCQUFFQUFBQXBQLy8vd0FBQVFJUUFB"
    "QUFGQUFBQUFRQUFBQUFBQUFBQXdBQUFHVnVaQUNNLy8vL0FBQUFBVUFBQUFEUS8vLy9BQUFCQWhBQUFBQVlBQUFBQkFBQUFBQUFB"
    "QUFGQUFBQWMzUmhjblFBQUFDOC8vLy9BQUFBQVVBQUFBQVFBQlFBQ0FBR0FBY0FEQUFBQUJBQUVBQUFBQUFBQVFJUUFBQUFKQUFB"
    "QUFRQUFBQUFBQUFBQ1FBQUFIQmhjblJwZEdsdmJnQUFBQWdBREFBSUFBY0FDQUFBQUFBQUFBRWdBQUFBQUFBQUFBPT0AGCBwYXJx"
    "dWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI2LjAuMRmcHAAAHAAAHAAAHAAAHAAAHAAAHAAAHAAAHAAAAJ0FAABQQVIx"
)


def segment(partition, start, end, root=ROOT):
    last = f"{end - 1}-{end:032x}"
    path = path_of(root, partition, start, end, f"a{start:x}")
    return Segment(partition, start, end, path, end - start, 9, f"{start:032x}", last, start + 5)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An archive with a checkpoint every 4 runs, and 10 segments to a page."""
    monkeypatch.setattr(archive_index, "CHECKPOINT_RUNS", 3)
    monkeypatch.setattr(archive_index, "PAGE_SEGMENTS", 10)
    return opened(Storage(f"file://{tmp_path}"))


def opened(storage, topic="t", epoch=EPOCH):
    return ArchiveIndex(storage, topic, epoch)


def run(index, number, partitions=3, job="j"):
    """One run: 10 offsets of each partition."""
    root = index.root
    fresh = [segment(partition, number * 10, number * 10 + 10, root) for partition in range(partitions)]
    index.append(fresh, job)
    return fresh


def runs(index, count, partitions=3):
    written = []
    for number in range(count):
        written += run(index, number, partitions)
        index.tidy("j")
    return sorted(written)


def named(index):
    """The pages that the last checkpoint names, oldest first."""
    index.next_offsets()
    return [facts.name for facts in index._checkpoint.pages]


def pages(index):
    return index.storage.list(f"{index.root}/pages")


def test_the_bytes_of_a_checkpoint():
    head = {"number": 7, "topic": "t", "epoch": "e", "job": "j", "created_ms": 5}
    facts = PageFacts("00000007-a.parquet", 0, 2, 9, 1_234, "ab" * 16)
    checkpoint = Checkpoint({2: ArchivedPart(10, 9, "9-cd"), 0: ArchivedPart(30, 27, "")}, (facts,), ("old.parquet",))
    raw = manifest.of_checkpoint(head, checkpoint)
    assert raw == (
        b'{"format":2,"number":7,"topic":"t","epoch":"e","job":"j","created_ms":5,"whole":true,'
        b'"parts":[[0,30,27,""],[2,10,9,"9-cd"]],'
        b'"pages":[["00000007-a.parquet",0,2,9,1234,"abababababababababababababababab"]],'
        b'"former":["old.parquet"],"checksum":"b015253b8bb5609ec4773f96ac2d2aeb"}'
    )
    assert manifest.read(raw, ("t", "e", 7)) == ([], True, checkpoint)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "/x"])
@pytest.mark.parametrize("field", ["pages", "former"])
def test_a_checkpoint_names_files_of_its_folder_alone(name, field):
    facts = PageFacts(name if field == "pages" else "x", 0, 0, 1, 1, "")
    raw = manifest.of_checkpoint({"topic": "t", "epoch": "e", "number": 0}, Checkpoint({}, (facts,), (name,)))
    with pytest.raises(Corrupted, match="not the name of a file"):
        manifest.read(raw, ("t", "e", 0))


def test_a_page_that_was_written_once_is_read_for_ever():
    raw = base64.b64decode(GOLDEN_PAGE)
    found = page.read(ROOT, PageFacts("x", 0, 1, 2, len(raw), "946d774415234e28b5a035eedd9dcd32"), raw)
    assert found.all() == [segment(0, 0, 10), segment(1, 10, 30)]
    assert (found.of(1), found.of(2)) == ([segment(1, 10, 30)], [])


def test_a_segment_elsewhere_is_in_no_page(index):
    runs(index, 3)
    index.append([segment(0, 30, 40)._replace(path="elsewhere.parquet")], "j")
    with pytest.raises(Corrupted, match=r"elsewhere\.parquet is not where the archive"):
        index.checkpoint("j")


def test_whatever_was_in_which_page_everything_is_found(index):
    """Pages of one run, of several, and of parts of the partitions."""
    rng, written, reach = random.Random(7), [], dict.fromkeys(range(25), 0)
    for _ in range(40):
        fresh = []
        for partition in rng.sample(range(25), rng.choice([1, 3, 25])):
            for _ in range(rng.choice([1, 2])):
                end = reach[partition] + rng.randint(1, 9)
                fresh.append(segment(partition, reach[partition], end))
                reach[partition] = end
        index.append(fresh, "j")
        written += fresh
        index.tidy("j")
    fresh_eyes = opened(index.storage)
    assert fresh_eyes.next_offsets() == {p: end for p, end in reach.items() if end}
    assert len(pages(index)) > 5
    for partition in range(25):
        own = [one for one in sorted(written) if one.partition == partition]
        for start, end in ((0, reach[partition]), (reach[partition] // 2, reach[partition]), (1, 2)):
            wanted = [one for one in own if one.end > start and one.start < end]
            assert fresh_eyes.covering(partition, start, end) == wanted
    assert fresh_eyes.segments() == opened(index.storage).segments() == sorted(written)
    since = {partition: end // 2 for partition, end in reach.items()}
    behind = [one for one in written if one.end > since[one.partition]]
    assert fresh_eyes.size_bytes(since) == sum(one.size_bytes for one in behind)
    assert fresh_eyes.size_bytes({}) == sum(one.size_bytes for one in written)


def test_what_a_job_asks_does_not_grow_with_the_runs_before(tmp_path):
    """16 partitions, all of them written to each time: as many questions after 100 runs as after 30, and no page."""
    storage = CountingStorage(f"file://{tmp_path}")
    asked = []
    for number in range(100):
        storage.asked = 0
        index = opened(storage)
        index.next_offsets()
        assert index.collect_killed() == []
        index.begin("j")
        fresh = run(index, number, 16)
        index.end("j")
        index.tidy("j")
        assert [index.covering(one.partition, one.start, one.end) for one in fresh] == [[one] for one in fresh]
        asked.append(storage.asked)
    assert max(asked) <= 40
    assert max(asked[66:]) <= max(asked[32:66])
    assert len(pages(index)) == 2  # the one that grows, and what it was before
    reading = opened(storage)
    storage.asked = 0
    assert reading.next_offsets() == dict.fromkeys(range(16), 1000)
    assert len(reading.lasts()) == 16
    assert storage.asked <= 2 * (archive_index.CHECKPOINT_RUNS + 2)  # the manifests, twice looked for
    assert reading._pages == {}


def test_a_whole_manifest_of_an_earlier_build_is_read(index):
    first = [segment(partition, 0, 10) for partition in (0, 1)]
    body = orjson.loads(
        manifest.of_run({"number": 0, "topic": "t", "epoch": EPOCH, "job": "j", "created_ms": 1}, first)
    )
    del body["checksum"]
    body["whole"] = True
    index.storage.create(f"{ROOT}/manifests/00000000.json", manifest._sealed(body))
    index.storage.create(f"{ROOT}/manifests/00000000.whole", b"")
    written = sorted(first + [one for number in range(1, 9) for one in run(index, number, 2)])
    assert index.checkpoint("j")
    assert opened(index.storage).segments() == written


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARMS = {
    "flip": lambda path, _: flip(path),
    "cut": lambda path, _: os.truncate(path, path.stat().st_size - 1),
    "gone": lambda path, _: path.unlink(),
    "swap": lambda path, other: shutil.copy(other, path),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("other_topic", [False, True])
def test_a_damaged_page_is_named_and_what_is_known_without_it_is_still_said(index, harm, other_topic):
    written = runs(index, 9)
    another = opened(index.storage, "u") if other_topic else index
    if other_topic:
        runs(another, 9)
    one, other = (index.storage.local(f"{i.root}/pages/{named(i)[n]}") for i, n in ((index, 0), (another, -1)))
    HARMS[harm](one, other)
    fresh = opened(index.storage)
    assert fresh.next_offsets() == {0: 90, 1: 90, 2: 90}
    with pytest.raises(Corrupted, match=rf"{one.name}.*archive --repair"):
        fresh.segments()
    with pytest.raises(Corrupted, match=one.name):
        fresh.covering(0, 0, 90)
    assert [s[:3] for s in fresh.covering(2, 80, 90)] == [(2, 80, 90)]
    assert set(opened(index.storage).readable()) < set(written)


def test_an_archive_with_a_damaged_page_is_cut_back_to_what_is_known(index):
    runs(index, 9)
    flip(index.storage.local(f"{ROOT}/pages/{named(index)[-1]}"))
    broken = opened(index.storage)
    left = broken.readable()
    broken.replace(left, "repair")
    for reader in (index, broken, opened(index.storage)):
        assert reader.segments() == left


def test_a_reader_whose_page_went_into_another_is_told_to_read_again(index, monkeypatch):
    monkeypatch.setattr(archive_index, "PAGE_SEGMENTS", 1_000)
    runs(index, 4)
    behind = opened(index.storage)
    behind.next_offsets()
    for number in range(4, 14):
        run(index, number)
        index.tidy("j")
    with pytest.raises(Conflict, match="went while the archive was read"):
        behind.covering(0, 0, 10)
    assert behind.next_offsets()[0] == 140
    assert behind.covering(0, 0, 10) == [segment(0, 0, 10)]


class Killed(Storage):
    """A storage whose user is killed before the n-th change."""

    def __init__(self, url, left):
        super().__init__(url)
        self.left = left

    def _count(self):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1

    def create(self, path, data):
        self._count()
        super().create(path, data)

    def replace(self, path, data):
        self._count()
        super().replace(path, data)

    def remove_all(self, paths):
        for path in paths:
            self._count()
            super().remove_all([path])


def killed_after(index, steps):
    """What is committed when a job is killed that runs from a checkpoint to the next; False: it was not."""
    written = runs(index, 9)
    behind = opened(index.storage)
    behind.segments()
    index.storage = Killed(index.storage.url, steps)
    killed = True
    with suppress(KeyboardInterrupt):
        for number in range(9, 9 + 5):
            written += run(index, number)
            index.checkpoint("j")
        killed = False
    written = written[: len(opened(behind.storage).segments())]
    for reader in (behind, opened(behind.storage)):
        assert reader.segments() == sorted(written)
    return behind, len(written) // 3, killed


@pytest.mark.slow
def test_killed_at_any_change_a_checkpoint_leaves_all_that_was_there(index):
    url, killed, steps = index.storage.url, True, 0
    while killed:
        going, at, killed = killed_after(opened(Storage(f"{url}/{steps}")), steps)
        for number in range(at, at + 5):
            run(going, number)
            going.tidy("next")
        assert going.segments() == opened(going.storage).segments()
        assert len(going.segments()) == 3 * (at + 5)
        steps += 1
    assert steps > 12  # 5 runs, pages, a checkpoint, its mark, and what it makes superfluous


def test_a_page_that_a_killed_job_left_is_collected_once_it_is_old(index):
    runs(index, 9)
    left = f"{ROOT}/pages/00000012-dead.parquet"
    index.storage.create(left, b"half")
    assert index.collect() == []
    before = pages(index)
    for name in before:
        os.utime(str(index.storage.local(f"{ROOT}/pages/{name}")), (1, 1))
    assert index.collect() == [left]
    assert pages(index) == [name for name in before if name != "00000012-dead.parquet"]
    assert len(opened(index.storage).segments()) == 27


def test_the_folders_are_searched_every_now_and_then(index, monkeypatch):
    monkeypatch.setattr(archive_index, "SEARCH_RUNS", 20)
    left = f"{ROOT}/p00001/{0:020d}-{9:020d}-dead.parquet"
    index.storage.create(left, b"half")
    os.utime(str(index.storage.local(left)), (1, 1))
    gone = []
    for number in range(20):
        run(index, number)
        gone.append(index.tidy("j"))
    assert [paths for paths in gone if paths] == [[left]]


def test_of_two_checkpoints_at_once_one_counts(index):
    written = runs(index, 3)
    written += run(index, 3)
    other = opened(index.storage)

    class Late(Storage):
        def create(self, path, data):
            if path.endswith(".json"):
                assert other.checkpoint("other")
            super().create(path, data)

    index.storage = Late(index.storage.url)
    with pytest.raises(Conflict, match="at the same time"):
        index.checkpoint("j")
    assert opened(other.storage).segments() == sorted(written)
    assert len(pages(index)) == 4  # two to each
    for name in pages(index):
        os.utime(str(other.storage.local(f"{ROOT}/pages/{name}")), (1, 1))
    assert len(other.collect()) == 2
    assert opened(other.storage).segments() == sorted(written)


def test_leftovers_are_looked_for_in_the_folders_of_partitions_alone(tmp_path):
    storage = Storage(f"file://{tmp_path}")
    for path in ("a/p00000/x", "a/manifests/x", "a/attempts/x", "a/other/x", "a/pxx/x"):
        storage.create(path, b"")
        os.utime(tmp_path / path, (1, 1))
    assert leftovers.collect(storage, "a", lambda _: ()) == ["a/p00000/x"]
