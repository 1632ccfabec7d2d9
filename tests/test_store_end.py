"""The end of a store: it is closed, forgotten by its program, or ends with it; nothing is lost."""

import gc
import subprocess
import sys
import warnings

import pytest
from support_producer import Fixed, read_log
from support_wait import until

from logstore import Store
from logstore.model.errors import (
    UsageError,
)


def test_close_flushes_and_is_final(kafka, fixed_table):
    store = Store(kafka.bootstrap, definitions=Fixed(fixed_table))
    pipe = store.pipeline(fixed_table.name)
    pendings = [pipe.put(b"%d" % i, b"v") for i in range(5000)]
    store.close()
    assert all(pending.done() and pending.exception() is None for pending in pendings)
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.put(fixed_table.name, "k", "v")
    assert len(read_log(kafka.bootstrap, fixed_table)) == 5000


def test_a_store_nobody_closed_is_flushed_with_a_warning(kafka, fixed_table):
    store = Store(kafka.bootstrap, definitions=Fixed(fixed_table))
    store.pipeline(fixed_table.name).put("k", "v")
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        ours = until(
            "the warning is there", lambda: (gc.collect(), [w for w in caught if "logstore Store" in str(w.message)])[1]
        )
    assert [w.category for w in ours] == [ResourceWarning]
    assert len(read_log(kafka.bootstrap, fixed_table)) == 1


def test_a_program_that_ends_without_closing_loses_nothing(kafka, fixed_table):
    program = """
import sys
from logstore import Store
from logstore.model.table import Table

class Fixed:
    def table(self, name): return Table(name, name, sys.argv[3], 4)
    def close(self): pass

store = Store(sys.argv[1], definitions=Fixed())
pipe = store.pipeline(sys.argv[2])
for i in range(20_000):
    pipe.put(b"%d" % i, b"v")
"""
    arguments = [sys.executable, "-W", "always", "-c", program, kafka.bootstrap, fixed_table.name, fixed_table.epoch]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert "ResourceWarning: a logstore Store was not closed" in ended.stderr
    assert len(read_log(kafka.bootstrap, fixed_table)) == 20_000
