"""Offsets that repairs gave up: what is kept, and what is missing, against the plain definition."""

import random

import pyarrow as pa
import pytest

from batch.tasks.fold import without_skipped
from logstore.model.skips import first_missing, remaining

SEED = 20260729


def inside(offset, skips):
    return any(first <= offset <= last for first, last in skips)


@pytest.mark.parametrize("seed", range(SEED, SEED + 200))
def test_what_is_kept_and_what_is_missing_are_those_that_no_repair_covers(seed):
    source = random.Random(seed)
    skips = [(first, first + source.randrange(4)) for first in source.choices(range(30), k=source.randrange(4))]
    offsets = sorted(source.sample(range(30), source.randrange(20)))
    expected = [at for at, offset in enumerate(offsets) if not inside(offset, skips)]
    found = remaining(offsets, skips)
    assert (list(range(len(offsets))) if found is None else found) == expected, seed
    assert (found is None) == (len(expected) == len(offsets))
    batch = pa.RecordBatch.from_pydict({"offset": pa.array(offsets, pa.int64()), "n": list(range(len(offsets)))})
    assert without_skipped(batch, skips).column("n").to_pylist() == expected
    wanted = range(source.randrange(30), 30)
    assert first_missing(wanted, skips) == next((one for one in wanted if not inside(one, skips)), None), seed
