"""Levels of a snapshot: deltas upon a base are, after every compaction, the fold of the whole log."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from support_tiers import few_and_many

from batch.tasks import levels
from batch.tasks.read_back import prove
from batch.tasks.sst_files import SstTarget
from batch.tasks.sstables import fold_partition
from logstore.log.read.ranges import HEADERS, SCHEMA
from logstore.model.errors import Corrupted
from logstore.model.folding.digest import TOMBSTONES, Digest, digest
from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.partitioner import partition_of
from logstore.model.table import Table
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.manifest import levels_of
from logstore.snapshot.sst import checksum, opened
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import FoldOrder

EPOCH = "ab" * 16
KEYS = [key for n in range(3_000) if partition_of(key := b"k%04d" % n, 2) == 0][:1_200]


class OnePartition:
    """One partition's log as far as it is written, and the snapshot of it."""

    def __init__(self, directory: Path, **settings: float) -> None:
        self.storage = Storage(f"file://{directory}")
        self.table = Table("t", "t", EPOCH, 2, **settings)
        self.log: list[tuple[bytes, bytes | None]] = []
        self.before, self.files, self.runs = None, [], 0

    def append(self, records):
        """Append a stretch to the log, and archive it."""
        start = len(self.log)
        self.log += records
        offsets = range(start, len(self.log))
        columns = [
            pa.array([0] * len(records), pa.int32()), pa.array(offsets, pa.int64()),
            pa.array([1_000 + n for n in offsets], pa.int64()), pa.array([key for key, _ in records], pa.binary()),
            pa.array([value for _, value in records], pa.binary()), pa.array([None] * len(records), HEADERS),
        ]  # fmt: skip
        path = Path(str(Storage(self.storage.url).local(f"{start}.parquet")))
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=SCHEMA)]), path)
        return Segment(0, start, len(self.log), path.name, len(records), path.stat().st_size, checksum(path), "")

    def compact(self, records, *, full=False):
        """Append and compact, and read back what was written."""
        since = len(self.log)
        return self._compact(since, [self.append(records)] if records else [], full)

    def compact_segment(self, segment):
        """Compact what is appended already."""
        return self._compact(segment.start, [segment], False)

    def _compact(self, since, segments, full):
        self.runs += 1
        target = SstTarget(self.storage, "snapshots", f"s{self.runs}")
        order = FoldOrder(0, since, len(self.log), segments, self.files, self.before, full)
        self.done = fold_partition(order, self.table, target)
        self.before, self.files = self.done.facts, self.done.files
        return self.done

    def path(self, file):
        return Path(str(self.storage.local(f"snapshots/{file.path}")))

    def content(self):
        with opened([[self.path(file) for file in level] for level in levels_of(self.files)]) as reader:
            return list(reader.scan())

    def expected(self):
        count = len(self.log)
        keys, values = zip(*self.log, strict=True)
        records = Records(
            list(range(count)), list(keys), list(values), [1_000 + n for n in range(count)], [None] * count
        )
        found = fold_batch(records, FoldRules(0, 2, self.table.max_value_bytes), 0, 0).entries
        return sorted((key, entry) for key, entry in found.items() if entry[0] not in TOMBSTONES)

    def written_bytes(self):
        return sum(file.size_bytes for file in self.files if file.path.startswith(f"s{self.runs}/"))


def digest_of(facts):
    return Digest.from_hex(facts.digest, facts.entries)


def some(rng, keys, count, deletes=0.3):
    return [
        (rng.choice(keys), None if rng.random() < deletes else rng.randbytes(rng.randrange(80))) for _ in range(count)
    ]


@pytest.mark.parametrize("seed", few_and_many(4, 12))
def test_deltas_upon_a_base_are_the_fold_of_the_log_after_every_compaction(tmp_path, seed):
    rng = random.Random(seed)
    one = OnePartition(tmp_path, merge_share=rng.choice([0.0, 0.2, 0.5, 10.0]))
    seen = set()
    for _ in range(9):
        keys = rng.choice([KEYS, KEYS[:40], KEYS[600:620]])
        done = one.compact(
            some(rng, keys, rng.choice([0, 1, 30, 900]), rng.choice([0, 0.3, 1])), full=rng.random() < 0.1
        )
        if not one.log:
            continue
        expected = one.expected()
        assert one.content() == expected
        assert Digest.from_hex(done.facts.digest, done.facts.entries) == digest(expected)
        assert len(levels_of(one.files)) <= levels.AT_MOST
        for level in levels_of(one.files):
            assert all(after.first_key > before.last_key for before, after in pairwise(level))
        seen.add(len(levels_of(one.files)))
    print("levels seen", seen)


def test_a_compaction_writes_about_what_has_changed_and_merges_what_has_grown(tmp_path):
    rng = random.Random(5)
    one = OnePartition(tmp_path)
    one.compact([(key, rng.randbytes(400)) for key in KEYS])
    base = one.written_bytes()
    counts = []
    for _ in range(12):
        one.compact([(key, rng.randbytes(400)) for key in rng.sample(KEYS, 12)])
        counts.append(len(levels_of(one.files)))
        assert one.written_bytes() < base * 0.2, "1 % of the rows changed, and deltas are merged among themselves"
    assert counts == [2, 3, 4, 2, 3, 4, 2, 3, 4, 2, 3, 4], "a fifth level is merged with the deltas above the base"
    one.compact([(key, rng.randbytes(400)) for key in rng.sample(KEYS, 700)])
    assert len(levels_of(one.files)) == 1, "deltas of more than half of the base go into it"
    assert one.written_bytes() > base * 0.9


