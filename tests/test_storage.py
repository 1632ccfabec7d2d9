"""Storage: one contract for a disk and for objects."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from logstore.snapshot.storage import Storage


@pytest.fixture(params=["file", "memory"])
def storage(request, tmp_path):
    return Storage(f"file://{tmp_path}/s" if request.param == "file" else f"memory://{tmp_path}")


def test_create_is_exclusive(storage):
    storage.create("a/b", b"1")
    with pytest.raises(FileExistsError):
        storage.create("a/b", b"2")
    assert (storage.read("a/b"), storage.list("a"), storage.list("none")) == (b"1", ["b"], [])


def create(url: str, number: int) -> int:
    try:
        Storage(url).create("one", b"%d" % number)
    except FileExistsError:
        return -1
    return number


def test_of_many_processes_one_creates(tmp_path):
    url = f"file://{tmp_path}"
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        won = [number for number in pool.map(create, [url] * 16, range(16), timeout=60) if number >= 0]
    assert [b"%d" % number for number in won] == [Storage(url).read("one")]
