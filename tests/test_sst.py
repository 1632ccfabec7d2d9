"""SSTables: what was put is what is read, in byte order, from many processes; what cannot be is refused."""

import random
import subprocess
import sys

import pytest

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import digest
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry
from logstore.snapshot.sst import SstReader, SstWriter, checksum, opened, prepare


def pairs_of(seed, count):
    rng = random.Random(seed)
    keys = {rng.randbytes(rng.choice((1, 2, 8, 500, 600))) for _ in range(count)} | {
        b"\0",
        b"\xff",
        b"\xff" * 65_535,
        b"a" * 65_535,
    }
    return [(key, Entry(VALUE, n, n, rng.randbytes(n % 90)).encode()) for n, key in enumerate(sorted(keys))]


def written(path, pairs, **more):
    writer = SstWriter(path, **more)
    writer.put_many(iter(pairs))
    return writer.close()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_what_is_put_reads_back(tmp_path, compression):
    pairs = pairs_of(1, 2_000)
    facts = written(tmp_path / "a.sst", pairs, compression=compression, block_bytes=4_096)
    assert (facts.entries, facts.first_key, facts.last_key, facts.digest) == (
        len(pairs),
        pairs[0][0],
        pairs[-1][0],
        digest(pairs),
    )
    prepare(tmp_path / "db", [[tmp_path / "a.sst"]])
    reader = SstReader.open(tmp_path / "db")
    assert list(reader.scan()) == pairs
    assert list(reader.scan(reverse=True)) == pairs[::-1]
    assert [reader.get(key) for key, _ in pairs[::7]] == [entry for _, entry in pairs[::7]]
    assert reader.get(b"never there") is None
    reader.close()


def test_ranges_both_ways_are_those_of_a_sorted_list(tmp_path):
    pairs, rng = pairs_of(2, 500), random.Random(8)
    written(tmp_path / "a.sst", pairs)
    with opened([[tmp_path / "a.sst"]]) as reader:
        for _ in range(200):
            start, end = (rng.choice((b"", rng.randbytes(rng.randrange(1, 3)), rng.choice(pairs)[0])) for _ in range(2))
            wanted = [pair for pair in pairs if pair[0] >= start and (not end or pair[0] < end)]
            assert list(reader.scan(start, end or None)) == wanted
            assert list(reader.scan(start, end or None, reverse=True)) == wanted[::-1]


def test_files_of_adjoining_ranges_are_one_table(tmp_path):
    pairs = pairs_of(3, 900)
    files = []
    for number in range(3):
        written(tmp_path / f"{number}.sst", pairs[number * 300 : (number + 1) * 300 if number < 2 else None])
        files.append(tmp_path / f"{number}.sst")
    with opened([files]) as reader:
        assert list(reader.scan()) == pairs


@pytest.mark.parametrize("seed", range(5))
def test_levels_are_read_as_a_dict_that_each_of_them_updates(tmp_path, seed):
    rng = random.Random(seed)
    keys = [b"%03d" % number for number in range(200)]
    held, levels, version = dict[bytes, bytes](), [], 0
    for level in range(4):
        changed = {}
        for key in rng.sample(keys, 150 if not level else 60):
            version += 1
            kind = TOMBSTONE if level and rng.random() < 0.4 else VALUE
            changed[key] = Entry(kind, version, 0, b"" if kind else rng.randbytes(5)).encode()
        pairs = sorted(changed.items())
        written(tmp_path / f"{level}-a.sst", pairs[:30])
        written(tmp_path / f"{level}-b.sst", pairs[30:])
        levels.append([tmp_path / f"{level}-a.sst", tmp_path / f"{level}-b.sst"])
        held |= changed
    before = {file: checksum(file) for level in levels for file in level}
    live = {key: entry for key, entry in held.items() if entry[0] != TOMBSTONE}
    with opened(levels) as reader:
        assert list(reader.stored()) == sorted(held.items())
        assert list(reader.scan()) == sorted(live.items())
        assert list(reader.scan(b"050", b"150", reverse=True)) == [
            pair for pair in sorted(live.items(), reverse=True) if b"050" <= pair[0] < b"150"
        ]
        assert [reader.get(key) for key in keys] == [live.get(key) for key in keys]
    assert {file: checksum(file) for file in before} == before, "levels upon them leave the files as they are"


def test_keys_that_do_not_rise_are_refused(tmp_path):
    writer = SstWriter(tmp_path / "a.sst")
    writer.put(b"b", b"1")
    for key in (b"b", b"a", b""):
        with pytest.raises(Corrupted, match="does not come after"):
            writer.put(key, b"2")
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_overlapping_files_are_refused(tmp_path):
    for name in ("a", "b"):
        written(tmp_path / f"{name}.sst", pairs_of(4, 50))
    with pytest.raises(Corrupted, match="refuses"):
        prepare(tmp_path / "db", [[tmp_path / "a.sst", tmp_path / "b.sst"]])
    assert not (tmp_path / "db").exists()


def test_nothing_put_is_no_file(tmp_path):
    assert written(tmp_path / "a.sst", []) is None
    assert list(tmp_path.iterdir()) == []


def test_many_keys_at_once_are_found_as_each_alone(tmp_path):
    base, delta = pairs_of(7, 3_000), pairs_of(8, 200)
    gone = [(key, Entry(TOMBSTONE, 9, 9).encode()) for key, _ in base[::7]]
    over = sorted(dict([*delta, *gone]).items())
    written(tmp_path / "a.sst", base)
    written(tmp_path / "b.sst", over)
    keys = sorted({key for key, _ in [*base, *over]} | {b"none-%d" % n for n in range(50)})
    with opened([[tmp_path / "a.sst"], [tmp_path / "b.sst"]]) as reader:
        found = [entry for at in range(0, len(keys), 64) for entry in reader.get_many(keys[at : at + 64])]
        assert found == [reader.get(key) for key in keys]
        assert reader.get_many([]) == []
    assert 0 < sum(entry is None for entry in found) < len(keys)


@pytest.mark.parametrize("how", ["scan", "get_many"])
def test_no_flipped_bit_gives_a_wrong_answer(tmp_path, how):
    pairs, rng = pairs_of(5, 1_000), random.Random(9)
    written(tmp_path / "a.sst", pairs, compression="none")
    sound, truth, noticed = (tmp_path / "a.sst").read_bytes(), dict(pairs), 0
    for number in range(25):
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound) * 9 // 10)] ^= 1 << rng.randrange(8)
        (tmp_path / f"{number}.sst").write_bytes(damaged)
        try:
            with opened([[tmp_path / f"{number}.sst"]]) as reader:
                found = reader.scan() if how == "scan" else zip(truth, reader.get_many(list(truth)), strict=True)
                assert all(truth[key] == entry for key, entry in found)
        except Corrupted:
            noticed += 1
    assert noticed > 15


def test_other_processes_read_at_the_same_time(tmp_path):
    pairs = pairs_of(6, 300)
    written(tmp_path / "a.sst", pairs)
    prepare(tmp_path / "db", [[tmp_path / "a.sst"]])
    program = (
        "import sys, pathlib; from logstore.snapshot.sst import SstReader; "
        "r = SstReader.open(pathlib.Path(sys.argv[1])); print(len(list(r.scan())))"
    )
    reader = SstReader.open(tmp_path / "db")
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "db")], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [int(other.communicate(timeout=60)[0]) for other in others] == [len(pairs)] * 2
    assert list(reader.scan()) == pairs
    reader.close()
