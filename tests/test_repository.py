"""The repository: what is visible, what is current, what is kept, and that planted damage is found."""

from pathlib import Path

import pytest

from logstore.model.digest import digest
from logstore.model.entry import VALUE, Entry
from logstore.model.errors import Conflict, JobRunning, NoSuchSnapshot
from logstore.snapshot.manifest import FileFacts, Manifest, PartFacts
from logstore.snapshot.repository import Repository
from logstore.snapshot.sst import SstWriter
from logstore.snapshot.storage import Storage

EPOCH = "0" * 32
PAIRS = [(b"k%05d" % i, Entry(VALUE, i, 1, b"v" * 50).encode()) for i in range(3000)]


def published(repository: Repository, folder: Path, name: str) -> Manifest:
    writer = SstWriter(folder / f"{name}.sst")
    writer.put_many(PAIRS)
    facts = writer.close()
    assert facts is not None
    repository.storage.upload(folder / f"{name}.sst", repository.file_path(f"{name}/p00000-00000.sst"))
    file = FileFacts(0, f"{name}/p00000-00000.sst", facts.entries, facts.size_bytes, facts.first_key, facts.last_key, facts.checksum)
    part = PartFacts(3000, 1, 3000, digest(PAIRS).hex, {}, [])
    made = Manifest(name, "t", "t", EPOCH, 1, 100, "compact", None, 1, 1, "j", "b", {0: part}, [file])
    repository.publish(made)
    return made


@pytest.fixture
def repository(tmp_path):
    return Repository(Storage(f"file://{tmp_path}/storage"), "t", EPOCH)


def test_what_is_published_reads_back_sound(repository, tmp_path):
    assert published(repository, tmp_path, "00000000000001-aaaaaaaa") == repository.manifest("00000000000001-aaaaaaaa")
    assert repository.verify("00000000000001-aaaaaaaa") == []


def test_the_pointer_moves_only_from_where_it_was_seen(repository):
    first = repository.move(None, "a", "test")
    with pytest.raises(Conflict):
        repository.move(None, "b", "test")
    assert repository.move(first, "b", "test") == repository.current()


def test_collection_leaves_current_predecessors_and_pins(repository, tmp_path):
    names = [f"{n:014d}-aaaaaaaa" for n in range(1, 6)]
    for name in names:
        published(repository, tmp_path, name)
    repository.move(None, names[4], "test")
    repository.pin(names[0], "test")
    assert repository.gc(2).snapshots == names[1:3]
    assert repository.names() == [names[0], names[3], names[4]]
    with pytest.raises(NoSuchSnapshot):
        repository.manifest(names[1])


def test_a_flipped_bit_is_found_and_a_key_named(repository, tmp_path):
    made = published(repository, tmp_path, "00000000000001-aaaaaaaa")
    path = repository.storage.local(repository.file_path(made.files[0].path))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4] ^= 1
    path.write_bytes(raw)
    found = " ".join(repository.verify(made.name))
    assert "checksum" in found
    assert "key b'k" in found
    path.unlink()
    assert "missing" in " ".join(repository.verify(made.name))


def test_one_job_at_a_time(repository):
    with repository.lease("a", "compact"), pytest.raises(JobRunning), repository.lease("b", "compact"):
        pass
    with repository.lease("b", "compact"):
        pass
