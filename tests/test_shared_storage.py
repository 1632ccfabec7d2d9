"""The files by which executors prove that they see a storage."""

import os
import time

import pytest

from batch import shared_storage
from logstore.model.errors import UsageError
from logstore.snapshot.storage import Storage


def test_files_of_drivers_that_were_killed_are_removed_by_a_later_one(tmp_path):
    storage = Storage(f"file://{tmp_path}")
    old, young = shared_storage.write_nonce(storage), shared_storage.write_nonce(storage)
    week_ago_s = time.time() - shared_storage.LEFT_S - 60
    os.utime(tmp_path / old.path, (week_ago_s, week_ago_s))
    mine = shared_storage.write_nonce(storage)
    assert storage.list("_seen") == sorted(one.path.removeprefix("_seen/") for one in (young, mine))
    for one in (young, mine):
        shared_storage.check_seen(None, one)
        shared_storage.remove(one)
    assert not (tmp_path / "_seen").exists()
    with pytest.raises(UsageError, match="does not see"):
        shared_storage.check_seen(None, old)
