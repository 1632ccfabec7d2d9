"""Small partitions that one task folds together are what each of them is folded to alone."""

import random
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from batch.tasks import read_back
from batch.tasks.fold_group import fold_group
from batch.tasks.read_back import Written, prove_group
from batch.tasks.sst_files import SstTarget
from batch.tasks.sstables import fold_partition
from logstore.log.read.ranges import HEADERS, SCHEMA
from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest
from logstore.model.partitioner import partition_of
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.table import Table
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.manifest import levels_of
from logstore.snapshot.sst import checksum, opened
from logstore.snapshot.storage import Storage
from logstore.snapshot.work import FoldOrder

PARTITIONS, ROWS = 5, 3_000
KEYS = [[key for n in range(ROWS) if partition_of(key := b"k%04d" % n, PARTITIONS) == p] for p in range(PARTITIONS)]


class Partitions:
    """Logs of a table's partitions as far as they are written, and the snapshot of each."""

    def __init__(self, directory: Path, storage=None, **settings):
        self.storage = storage or Storage(f"file://{directory}")
        self.table = Table("t", "t", "ab" * 16, PARTITIONS, **settings)
        self.ends, self.before, self.files, self.runs = [0] * PARTITIONS, [None] * PARTITIONS, [[]] * PARTITIONS, 0

    def order(self, partition, records, *, full=False):
        """Append to a log, archive that, and order its fold."""
        start = self.ends[partition]
        self.ends[partition] += len(records)
        offsets = range(start, self.ends[partition])
        columns = [
            pa.array([partition] * len(records), pa.int32()), pa.array(offsets, pa.int64()),
            pa.array(offsets, pa.int64()), pa.array([key for key, _ in records], pa.binary()),
            pa.array([value for _, value in records], pa.binary()), pa.array([None] * len(records), HEADERS),
        ]  # fmt: skip
        name = f"{partition}-{start}.parquet"
        path = Path(str(Storage(self.storage.url).local(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=SCHEMA)]), path)
        size = path.stat().st_size
        segment = Segment(partition, start, start + len(records), name, len(records), size, checksum(path), "")
        below = (self.files[partition], self.before[partition])
        return FoldOrder(partition, start, start + len(records), [segment] if records else [], *below, full)

    def compact(self, orders):
        """Fold the partitions together and alone: the same comes of it. Go on from what they became together."""
        self.runs += 1
        alone = [fold_partition(order, self.table, self.target("alone")) for order in orders]
        together = fold_group(orders, self.table, self.target("together"))
        for order, one, other in zip(orders, together, alone, strict=True):
            assert (one.facts, one.linked, one.records) == (other.facts, other.linked, other.records)
            assert [file[2:] for file in one.files if not same(file, other)] == []
            assert self.content(one.files) == self.content(other.files)
            self.before[order.partition], self.files[order.partition] = one.facts, one.files
        return together

    def target(self, how):
        return SstTarget(self.storage, "snapshots", f"{how}-{self.runs}")

    def content(self, files):
        """Every level as it is stored, tombstones too."""
        return [
            list(reader.stored())
            for level in levels_of(files)
            for paths in [[Path(str(Storage(self.storage.url).local(f"snapshots/{file.path}"))) for file in level]]
            for reader in opened_one(paths)
        ]


def opened_one(paths):
    with opened([paths]) as reader:
        yield reader


def same(file, other):
    """True where another fold has such a file: its bytes differ by a number that RocksDB draws."""
    return any(
        (file.entries, file.first_key, file.last_key, file.level) == (o[2], o[4], o[5], o[7]) for o in other.files
    )


