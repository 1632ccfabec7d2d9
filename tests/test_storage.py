"""Storage: one contract for a disk and for objects."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from s3fs import S3FileSystem
from support_s3 import BUCKET, free_port, s3_server
from support_tiers import short_and_long

from logstore.model.errors import StorageUnreachable
from logstore.snapshot.storage import Storage


@pytest.fixture(scope="module")
def s3():
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["file", "memory", "s3"])
def storage(request, tmp_path, monkeypatch):
    monkeypatch.setenv("LOGSTORE_STORAGE_SCHEMES", "file,s3,memory")
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Storage(f"s3://{BUCKET}/{tmp_path.name}")
    return Storage(f"file://{tmp_path}/s" if request.param == "file" else f"memory://{tmp_path}")


def test_create_is_exclusive(storage):
    storage.create("a/b", b"1")
    with pytest.raises(FileExistsError):
        storage.create("a/b", b"2")
    assert (storage.read("a/b"), storage.list("a"), storage.list("none")) == (b"1", ["b"], [])


def test_files_are_written_read_replaced_and_removed(storage, tmp_path):
    storage.replace("a/one", b"first")
    storage.replace("a/one", b"second")
    storage.create("a/b/two", b"x")
    assert (storage.read("a/one"), storage.size("a/one")) == (b"second", 6)
    assert storage.list("a") == ["b", "one"]
    local = tmp_path / "up"
    local.write_bytes(bytes(range(256)) * 9_000)
    storage.upload(local, "a/b/three")
    storage.fetch("a/b/three", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == local.read_bytes()
    storage.remove("a/one")
    storage.remove("a/one")
    for absent in (storage.read, storage.size):
        with pytest.raises(FileNotFoundError):
            absent("a/one")
    with pytest.raises(FileNotFoundError):
        storage.fetch("a/one", tmp_path / "nothing")
    storage.remove_tree("a")
    storage.remove_tree("a")
    assert storage.list("a") == []


def test_a_tree_is_every_file_below_with_its_bytes(storage, tmp_path):
    assert storage.tree("t") == {}
    for path, size in (("t/one", 1), ("t/a/two", 2), ("t/a/b c/three#", 3), ("tt/other", 4)):
        storage.replace(path, b"x" * size)
    assert storage.tree("t") == {"one": 1, "a/two": 2, "a/b c/three#": 3}
    assert storage.tree("t/a") == {"two": 2, "b c/three#": 3}
    if (folder := storage.local("t/a")) is not None:
        (folder / ".half.0123456789abcdef.part").write_bytes(b"half")  # of a writer that was killed
        assert storage.tree("t/a") == {"two": 2, "b c/three#": 3}
    assert storage.looks(storage.size, ["t/one", "t/a/two", "tt/other"]) == [1, 2, 4]
    with pytest.raises(FileNotFoundError):
        storage.looks(storage.size, ["t/one", "t/none"])


def test_a_download_goes_on_where_it_stopped(storage, tmp_path):
    whole = os.urandom(3 << 20)
    storage.replace("big", whole)
    local, part = tmp_path / "big", tmp_path / "big.part"
    heard = []
    part.write_bytes(whole[: 2 << 20])
    storage.download("big", local, on_bytes=heard.append)
    assert (local.read_bytes() == whole, sum(heard), part.exists()) == (True, 1 << 20, False)
    part.write_bytes(whole + b"of another file")  # that is no beginning of this one
    storage.download("big", local, on_bytes=heard.append)
    assert (local.read_bytes() == whole, sum(heard)) == (True, 4 << 20)


def test_a_download_is_no_faster_than_it_may_be(storage, tmp_path):
    storage.replace("big", bytes(2 << 20))
    began_s = time.monotonic()
    storage.download("big", tmp_path / "big", bytes_per_s=8 << 20)
    assert time.monotonic() - began_s >= 0.25


@pytest.fixture
def forgotten(s3):
    """fsspec keeps a connection for every bucket; here it must not find the one of the tests before."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


def test_a_server_that_is_not_there_is_said_to_be_unreachable(forgotten, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageUnreachable, match="check --storage"):
        Storage(f"s3://{BUCKET}/elsewhere").read("a")


def create(url: str, number: int) -> int:
    try:
        Storage(url).create("one", b"%d" % number)
    except FileExistsError:
        return -1
    return number


@pytest.mark.parametrize("kind", ["file", "s3"])
@short_and_long("processes", 2, 4)
@pytest.mark.slow
def test_of_many_processes_one_creates(kind, tmp_path, s3, processes):
    url = f"file://{tmp_path}" if kind == "file" else f"s3://{BUCKET}/{tmp_path.name}"
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        won = [number for number in pool.map(create, [url] * 16, range(16), timeout=60) if number >= 0]
    assert [b"%d" % number for number in won] == [Storage(url).read("one")]
