"""A partition that is folded by ranges of its keys is the partition that is folded whole."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_jobs import InProcess
from test_levels import KEYS, OnePartition, digest_of

from batch.partition_folds import PartitionFolds
from batch.tasks import key_ranges
from batch.tasks.sst_files import SstTarget, check_order
from logstore.model.errors import Corrupted
from logstore.model.folding.difference import EVERY_KEY, KeyRange
from logstore.model.folding.digest import digest
from logstore.model.partitioner import partition_of
from logstore.snapshot.manifest import levels_of
from logstore.snapshot.work import FoldOrder, KeySample

HUGE = [key for n in range(400) if partition_of(key := b"group" * 40 + b"%04d" % n, 2) == 0]
LONG = [key for n in range(40) if partition_of(key := b"%02d" % n + b"x" * 65_000, 2) == 0][:6]


@pytest.fixture(autouse=True)
def few_ranges(monkeypatch):
    monkeypatch.setattr(key_ranges, "MOST", 5)


class Tasks:
    """What a job has its tasks run by, and what it was asked for."""

    def __init__(self, task_bytes):
        self.task_bytes, self.steps = task_bytes, []

    def run(self, step, function, items):
        self.steps += [step] * len(items)
        return InProcess().run(step, function, items, lambda _: None)

    def at_once(self):
        return 2


class InRanges(OnePartition):
    """One partition that is folded by ranges wherever it has more than `task_bytes`."""

    def __init__(self, directory, task_bytes, **settings):
        super().__init__(directory, **settings)
        self.tasks = Tasks(task_bytes)

    def _compact(self, since, segments, full):
        self.runs += 1
        target = SstTarget(self.storage, "snapshots", f"s{self.runs}")
        order = FoldOrder(0, since, len(self.log), segments, self.files, self.before, full)
        self.tasks.steps = []
        (self.done,) = PartitionFolds(self.tasks, self.table, target).run([order])
        check_order(self.done.files)
        self.before, self.files = self.done.facts, self.done.files
        return self.done


def assert_equal(ranged, whole):
    """Everything that a snapshot says of the partition but how its files are cut."""
    assert ranged.before == whole.before
    assert ranged.content() == whole.content()
    assert [level[0].level for level in levels_of(ranged.files)] == [level[0].level for level in levels_of(whole.files)]
    assert ranged.done.linked == whole.done.linked
    assert ranged.done.records == whole.done.records


@pytest.mark.parametrize("seed", range(3))
def test_ranges_add_up_to_the_partition_after_every_compaction(tmp_path, seed):
    rng = random.Random(seed)
    share = rng.choice([0.0, 0.3, 10.0])
    whole = OnePartition(tmp_path / "whole", merge_share=share)
    ranged = InRanges(tmp_path / "ranged", rng.choice([1, 20_000]), merge_share=share)
    used, steps = list(KEYS) + HUGE + LONG, set()
    for _ in range(5):
        keys = rng.choice([used, used[:40], HUGE, LONG, KEYS[600:620]])
        records = [
            (rng.choice(keys), None if rng.random() < 0.3 else rng.randbytes(rng.randrange(80)))
            for _ in range(rng.choice([0, 1, 30, 500]))
        ]
        records += [(None, b"nobody's"), (b"", b"empty"), (b"k0", None)] if rng.random() < 0.4 else []
        records += [(key, b"elsewhere") for key in (b"k%04d" % n for n in range(9)) if partition_of(key, 2)]
        full = rng.random() < 0.15
        whole.compact(records, full=full)
        ranged.compact(records, full=full)
        assert_equal(ranged, whole)
        assert digest_of(ranged.before) == digest(ranged.content())
        steps |= set(ranged.tasks.steps)
    assert {"sample", "fold"} <= steps


@pytest.mark.parametrize(("share", "step"), [(10.0, "deltas"), (0.0, "all")])
def test_levels_of_ranges_are_merged_where_those_of_the_whole_are(tmp_path, share, step):
    rng = random.Random(3)
    whole, ranged = OnePartition(tmp_path / "w", merge_share=share), InRanges(tmp_path / "r", 9_000, merge_share=share)
    merged = []
    for run in range(5 if step == "deltas" else 3):
        records = [(key, b"%d" % run * 20) for key in (KEYS if run == 0 else rng.sample(KEYS, 90))]
        whole.compact(records)
        ranged.compact(records)
        assert_equal(ranged, whole)
        merged.append("merge" in ranged.tasks.steps)
    expected = [False, False, False, False, True] if step == "deltas" else [False, True, True]
    assert merged == expected
    assert len(ranged.files) > len(whole.files), "each range has files of its own"


def test_no_task_holds_more_than_its_share(tmp_path):
    ranged = InRanges(tmp_path, 4_000)
    ranged.compact([(key, random.Random(1).randbytes(60)) for key in KEYS])
    sizes = [file.size_bytes for file in ranged.files]
    assert len(sizes) >= 4
    assert max(sizes) < 3 * sum(sizes) / len(sizes), "the samples make them about even"


def test_an_archive_that_changes_between_two_tasks_is_refused(tmp_path):
    ranged = InRanges(tmp_path, 9_000)
    ranged.compact([(key, b"v" * 50) for key in KEYS])
    run = ranged.tasks.run

    def other(step, function, items):
        found = run(step, function, items)
        if step == "fold":
            (last,) = found[-1]  # a range has a task alone
            found[-1] = [last._replace(facts=last.facts._replace(last="7-00"))]
        return found

    ranged.tasks.run = other
    with pytest.raises(Corrupted, match="another archive"):
        ranged.compact([(key, b"w" * 50) for key in KEYS[:200]])


def test_levels_of_ranges_that_do_not_merge_to_their_digest_are_refused(tmp_path):
    ranged = InRanges(tmp_path, 9_000, merge_share=0)
    ranged.compact([(key, b"v" * 50) for key in KEYS])
    ranged.before = ranged.before._replace(digest=f"{int(ranged.before.digest, 16) ^ 1:032x}")
    with pytest.raises(Corrupted, match=r"levels merge to .* rebuild"):
        ranged.compact([(KEYS[0], b"w")])


SAMPLES = st.lists(st.builds(KeySample, st.binary(max_size=6), st.integers(1, 1_000)), max_size=60)


@given(SAMPLES, st.integers(1, 12), st.lists(st.binary(max_size=7), max_size=40))
def test_every_key_is_in_one_range(samples, count, keys):
    found = key_ranges.ranges(samples, count)
    assert 1 <= len(found) <= count
    assert (found[0].start, found[-1].end) == (b"", None)
    assert all(one.end == after.start for one, after in pairwise(found))
    for key in [*keys, *(sample.key for sample in samples), b"", b"\xff" * 9]:
        assert sum(one.holds(key) for one in found) == 1
        assert [one for one in found if one.meets(key, key)] == [one for one in found if one.holds(key)]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(KEYS[:30] + HUGE[:5] + LONG[:2] + [b"", b"zz"]), unique=True, max_size=6), st.data())
def test_any_ranges_fold_to_the_whole(tmp_path_factory, bounds, data):
    edges = sorted({b"", *bounds})
    made = [KeyRange(start, end) for start, end in zip(edges, [*edges[1:], None], strict=True)]
    folder = tmp_path_factory.mktemp("ranges")
    share = data.draw(st.sampled_from([0.0, 0.5, 10.0]))
    whole, ranged = OnePartition(folder / "w", merge_share=share), InRanges(folder / "r", 1, merge_share=share)
    changes = st.tuples(st.sampled_from(KEYS[:30] + HUGE[:5] + LONG[:2]), st.none() | st.binary(max_size=9))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(key_ranges, "ranges", lambda _samples, _count: made)
        for _ in range(2):
            records = data.draw(st.lists(changes, max_size=25))
            whole.compact(records)
            ranged.compact(records)
            if whole.log:
                assert_equal(ranged, whole)


def test_what_fits_is_one_task(tmp_path):
    one = InRanges(tmp_path, 1 << 40)
    one.compact([(key, b"v") for key in KEYS])
    assert one.tasks.steps == ["fold"]
    assert key_ranges.ranges([], 5) == [EVERY_KEY]