def test_a_full_compaction_leaves_a_base_without_tombstones_and_one_without_changes_links(tmp_path):
    rng = random.Random(6)
    one = OnePartition(tmp_path)
    one.compact([(key, b"v" * 50) for key in KEYS])
    one.compact([(key, None) for key in KEYS[:20]])
    assert [file.level for file in one.files] == [0, 1]
    files = one.files
    assert one.compact([]).linked
    assert one.files == files
    assert not one.compact([], full=True).linked
    assert [(file.level, file.entries) for file in one.files] == [(0, len(KEYS) - 20)]
    assert one.compact([], full=True).linked, "one level alone is merged already"
    assert one.content() == one.expected()
    assert not one.compact(some(rng, KEYS, 1)).linked


def test_deleting_what_is_not_there_leaves_no_tombstone_behind(tmp_path):
    one = OnePartition(tmp_path)
    one.compact([(KEYS[0], b"1")])
    one.compact([(key, None) for key in KEYS[1:9]])
    assert [file.level for file in one.files] == [0]
    one.compact([(key, None) for key in KEYS[:9]])
    assert one.content() == []
    assert (one.done.facts.entries, one.done.facts.digest) == (0, Digest().hex)


class Damaging(Storage):
    """A storage that does not keep what it was given, once it is told to."""

    wrong = ""

    def upload(self, local, path):
        super().upload(local, path)
        there = Path(str(self.local(path)))
        if self.wrong == "bytes":
            data = bytearray(there.read_bytes())
            data[len(data) // 3] ^= 1
            there.write_bytes(data)
        if self.wrong == "lost":
            there.unlink()


@pytest.mark.parametrize("changes", [KEYS[:50], KEYS])  # a delta, and a base that is merged
@pytest.mark.parametrize("wrong", ["bytes", "lost"])
def test_what_is_not_kept_as_it_was_written_is_refused(tmp_path, wrong, changes):
    one = OnePartition(tmp_path)
    one.storage = Damaging(one.storage.url)
    one.compact([(key, b"v" * 50) for key in KEYS])
    one.storage.wrong = wrong
    with pytest.raises(Corrupted, match=r"s2/p00000-00000-\w+\.sst .*(is gone|is damaged)"):
        one.compact([(key, b"w" * 50) for key in changes])


def test_files_of_another_digest_than_the_folds_are_refused(tmp_path):
    one = OnePartition(tmp_path, merge_share=10)
    one.compact([(key, b"v" * 50) for key in KEYS])
    base, facts = one.files, one.before
    one.compact([(key, b"w" * 50) for key in KEYS[:50]])
    delta, after = [file for file in one.files if file.level], digest_of(one.before)
    target, cut = SstTarget(one.storage, "snapshots", "s2"), len(one.log)
    with opened([[one.path(file) for file in base]]) as reader:
        untouched = digest((key, entry) for key, entry in reader.scan() if key not in KEYS[:50])
    prove(target, delta, cut, after, tmp_path, untouched)
    for claimed in (after._replace(value=after.value ^ 1), after._replace(entries=after.entries + 1)):
        with pytest.raises(Corrupted, match="does not read back"):
            prove(target, delta, cut, claimed, tmp_path, untouched)
    with pytest.raises(Corrupted, match="newer than the cut"):
        prove(target, delta, cut - 1, after, tmp_path, untouched)
    lacks = delta[0]._replace(entries=delta[0].entries + 1)
    with pytest.raises(Corrupted, match="were written"):
        prove(target, [lacks], cut, after, tmp_path, untouched)
    prove(target, base, facts.cut, digest_of(facts), tmp_path)


class Remote(Storage):
    """A storage that is no disk, to who asks, and counts what is fetched."""

    def __init__(self, url):
        super().__init__(url)
        self.fetched = Counter()

    def local(self, path):
        return None

    def download(self, path, local, **more):
        self.fetched[path] += 1
        super().download(path, local, **more)


@pytest.mark.parametrize("merge_share", [10, 0])  # a delta stays one, is merged
def test_levels_of_a_remote_storage_are_fetched_once_by_a_compaction(tmp_path, merge_share):
    one = OnePartition(tmp_path, merge_share=merge_share)
    one.compact([(key, b"v" * 50) for key in KEYS])
    one.compact([(key, b"w" * 50) for key in KEYS[:50]])
    one.storage = Remote(one.storage.url)
    below = [f"snapshots/{file.path}" for file in one.files]
    segment = one.append([(key, b"x" * 50) for key in KEYS[30:80]])
    one.compact_segment(segment)
    assert {path: one.storage.fetched[path] for path in below} == dict.fromkeys(below, 1)
    assert set(one.storage.fetched.values()) == {1}, "what is new is fetched once, too, to be read back"
    one.storage = Storage(one.storage.url)
    assert one.content() == one.expected()


def test_a_base_whose_levels_do_not_merge_to_their_digest_is_not_written(tmp_path):
    one = OnePartition(tmp_path, merge_share=0)
    one.compact([(key, b"v" * 50) for key in KEYS])
    one.before = replace_digest(one.before)
    with pytest.raises(Corrupted, match=r"levels merge to .* rebuild"):
        one.compact([(KEYS[0], b"w")])


def replace_digest(facts):
    return facts._replace(digest=f"{int(facts.digest, 16) ^ 1:032x}")


def test_the_share_is_a_number_of_the_definition():
    table = Table("t", "t", EPOCH, 2)
    assert Table.from_json(replace(table, merge_share=0.25).to_json()).merge_share == 0.25
    assert b"merge_share" not in table.to_json(), "a definition that does without it keeps its bytes"
    for wrong in (b'"x"', b"-1", b"11", b"true"):
        raw = replace(table, merge_share=0.25).to_json().replace(b'"merge_share":0.25', b'"merge_share":' + wrong)
        with pytest.raises(Corrupted, match="not a table definition"):
            Table.from_json(raw)