@pytest.mark.parametrize("merge_share", [0.5, *(pytest.param(share, marks=pytest.mark.long) for share in (0, 10))])
def test_partitions_folded_together_are_what_each_is_alone(tmp_path, merge_share):
    rng, made = random.Random(merge_share), Partitions(tmp_path, merge_share=merge_share)
    made.compact([made.order(p, [(key, b"v" * 50) for key in KEYS[p]] if p else []) for p in range(PARTITIONS)])
    for number in range(6):
        orders = []
        for partition in range(PARTITIONS):
            count = rng.choice([0, 1, 9, 60])
            changed = [(rng.choice(KEYS[partition]), rng.choice([None, b"%d" % number * 9])) for _ in range(count)]
            wrong = [(KEYS[(partition + 1) % PARTITIONS][0], b"of another partition")] if count == 9 else []
            orders.append(made.order(partition, changed + wrong, full=number == 4 and partition == 2))
        made.compact(orders)
    depths = [len(levels_of(files)) for files in made.files]
    assert max(depths) <= 4
    assert (max(depths) == 1) == (merge_share == 0)
    made.compact([made.order(p, [(key, None) for key in KEYS[p]]) for p in range(PARTITIONS)])
    assert {(facts.entries, facts.digest) for facts in made.before} == {(0, Digest().hex)}


class Damaging(Storage):
    """A storage that does not keep what it was given, once it is told to."""

    wrong = ""

    def upload_all(self, files):
        super().upload_all(files)
        there = [Path(str(self.local(path))) for _, path in files]
        if self.wrong == "bytes":
            data = bytearray(there[1].read_bytes())
            data[len(data) // 3] ^= 1
            there[1].write_bytes(data)
        if self.wrong == "lost":
            there[1].unlink()
        if self.wrong == "swapped":
            first = there[1].read_bytes()
            there[1].write_bytes(there[2].read_bytes())
            there[2].write_bytes(first)


@pytest.mark.parametrize("wrong", ["bytes", "lost", "swapped"])
def test_what_is_not_kept_as_it_was_written_ends_the_group(tmp_path, wrong):
    storage = Damaging(f"file://{tmp_path}")
    made = Partitions(tmp_path, storage, merge_share=10)
    made.compact([made.order(p, [(key, b"v" * 50) for key in KEYS[p]]) for p in range(PARTITIONS)])
    storage.wrong = wrong
    orders = [made.order(p, [(key, b"w" * (p + 9)) for key in KEYS[p][:9]]) for p in range(PARTITIONS)]
    with pytest.raises(Corrupted, match=r"together-9/p0000[12]-00000-\w+\.sst .*(is gone|is damaged)"):
        fold_group(orders, made.table, SstTarget(storage, "snapshots", "together-9"))


def test_entries_are_proved_to_be_those_of_their_own_partition(tmp_path):
    made = Partitions(tmp_path)
    done = made.compact([made.order(p, [(key, b"v") for key in KEYS[p]]) for p in range(PARTITIONS)])
    group = [
        Written(p, one.files, one.facts.cut, Digest.from_hex(one.facts.digest, one.facts.entries), Digest())
        for p, one in enumerate(done)
    ]
    target = made.target("together")
    scratches = (tmp_path / f"scratch-{number}" for number in range(9))

    def prove(changed):
        scratch = next(scratches)
        scratch.mkdir()
        prove_group(target, changed, Partitioning(PARTITIONS), scratch)

    prove(group)
    prove([])
    first, second, *more = group
    other = first.claimed._replace(value=first.claimed.value ^ 1)
    with pytest.raises(Corrupted, match="does not read back"):
        prove([first._replace(claimed=other), second, *more])
    with pytest.raises(Corrupted, match="does not read back"):
        prove([first, second._replace(beside=Digest(1, 1)), *more])
    with pytest.raises(Corrupted, match="newer than the cut"):
        prove([first, second._replace(cut=second.cut - 1), *more])
    with pytest.raises(Corrupted, match="were written"):
        prove([first._replace(files=[first.files[0]._replace(entries=1)]), second, *more])
    with pytest.raises(Corrupted, match="of partition 1 in a file of another one, of 0"):
        prove([first._replace(files=second.files)])


def test_a_group_is_read_back_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(read_back, "_PIECE", 7)
    made = Partitions(tmp_path)
    made.compact([made.order(p, [(key, b"v") for key in KEYS[p]]) for p in range(PARTITIONS)])
    assert [facts.entries for facts in made.before] == [len(keys) for keys in KEYS]
    assert all(before < after for keys in KEYS for before, after in pairwise(keys))
