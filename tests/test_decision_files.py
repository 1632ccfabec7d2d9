"""Outcomes and ids in snapshots: the digest of them, their file, and that what is wrong with it is found."""

from dataclasses import replace
from pathlib import Path

import pytest
from xxhash import xxh3_128_digest, xxh3_128_intdigest

from logstore.model.errors import Corrupted
from logstore.model.folding.bucket import pack_bucket
from logstore.model.folding.digest import Digest, digest
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.hard_rows.decisions import ID_KIND, OUTCOME_KIND, decisions_digest
from logstore.model.hard_rows.encoding import encode_id, encode_outcome, outcome_key
from logstore.model.hard_rows.outcomes import AppliedOutcome, RememberedId, RememberedOutcome
from logstore.snapshot import decisions
from logstore.snapshot.manifest import DECISIONS, FileFacts, Manifest, PartFacts
from logstore.snapshot.repository import Repository
from logstore.snapshot.sst import SstWriter
from logstore.snapshot.storage import Storage
from streaming.lane.disk import local_snapshots

EPOCH, NAME = "0" * 32, "00000000000001-aaaaaaaa"
ROWS = [(b"k%03d" % i, Entry(VALUE, i, 1, b"v").encode()) for i in range(50)]
KEYS = [b"k", b"k" * 495, b"k" * 496, b"k" * 65_535]


def items():
    """An outcome and an id of each key, the file's form of them."""
    outcomes, ids = [], []
    for number, key in enumerate(KEYS):
        one, name = RememberedOutcome(AppliedOutcome(), 7, number + 1), bytes([number]) * 16
        outcomes.append((OUTCOME_KIND + outcome_key(number), encode_outcome(one)))
        remembered = RememberedId(number, bytes(16), AppliedOutcome(), 7, number + 1)
        ids.append((ID_KIND + xxh3_128_digest(key) + name, pack_bucket({key + name: encode_id(remembered)})))
    return sorted(ids) + outcomes


def published(repository, folder, change=lambda part: part):
    """A snapshot of one partition with rows and decisions; `change`: what its manifest says of it."""
    made = []
    writer = SstWriter(folder / "rows.sst")
    writer.put_many(ROWS)
    decided = decisions.write(folder / "decisions.sst", items(), compression="lz4")
    for kind, facts in (("rows", writer.close()), ("decisions", decided)):
        path = f"{NAME}/p00000-{kind}.sst"
        repository.storage.upload(folder / f"{kind}.sst", repository.file_path(path))
        made.append(
            FileFacts(
                0, path, facts.entries, facts.size_bytes, facts.first_key, facts.last_key, facts.checksum,
                kind=DECISIONS if kind == DECISIONS else "",
            )
        )  # fmt: skip
    rows, total = digest(ROWS), digest(ROWS).plus(Digest(decisions_digest(items()).value))
    part = PartFacts(50, 1, 50, total.hex, {}, [], counter=4, decisions=8, rows_digest=rows.hex)
    manifest = Manifest(NAME, "t", "t", EPOCH, 1, 100, "compact", None, 1, 1, "j", "b", {0: change(part)}, made)
    repository.publish(manifest)
    return manifest


@pytest.fixture
def repository(tmp_path):
    return Repository(Storage(f"file://{tmp_path}/storage"), "t", EPOCH)


def test_the_digest_counts_each_outcome_and_id_once_under_its_whole_key():
    a, b = b"a" * 17, b"b" * 17  # of one bucket, as if their hashes were equal
    found = decisions_digest([(ID_KIND + bytes(32), pack_bucket({a: b"1", b: b"2"})), (OUTCOME_KIND + bytes(8), b"3")])
    parts = [b"\3\0\0\0\x11" + a + b"1", b"\3\0\0\0\x11" + b + b"2", b"\4\0\0\0\x08" + bytes(8) + b"3"]
    assert found == Digest(sum(map(xxh3_128_intdigest, parts)) % 2**128, 3)
    assert found.hex == "0b4e98af06a986ed02df006d105464cc"
    with pytest.raises(Corrupted):
        decisions_digest([(b"\5" + bytes(8), b"")])


def test_a_file_reads_back_and_there_is_none_of_nothing(tmp_path):
    assert decisions.write(tmp_path / "none.sst", [], compression="lz4") is None
    decisions.write(tmp_path / "some.sst", items(), compression="zstd")
    with decisions.stored(tmp_path / "some.sst") as found:
        assert list(found) == items()
    with pytest.raises(Corrupted):
        decisions.write(tmp_path / "unordered.sst", reversed(items()), compression="lz4")
    assert {path.name for path in tmp_path.iterdir()} == {"some.sst"}


def test_verify_compares_rows_and_decisions_with_what_the_manifest_says_of_each(repository, tmp_path):
    manifest = published(repository, tmp_path)
    assert repository.verify(NAME) == []
    path = Path(repository.storage.local(repository.file_path(manifest.files[1].path)))
    sound = path.read_bytes()
    for at in range(0, len(sound), len(sound) // 40):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        assert any(manifest.files[1].path in problem for problem in repository.verify(NAME))
    path.unlink()
    found = " ".join(repository.verify(NAME))
    assert "the file is missing" in found
    assert "0 outcomes and ids, the manifest has 8" in found


@pytest.mark.parametrize("wrong", [{"decisions": 7}, {"rows_digest": "1" * 32}, {"digest": digest(ROWS).hex}])
def test_verify_finds_a_manifest_that_says_something_else(repository, tmp_path, wrong):
    published(repository, tmp_path, lambda part: part._replace(**wrong))
    assert len(repository.verify(NAME)) == 1


def test_verify_finds_a_file_that_its_manifest_forgot(repository, tmp_path):
    manifest = published(repository, tmp_path)
    name = "00000000000002-aaaaaaaa"
    repository.publish(replace(manifest, name=name, files=manifest.files[:1]))
    assert any("0 outcomes and ids" in problem for problem in repository.verify(name))


def test_collection_keeps_the_file_as_long_as_a_manifest_names_it(repository, tmp_path):
    repository.move(None, published(repository, tmp_path).name, "test")
    repository.gc(1)
    assert repository.verify(NAME) == []


def test_a_node_fetches_the_file_beside_its_directory_of_rows_and_notices_damage(repository, tmp_path):
    manifest, seen = published(repository, tmp_path), []
    local = local_snapshots.fetch(
        repository, manifest, 0, tmp_path / "node", bytes_per_s=None, on_bytes=seen.append
    )  # fmt: skip
    assert sum(seen) == sum(file.size_bytes for file in manifest.files)
    assert local == local_snapshots.find(tmp_path / "node", NAME)
    assert (local.base.counter, local.base.rows.hex) == (4, digest(ROWS).hex)
    with decisions.stored(local.decisions) as found:
        assert list(found) == items()
    assert local_snapshots.damaged(local) is None
    local.decisions.write_bytes(b"wrong")
    assert "decisions.sst is damaged" in local_snapshots.damaged(local)
