"""What a writer and a reader are told by a worker that began from a snapshot, against the log folded from offset 0.

And a worker that loses the ids of its snapshot is found out by the same check.
"""

import os
from contextlib import closing

import pytest
from support_adopt import snapshot_is, storage_of
from support_checker import COUNTERS, KEYS, Author, Observer, Truth, violations
from support_jobs import InProcess, context
from support_log import produce
from support_serve import Reader
from support_snapshot import judge
from support_wait import until
from support_worker import WorkerProcess, make_table

from batch.jobs.compact import compact
from logstore import Store
from logstore.client.conditional.record import incr_record
from logstore.log.read.ranges import committed_ends
from logstore.snapshot.storage import Storage

pytestmark = pytest.mark.long  # workers of its own, to look at the check more than at them

IDS_LOST = """
from logstore.view import generation
def without(view, items):
    view.load_decisions((), view.base.counter, view.base.rules)
generation.take_in = without
"""
READS = 30


@pytest.fixture
def begun(request, kafka, tmp_path):
    """A table, a record with an id below the cut of its snapshot, and the url of a node that began there.

    The parameter is what its worker runs before it begins.
    """
    table, record = make_table(kafka.bootstrap, 1, conditional=True), incr_record(COUNTERS[0], 1, None)
    produce(kafka.bootstrap, table.topic, [(record.key, record.value)], headers=list(record.own))
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(request.param)
    searched = os.pathsep.join([str(tmp_path / "path"), *filter(None, [os.environ.get("PYTHONPATH")])])
    worker = WorkerProcess(kafka.bootstrap, tmp_path / "node", node=table.name, environ={"PYTHONPATH": searched})
    ctx = context(kafka.bootstrap, tmp_path, InProcess())
    ctx.storage = Storage(storage_of(worker))
    manifest = compact(ctx, table).manifest
    judge(ctx.repository(table), manifest, "agree")
    try:
        worker.start()
        snapshot_is(worker, table, "adopted", base=manifest.name)
        worker.watch.state(table, 0, "live")
        with closing(Reader(worker.data_dir, node=table.name)) as reader:
            reader.wait_listening()
            until("it answers", lambda: reader.get(f"/v1/tables/{table.name}/rows/first").status_code == 404)
            yield table, record, reader.url
    finally:
        worker.kill()
        print(worker.log())


def told_of_a_repeated_record(bootstrap, table, record, url):
    """All violations after a writer has sent the record again, and a reader has looked."""
    with Store(bootstrap, url, delivery_timeout_s=60) as store:
        author = Author(store, table, 1)
        author.counted.append(record)
        author.told.append(author.repeat(KEYS[0]))
        with closing(Observer(url, table, [author], 2)) as observer:
            until("it has read", lambda: observer.act() or len(observer.reads) >= READS)
    return violations(Truth(bootstrap, table, committed_ends(bootstrap, table)), [observer], [author])


@pytest.mark.parametrize("begun", [""], indirect=True, ids=["as it is"])
def test_a_record_of_before_the_snapshot_has_effect_once_on_a_node_that_began_there(begun, kafka):
    assert told_of_a_repeated_record(kafka.bootstrap, *begun) == []


@pytest.mark.parametrize("begun", [IDS_LOST], indirect=True, ids=["ids are lost"])
def test_a_worker_that_loses_ids_at_bootstrap_is_found_out(begun, kafka):
    found = told_of_a_repeated_record(kafka.bootstrap, *begun)
    assert any("was told as Became(word='applied'" in one and "'duplicate'" in one for one in found), found
    assert any("scan" in one and "was told as Seen(" in one for one in found), found
