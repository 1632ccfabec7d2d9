"""As of a time, on a real broker: a quiet partition is told by a tick how late it is in the log."""

from datetime import UTC, datetime

import pytest
from support_store import running
from support_worker import make_table

from logstore import Store
from logstore.log.kafka.records import read_records
from logstore.model.errors import LogStoreError


def test_a_time_is_answered_once_a_record_with_a_later_one_was_applied(kafka, tmp_path):
    table = make_table(kafka.bootstrap, 1)
    untold = make_table(kafka.bootstrap, 1, allow_control_records=False, adopted=True)
    options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--group", table.name)
    with running("node", tmp_path / "node", *options) as node, Store(kafka.bootstrap, node.url) as client:
        for name in (table.name, untold.name):
            position = client.put(name, "balance", "100")
            assert client.get(name, "balance", after=position, deadline_ms=30_000).value == b"100"
        then = datetime.now(UTC)
        assert client.get(table.name, "balance", as_of=then, deadline_ms=30_000).value == b"100"
        position = client.put(table.name, "balance", "0")
        assert client.get(table.name, "balance", after=position).value == b"0"
        with pytest.raises(LogStoreError, match="not kept"):  # written since: refused, never another answer
            client.get(table.name, "balance", as_of=then, deadline_ms=30_000)
        with pytest.raises(LogStoreError, match="takes no control records"):
            client.get(untold.name, "balance", as_of=then, deadline_ms=300)
        ticks = client.put(table.name, "balance", "0").offset - position.offset - 1
        assert ticks == 0  # nobody waits: nothing is appended
        records = read_records(kafka.bootstrap, table.topic, 0, 0, position.offset)
        times = [record.timestamp()[1] for record in records]
        assert times[-1] > then.timestamp() * 1000
