"""A node that is started while Kafka is away serves what it has, says so, and goes on once Kafka is back."""

import math
import os
import signal

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
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
            until(
                "it goes on",
                lambda: httpx.get(f"{url}/v1/tables/t/rows/k", trust_env=False, timeout=60).content == b"w",
            )
    finally:
        again.kill()


def _readiness(url: str) -> tuple[int, object]:
    page = httpx.get(f"{url}/readyz", timeout=60, trust_env=False)
    return page.status_code, page.json().get("log")


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=60, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def _url(node: Running) -> str | None:
    try:
        return str(orjson.loads((node.data_dir / "run" / "node.json").read_bytes())["url"])
    except (FileNotFoundError, ValueError):
        assert node.process.poll() is None, node.log()
        return None


def _scrape(url: str) -> dict[str, list[float]]:
    """Values of each metric, of one scrape."""
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60, trust_env=False).text):
        for sample in family.samples:
            name = f"{sample.name}/{sample.labels['state']}" if "state" in sample.labels else sample.name
            found.setdefault(name, []).append(sample.value)
    return found


def _told(url: str, *, reachable: bool) -> bool:
    """Whether Kafka is said to answer, or not; in every scrape lag and states go with that."""
    page = _scrape(url)
    lags = page["logstore_lag_records"] + page["logstore_lag_seconds"]
    if page["logstore_kafka_reachable"] == [0.0]:
        assert all(map(math.isnan, lags)), page
        assert page["logstore_partition_state/unreachable"] == [1.0, 1.0], page
        return not reachable
    live = page["logstore_partition_state/live"] == [1.0, 1.0]
    return reachable and live and lags == [0.0] * 4


def _freeze(kafka: EmbeddedKafka) -> None:
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGSTOP)


def _thaw(kafka: EmbeddedKafka) -> None:
    assert kafka.pid is not None
    os.kill(kafka.pid, signal.SIGCONT)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("hurt", "heal"), [(EmbeddedKafka.kill, EmbeddedKafka.start), (_freeze, _thaw)], ids=["killed", "frozen"]
)
def test_pages_and_logs_of_a_node_tell_the_truth_while_kafka_is_killed_or_frozen(tmp_path, hurt, heal):
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as kafka:
        options = ("--bootstrap", kafka.bootstrap, "--http", "127.0.0.1:0", "--readers", "1")
        with running("node", tmp_path / "node", *options) as node:
            cli("table", "create", "t", "--partitions", "2", LOGSTORE_BOOTSTRAP=kafka.bootstrap)
            cli("put", "t", "k", "v", LOGSTORE_BOOTSTRAP=kafka.bootstrap, LOGSTORE_URL=node.url)
            until("all is well", lambda: _told(node.url, reachable=True), timeout_s=100)
            (before,) = httpx.get(f"{node.url}/v1/cluster", trust_env=False, timeout=60).json()["nodes"]
            hurt(kafka)
            try:
                until("it is told", lambda: _told(node.url, reachable=False), timeout_s=100)
                _stays_true(node.url, before)
            finally:
                heal(kafka)
            until("all is well again", lambda: _told(node.url, reachable=True), timeout_s=100)
            cli("put", "t", "k", "w", LOGSTORE_BOOTSTRAP=kafka.bootstrap, LOGSTORE_URL=node.url)
            until("it goes on", lambda: _row(node.url) == b"w", timeout_s=100)
            said = node.log()
            lines = said.count("Kafka does not answer: what is served does not advance")
            assert 2 <= lines <= 10, "in the worker's log and the node's; said once, and not at each attempt"
            assert "Traceback" not in said


def _stays_true(url: str, before: dict[str, object]) -> None:
    """What is told for longer than announcements of nodes count, which is 8 s."""

    def old() -> bool:
        assert _told(url, reachable=False), "in between nothing looks healthy"
        assert (_readiness(url), _status(f"{url}/livez")) == ((200, {"reachable": False}), 200)
        assert _row(url) == b"v"
        (known,) = httpx.get(f"{url}/v1/cluster", trust_env=False, timeout=60).json()["nodes"]
        assert (known["node"], known["url"], known["current"]) == (before["node"], before["url"], False)
        return bool(known["age_s"] > 12)

    until("it has been told for a while", old, timeout_s=100)


def _row(url: str) -> bytes:
    return httpx.get(f"{url}/v1/tables/t/rows/k", trust_env=False, timeout=60).content
