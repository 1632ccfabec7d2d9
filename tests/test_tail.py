"""The tail: what other tools can write and the client library cannot read."""

import subprocess
import time

from support_log import produce
from support_worker import make_table

from logstore.log.tail import Batch, Tail
from logstore.model.entry import VALUE, Entry
from logstore.model.fold import Place, fold_batch


def batches(tail, upto, timeout_s=30):
    """What the tail hands over until offset `upto` is there."""
    taken, deadline = [], time.monotonic() + timeout_s
    while not taken or taken[-1].records.offsets[-1] + 1 < upto:
        assert time.monotonic() < deadline, taken
        taken += [event for event in tail.take(0.5) if isinstance(event, Batch)]
    return taken


def test_a_header_name_that_is_not_text_is_quarantined_and_the_next_record_is_folded(kafka):
    table = make_table(kafka.bootstrap, partitions=1)
    command = [b"kcat", b"-P", b"-q", b"-b", kafka.bootstrap.encode(), b"-t", table.topic.encode(), b"-k", b"ada", b"-H", b"\xff\xfe=1"]
    subprocess.run(command, input=b"1815\n", check=True, timeout=60)
    produce(kafka.bootstrap, table.topic, [(b"bob", b"2")], 0, [("m\u00fcne", b"1")])
    tail = Tail(kafka.bootstrap, group="logstore.test-tail")
    try:
        tail.follow(table.topic, 0, 0)
        taken = batches(tail, 2)
    finally:
        tail.close()
    place, entries, quarantined, following, log_time_ms = Place(0, 1, 100), {}, [], 0, 0
    for batch in taken:
        folded = fold_batch(batch.records, place, following, log_time_ms)
        entries, quarantined = entries | folded.entries, quarantined + folded.quarantined
        following, log_time_ms = folded.next_offset, folded.log_time_ms
    assert quarantined == [(0, "unknown-header")]
    assert {key: Entry.decode(raw)[:2] for key, raw in entries.items()} == {b"bob": (VALUE, 1)}
