"""The fold of conditional tables in batch, out of Arrow batches: the same as the definition's, from any start."""

import pyarrow as pa
import pytest
from support_stretch import StretchState, columns
from test_stretch import KvHistories

from batch.tasks.conditional_fold import ConditionalFold, FoldStart
from batch.tasks.sst_files import NoFiles
from logstore.log.read.ranges import SCHEMA
from logstore.model.errors import Corrupted, Unsupported
from logstore.model.folding.decided import Decided
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.fold import Folded
from logstore.model.hard_rows.decisions import decisions_digest
from logstore.model.table import Table
from logstore.snapshot import decisions
from logstore.snapshot.manifest import PartFacts
from logstore.view.view import View, ViewIdentity

TABLE = Table(
    "t", "t", "0" * 32, 2, max_value_bytes=12, conditional=True, dedup_records=6, dedup_window_ms=40
)  # fmt: skip


class Rows(dict):
    """Live rows of levels below."""

    def scan(self, start=b"", end=None):
        return iter(sorted(self.items()))


def batch_of(records):
    rows = zip(*records, strict=True)
    return pa.RecordBatch.from_pylist(
        [
            {
                "part": 0, "offset": offset, "timestamp": timestamp, "key": key, "value": value,
                "headers": None if headers is None else [{"key": name, "value": raw} for name, raw in headers],
            }
            for offset, key, value, timestamp, headers in rows
        ],
        SCHEMA,
    )  # fmt: skip


def live(rows):
    return {key: entry for key, entry in rows.items() if entry[0] == 0}


def facts_of(fold, rows, cut):
    """Facts of a snapshot that a fold would make."""
    alone = digest(rows.items())
    whole = alone.plus(Digest(fold.decided_digest().value))
    return PartFacts(
        cut, fold.log_time_ms, alone.entries, whole.hex, {}, [], counter=fold.counter, rows_digest=alone.hex
    )  # fmt: skip


def lasting(state, folder):
    """Decision items of a state in memory: those that have ended are left out."""
    view = View(folder / "wanted", ViewIdentity.of(TABLE, 0))
    decided = Decided(state.outcomes, state.named, state.counter)
    view.apply(Folded(state.next_offset, state.log_time_ms, {}, [], None, decided))
    with view.reader().reading() as reading:
        items = list(reading.decisions.items())
    view.close()
    return items


@pytest.mark.parametrize("seed", range(20))
def test_it_goes_on_from_a_snapshot_as_the_definition_goes_on(tmp_path, seed):
    histories = KvHistories(seed)
    log, state = histories.log(60), StretchState(histories.rules)
    middle = histories.rng.randrange(1, 60)
    state.take(columns(log, 0, middle))
    first = ConditionalFold(TABLE, 0, FoldStart(None, None, NoFiles()), tmp_path)
    first.take(batch_of(columns(log, 0, middle)))
    rows = Rows(live(dict(first.items())))
    assert rows == live(state.rows)
    local = tmp_path / "decisions.sst"
    written = decisions.write(local, first.decided(), compression="none")
    start = FoldStart(facts_of(first, rows, middle), local if written else None, rows)
    first.close()
    (tmp_path / "second").mkdir()
    second = ConditionalFold(TABLE, 0, start, tmp_path / "second")
    state.take(columns(log, middle, 60))
    second.take(batch_of(columns(log, middle, 60)))
    assert (second.counter, second.log_time_ms) == (state.counter, state.log_time_ms)
    assert live(rows | dict(second.items())) == live(state.rows)
    assert second.decided_digest() == decisions_digest(lasting(state, tmp_path))
    second.close()


def test_outcomes_that_are_not_those_of_the_snapshot_are_refused(tmp_path):
    log = KvHistories(3).log(60)
    fold = ConditionalFold(TABLE, 0, FoldStart(None, None, NoFiles()), tmp_path)
    fold.take(batch_of(columns(log, 0, 60)))
    facts = facts_of(fold, live(dict(fold.items())), 60)
    assert fold.decided_digest().entries
    fold.close()
    (tmp_path / "next").mkdir()
    with pytest.raises(Corrupted, match="its digest counts"):
        ConditionalFold(TABLE, 0, FoldStart(facts, None, NoFiles()), tmp_path / "next")


def test_a_record_of_a_later_build_is_named(tmp_path):
    fold = ConditionalFold(TABLE, 0, FoldStart(None, None, NoFiles()), tmp_path)
    records = columns(KvHistories(1).log(3), 0, 3)
    records.keys[1], records.values[1], records.headers[1] = None, b"\x80", [("ls.op", b"rules")]
    with pytest.raises(Unsupported, match="offset 1 of t/0"):
        fold.take(batch_of(records))
    fold.close()
