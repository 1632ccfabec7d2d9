"""The fixtures for programs that use a store: both stores take the same test."""

from support_store import pasted

from logstore.broker.jars import cache_dir

PROGRAM = """
cat > conftest.py <<END
pytest_plugins = ["logstore.testing"]
END
cat > test_program.py <<END
import pytest

def rename(store, old, new):
    name = store.get("users", old, deadline_ms=20_000).value
    return store.put_many("users", {new: name, old: None})

@pytest.mark.parametrize("kind", ["memory_store", "dev_store"])
def test_rename(kind, request):
    store = request.getfixturevalue(kind)
    store.create("users", partitions=2)
    written = store.put_many("users", {"ada": "1815", "bob": "1816"})
    assert store.get("users", "ada", after=written, deadline_ms=20_000).value == b"1815"
    done = rename(store, "ada", "lovelace")
    assert [row.key for row in store.scan("users", after=done, deadline_ms=20_000)] == [b"bob", b"lovelace"]
END
python -P -m pytest -q -p no:cacheprovider
"""


def test_a_program_is_tested_in_memory_and_on_a_real_store(tmp_path):
    done = pasted(PROGRAM, tmp_path, LOGSTORE_CACHE=str(cache_dir()), LOGSTORE_KAFKA_HEAP_MB="256")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
