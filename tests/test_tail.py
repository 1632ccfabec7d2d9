"""The tail: what other tools can write and the client library cannot read."""

import subprocess
import time

from support_log import produce
from support_worker import make_table

from logstore.log.read.tail import FetchedBatch, Tail
from logstore.model.folding.entry import VALUE, Entry
from logstore.model.folding.fold import FoldRules, fold_batch

USUAL, ODD = 300, 100  # enough of the usual ones that the interpreter specialises the loop for them


def batches(tail, upto, timeout_s=90):
    """What the tail hands over until offset `upto` is there."""
    taken, deadline = [], time.monotonic() + timeout_s
    while not taken or taken[-1].records.offsets[-1] + 1 < upto:
        assert time.monotonic() < deadline, taken
        taken += [event for event in tail.take(0.5) if isinstance(event, FetchedBatch)]
    return taken


def test_a_header_name_that_is_not_text_is_quarantined_and_the_next_record_is_folded(kafka):
    table = make_table(kafka.bootstrap, partitions=1)
    command = [
        b"kcat",
        b"-P",
        b"-q",
        b"-b",
        kafka.bootstrap.encode(),
        b"-t",
        table.topic.encode(),
        b"-k",
        b"ada",
        b"-H",
        b"\xff\xfe=1",
    ]
    produce(kafka.bootstrap, table.topic, [(b"%d" % n, b"1") for n in range(USUAL)], 0, [("m\u00fcne", b"1")])
    subprocess.run(command, input=b"1815\n" * ODD, check=True, timeout=60)
    produce(kafka.bootstrap, table.topic, [(b"bob", b"2")], 0, [("m\u00fcne", b"1")])
    tail = Tail(kafka.bootstrap, group="logstore.test-tail")
    try:
        tail.follow(table.topic, 0, 0)
        taken = batches(tail, USUAL + ODD + 1)
    finally:
        tail.close()
    place, entries, quarantined, following, log_time_ms = FoldRules(0, 1, 100), {}, [], 0, 0
    for batch in taken:
        folded = fold_batch(batch.records, place, following, log_time_ms)
        entries, quarantined = entries | folded.entries, quarantined + folded.quarantined
        following, log_time_ms = folded.next_offset, folded.log_time_ms
    assert quarantined == [(USUAL + n, "unknown-header") for n in range(ODD)]
    assert Entry.decode(entries[b"bob"])[:2] == (VALUE, USUAL + ODD)
    assert b"ada" not in entries
