"""Hard records in the lane: folded upon the view, and upon the snapshot that the view stands on."""

import shutil

import pytest
from support_hard import Log
from support_stretch import columns
from test_stretch import KEYS

from logstore.model.errors import NotYet
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.hard_rows.outcomes import AppliedOutcome, RejectedOutcome
from logstore.model.table import Table
from logstore.snapshot.sst import SstWriter, prepare
from logstore.view.layout import Base, Quarantine
from streaming.lane.disk.base_rows import BaseDamaged
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

TABLE = Table("t", "t", "e" * 32, 2, 1_000, conditional=True)
A, B, C = KEYS[:3]
CUT = 100
BASE = Base("s", CUT, 500, "0" * 32, 2, "s")


def counter(value, version):
    return Entry(VALUE, version, 400, value.to_bytes(8, signed=True)).encode()


def snapshot_of(folder, rows):
    """A RocksDB directory over an SSTable of these rows."""
    folder.mkdir()
    writer = SstWriter(folder / "base.sst")
    writer.put_many(sorted(rows.items()))
    assert writer.close() is not None
    prepare(folder / "db", [[folder / "base.sst"]])
    return folder / "db"


@pytest.fixture
def follow(tmp_path):
    opened = []

    def open_one(base=None):
        bootstrap = Bootstrap(base, Quarantine({}, []))
        opened.append(FollowedPartition(Target(TABLE, 0, 0), tmp_path, bootstrapper=lambda _: bootstrap))
        return opened[-1]

    def close_one(followed):
        opened.remove(followed)
        followed.close()

    open_one.close = close_one
    yield open_one
    for followed in opened:
        followed.close()


@pytest.fixture
def over_base(follow, tmp_path):
    """A partition that stands on a snapshot with two counters, which lies here."""
    followed = follow(BASE)
    followed.base_dir = snapshot_of(tmp_path / "snapshot", {A: counter(40, 7), B: counter(1, 8)})
    return followed


def behind(log):
    """The records of a log, the first of them at the cut."""
    records = columns(log, 0, len(log.records))
    return records._replace(offsets=[CUT + offset for offset in records.offsets])


def value_of(followed, key):
    with followed.view.reader().reading() as reading:
        found = Entry.decode(reading.get(key))
    return found.version, int.from_bytes(found.payload, signed=True)


def outcome_of(followed, offset):
    with followed.view.reader().reading() as reading:
        return reading.decisions.outcome(offset).outcome


def test_a_counter_goes_on_from_the_snapshot(over_base):
    assert over_base.take(behind(Log().incr(A, 2).incr(C, 5).incr(A, -1)), 1)
    assert value_of(over_base, A) == (CUT + 2, 41)
    assert value_of(over_base, C) == (CUT + 1, 5)
    assert over_base.take(behind(Log().incr(A, 0).incr(A, 0).incr(A, 0).incr(A, 9)), 1)
    assert value_of(over_base, A) == (CUT + 3, 50), "the view counts, once it has the row"


def test_a_condition_is_told_the_version_in_the_snapshot(over_base):
    log = (
        Log()
        .put(B, b"x", condition=b"version:9")
        .put(B, b"y", condition=b"version:8")
        .put(B, b"z", condition=b"absent")
    )
    assert over_base.take(behind(log), 1)
    assert [outcome_of(over_base, CUT + n) for n in range(3)] == [
        RejectedOutcome(8), AppliedOutcome(), RejectedOutcome(CUT + 1),
    ]  # fmt: skip


def test_a_row_that_was_deleted_since_is_absent(over_base):
    log = Log().delete(A).put(A, b"no", condition=b"present").put(A, b"new", condition=b"absent")
    assert over_base.take(behind(log), 1)
    assert outcome_of(over_base, CUT + 1) == RejectedOutcome(None)
    assert outcome_of(over_base, CUT + 2) == AppliedOutcome()


def test_a_hard_record_waits_for_a_snapshot_that_is_not_here_and_plain_ones_do_not(follow, tmp_path):
    followed = follow(BASE)
    assert followed.take(behind(Log().put(C, b"plain")), 1)
    hard = behind(Log().put(C, b"plain").incr(A, 1))
    with pytest.raises(NotYet, match="not here"):
        followed.take(hard, 1)
    assert followed.next_offset == CUT + 1, "nothing has changed"
    known = behind(Log().put(C, b"plain").append(C, b"er"))
    assert followed.take(known, 1), "the view has the row: the snapshot is not asked"
    followed.base_dir = snapshot_of(tmp_path / "snapshot", {A: counter(40, 7)})
    assert followed.take(behind(Log().put(C, b"-").put(C, b"-").incr(A, 1)), 1)
    assert value_of(followed, A) == (CUT + 2, 41)


def test_a_snapshot_that_is_damaged_holds_the_partition_until_it_is_whole(over_base):
    directory = over_base.base_dir
    for file in directory.glob("*.sst"):
        whole = file.read_bytes()
        file.unlink()
        file.write_bytes(b"\xff" * len(whole))
    with pytest.raises(BaseDamaged):
        over_base.take(behind(Log().incr(A, 1)), 1)
    assert over_base.is_base_damaged
    assert over_base.next_offset == CUT
    over_base.base_dir = snapshot_of(directory.parent.parent / "again", {A: counter(40, 7)})
    shutil.rmtree(directory)
    assert over_base.take(behind(Log().incr(A, 1)), 1)
    assert value_of(over_base, A) == (CUT, 41)


def test_a_restart_goes_on_with_ids_and_counters(follow):
    followed = follow()
    assert followed.take(columns(Log().incr(A, 3, id=b"i" * 16), 0, 1), 1)
    follow.close(followed)
    again = follow()
    log = Log().put(B, b"").incr(A, 3, id=b"i" * 16).incr(A, 1)
    assert again.take(columns(log, 1, 3), 1)
    assert value_of(again, A) == (2, 4)
    assert again.view.counter == 3
