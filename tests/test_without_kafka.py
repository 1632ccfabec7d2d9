"""A node that is started while Kafka is away serves what it has, says so, and goes on once Kafka is back."""

import httpx
import orjson
import pytest
from support_store import Running, cli, running
from support_wait import until

from logstore.broker.embedded import EmbeddedKafka


@pytest.mark.timeout(400)
def test_a_node_that_is_started_without_kafka_serves_what_it_has_and_goes_on(tmp_path):
    options = ("--http", "127.0.0.1:0", "--readers", "1")
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as kafka:
        port, bootstrap = int(kafka.bootstrap.rpartition(":")[2]), kafka.bootstrap
        with running("node", tmp_path / "node", "--bootstrap", bootstrap, *options) as node:
            cli("table", "create", "t", "--partitions", "2", LOGSTORE_BOOTSTRAP=bootstrap)
            where = {"LOGSTORE_BOOTSTRAP": bootstrap, "LOGSTORE_URL": node.url}
            cli("put", "t", "k", "v", **where)
            until("it is there", lambda: _status(f"{node.url}/v1/tables/t/rows/k") == 200)
    again = Running("node", tmp_path / "node", "--bootstrap", bootstrap, *options)
    try:
        url = until("the readers are started", lambda: _url(again))
        until("what it has is served", lambda: _status(f"{url}/v1/tables/t/rows/k") == 200)
        until("reads are answered here, without the log", lambda: _readiness(url) == (200, {"reachable": False}))
        assert "does not answer: what is here is served" in again.log()
        assert again.process.poll() is None
        pids = again.pids("workers")
        with EmbeddedKafka(tmp_path / "kafka", port=port, heap_mb=256):
            again.ready()
            assert again.pids("workers") == pids  # the same: it has waited
            cli("put", "t", "k", "w", LOGSTORE_BOOTSTRAP=bootstrap, LOGSTORE_URL=url)
            until("it goes on", lambda: httpx.get(f"{url}/v1/tables/t/rows/k", trust_env=False).content == b"w")
    finally:
        again.kill()


def _readiness(url: str) -> tuple[int, object]:
    page = httpx.get(f"{url}/readyz", timeout=20, trust_env=False)
    return page.status_code, page.json().get("log")


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=20, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def _url(node: Running) -> str | None:
    try:
        return str(orjson.loads((node.data_dir / "run" / "node.json").read_bytes())["url"])
    except (FileNotFoundError, ValueError):
        assert node.process.poll() is None, node.log()
        return None
