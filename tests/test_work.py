"""What a driver gives to executors, and what comes back, keeps its class on both ways."""

import pickle
from typing import NamedTuple

import pytest
from pyspark import cloudpickle
from support_spark import context

from batch import session
from logstore.snapshot import work
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.manifest import FileFacts, PartFacts

SEGMENT = Segment(1, 0, 9, "t/e/archive/p00001/0-9-a.parquet", 9, 100, "ab", "8-cd")
FILE = FileFacts(1, "s/p00001-00000-a.sst", 5, 100, b"a", b"z", "ab")
FACTS = PartFacts(9, 1_000, 5, "ab", {"empty-key": 1}, [(3, "empty-key")])
STRETCH = work.LogStretch(1, 0, 9, [SEGMENT], 5)
FOLD = work.FoldOrder(1, 0, 9, [SEGMENT], [FILE], FACTS)
SEEN = work.SeenValue(3, 5)
PASSED: list[NamedTuple] = [
    work.OffsetRange(1, 0, 9, "8-cd"), STRETCH, FOLD, work.RestoreOrder(STRETCH, [FILE], 1_000),
    work.FoldResult(FACTS, [FILE], False, 9), work.PartDigest("ab", 5),
    work.MergeOrder(FOLD, [FILE], True, work.PartDigest("ab", -5)), work.SampleOrder(FOLD, 3), work.KeySample(b"k", 9),
    work.SnapshotOrder(FOLD, [FILE]), work.DigestOrder(FOLD, [4, 9]), work.ServedOrder(FOLD, "http://n:1", 3.0), SEEN,
    work.GuiltyKey(b"k", SEEN, None), work.Comparison({"missing": 1}, [work.GuiltyKey(b"k", SEEN, None)], ""),
    work.FileOrder(1, [FILE]), work.StateOrder(STRETCH, [FILE], work.BaseState(FACTS, FILE)), work.NO_BASE,
    work.DiffOrder([work.StateOrder(STRETCH, [FILE])], [], 5), work.DiffKey("different", b"k", ("a:q",)),
    work.RowDiff({"same": 1}, [work.DiffKey("only_left", b"k")]), work.GuiltyCell("a:q", SEEN, None),
]  # fmt: skip


def classes(value: object) -> object:
    """The classes of a value and of everything in it."""
    if isinstance(value, dict):
        return {name: classes(item) for name, item in value.items()}
    return (type(value), [classes(item) for item in value]) if isinstance(value, list | tuple) else type(value)


def test_every_class_of_work_is_looked_at():
    there = {one for one in vars(work).values() if isinstance(one, type) and one.__module__ == work.__name__}
    assert {type(passed) for passed in PASSED} == there


@pytest.mark.parametrize("passed", PASSED, ids=lambda one: type(one).__name__)
def test_an_order_and_a_result_are_pickled_by_reference_and_keep_their_classes(passed):
    session.pickle_by_value()  # of `batch`; of the library nothing goes by value
    raw = cloudpickle.dumps(passed)
    back = pickle.loads(raw)
    assert (back, classes(back)) == (passed, classes(passed))
    assert b"batch" not in raw


def test_orders_reach_executors_and_come_back(kafka, tmp_path):
    ctx = context(kafka.bootstrap, tmp_path)
    assert [(back, classes(back)) for back in ctx.run("echo", lambda passed: passed, PASSED)] == [
        (passed, classes(passed)) for passed in PASSED
    ]
    names = ctx.run("name", lambda passed: f"{type(passed).__module__}.{type(passed).__name__}", PASSED)
    assert names == [f"{work.__name__}.{type(passed).__name__}" for passed in PASSED]
