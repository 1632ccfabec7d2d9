"""Alert rules and the dashboard in `ops/` speak of metrics that a node has, and of pages that are there."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support_classes import ROOT
from support_wait import until

from logstore.process.figures import COUNTER, GAUGE
from logstore.serve.metrics.partitions import STATES

OPS = ROOT / "ops"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((OPS / "prometheus/alerts.yml").read_text())["groups"] for rule in group["rules"]
]
BOARD: dict[str, Any] = json.loads((OPS / "grafana/logstore.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]
SELECTOR = re.compile(r"(logstore_\w+)(?:\{([^}]*)\})?")
SCRAPED = {"instance", "job"}  # labels that Prometheus adds
PROCESSES = {"node", "worker-0", "reader-0", "reader-1"}


class Told:
    """Metrics of a page: labels of each sample's name, where there is one, and all names that there may be."""

    def __init__(self, page: str) -> None:
        self.labels: dict[str, set[str]] = {}
        self.names: set[str] = set()
        for family in text_string_to_metric_families(page):
            suffix = {GAUGE: [""], COUNTER: ["_total"]}.get(family.type, ["_bucket", "_sum", "_count"])
            self.names |= {family.name + each for each in suffix}
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)

    def problems(self, expression: str) -> list[str]:
        """Names and labels of an expression that no node has."""
        found = []
        for name, selectors in SELECTOR.findall(expression):
            if name not in self.names:
                found.append(name)
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
            if name in self.labels and asked - self.labels[name] - SCRAPED:
                found.append(f"{name}{{{asked}}}")
        return found


@pytest.fixture(scope="module")
def told(dev) -> Told:
    """The page of a whole node: its supervisor, worker and readers."""
    dev("table", "create", "alerted", "--partitions", "1")

    def page() -> str:
        text = httpx.get(f"{dev.facts['http']}/metrics", trust_env=False, timeout=60).text
        here = set(re.findall(r'logstore_process_up\{process="([\w-]+)"\} 1', text))
        return text if here >= PROCESSES and 'logstore_lag_seconds{partition="0",table="alerted"}' in text else ""

    return Told(until("every process has told its figures", page))


def test_a_node_knows_the_brokers_clock(told, dev):
    def ahead_s() -> str:
        text = httpx.get(f"{dev.facts['http']}/metrics", trust_env=False, timeout=60).text
        return "".join(re.findall(r"^logstore_clock_ahead_seconds (-?[\d.e-]+)$", text, re.MULTILINE))

    assert (
        float(until("a worker has told it", ahead_s)) < 1.0
    )  # one machine has one clock; late answers count as behind


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_a_node_tells(told, rule):
    assert SELECTOR.search(rule["expr"])
    assert told.problems(rule["expr"]) == []


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_the_dashboard_asks_for_what_a_node_tells(told, title, expression):
    assert SELECTOR.search(expression)
    assert told.problems(expression) == []


def test_a_name_or_a_label_that_no_node_has_is_found(told):
    assert told.problems("logstore_lag_hours > 1") == ["logstore_lag_hours"]
    assert told.problems('logstore_partition_state{colour="red"} == 1')
    assert told.problems('logstore_kafka_reachable{instance="a"}') == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_a_section_that_is_there(rule):
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"]["summary"]


def test_states_that_alerts_ask_for_are_states():
    asked = {state for rule in RULES for state in re.findall(r'state="([\w-]+)"', rule["expr"])}
    assert asked == {"stopped", "unserved", "unreachable"}
    assert asked <= set(STATES)


def test_expressions_are_whole():
    for expression in [rule["expr"] for rule in RULES] + [expression for _, expression in QUERIES]:
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression


def test_panels_of_the_dashboard_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_rules_are_right_by_promtool_where_there_is_one():
    tests = yaml.safe_load((OPS / "prometheus/alerts_test.yml").read_text())
    tried = {one["alertname"] for group in tests["tests"] for one in group["alert_rule_test"]}
    assert tried <= {rule["alert"] for rule in RULES}
    promtool = shutil.which("promtool")
    if promtool is not None:
        for argv in (
            ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"],
            ["check", "config", "prometheus.yml"],
        ):  # fmt: skip
            done = subprocess.run(
                [promtool, *argv], cwd=OPS / "prometheus", capture_output=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def prometheus(dev, told, tmp_path_factory) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Series of an expression, by a real Prometheus that scrapes a real node with the files of `ops/`."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no package has brought a prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(OPS / "prometheus/alerts.yml", folder)
    config = yaml.safe_load((OPS / "prometheus/prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["static_configs"] = [{"targets": [dev.facts["http"].removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    argv = [
        program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            until("Prometheus is ready", lambda: _is_up(f"{url}/-/ready"))
            yield lambda expression: _queried(url, expression)
        finally:
            process.terminate()
            print((folder / "log").read_text())


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=60).status_code == 200
    except httpx.HTTPError:
        return False


def _queried(url: str, expression: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, trust_env=False, timeout=60).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def shown_for_all(expression: str) -> str:
    """The expression of a panel as the board asks it with nothing chosen."""
    return expression.replace("$instance", ".*").replace("$table", ".*")


NEEDS_SNAPSHOTS = ("logstore_snapshot_age", "logstore_schedule", "logstore_archive_gap")


@pytest.mark.parametrize(
    ("title", "expression"), [one for one in QUERIES if not any(name in one[1] for name in NEEDS_SNAPSHOTS)]
)
def test_a_panel_has_series_of_a_node_that_works(dev, prometheus, title, expression):
    def seen() -> bool:
        dev("put", "alerted", "k", "v")
        dev("get", "alerted", "k")
        return bool(prometheus(shown_for_all(expression)))

    until(f"{title}: {expression}", seen)


def test_alerts_are_asked_by_prometheus_and_none_says_that_a_node_that_works_is_gone(prometheus):
    until("it is scraped", lambda: prometheus("logstore_build_info"))
    for rule in RULES:
        prometheus(rule["expr"])
    gone = [rule["expr"] for rule in RULES if rule["alert"] in ("LogstoreGone", "LogstoreKafkaUnreachable")]
    assert len(gone) == 2
    until("nothing is said to be gone", lambda: not any(map(prometheus, gone)))


COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
OBSERVERS = {name: one for name, one in COMPOSE["services"].items() if one.get("profiles") == ["observe"]}


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Files of the checkout that a service has: place in the container -> place here."""
    split = (volume.split(":") for volume in service["volumes"])
    return {inside: here for here, inside, *_ in split if here.startswith(".")}


def test_the_profile_brings_prometheus_and_grafana_up_on_loopback_with_files_that_are_there():
    assert OBSERVERS.keys() == {"prometheus", "grafana"}
    for service in OBSERVERS.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert mounts(service)
        for here in mounts(service).values():
            assert (ROOT / "docker" / here).exists(), here
    named = {volume.split(":")[0] for service in OBSERVERS.values() for volume in service["volumes"]}
    assert {name for name in named if not name.startswith(".")} <= COMPOSE["volumes"].keys()


def test_prometheus_scrapes_the_node_of_the_profile_and_has_the_rules():
    config = yaml.safe_load((OPS / "prometheus/prometheus.yml").read_text())
    assert [(OPS / "prometheus" / rules).exists() for rules in config["rule_files"]] == [True]
    (job,) = config["scrape_configs"]
    ((target,),) = [one["targets"] for one in job["static_configs"]]
    host, _, port = target.partition(":")
    assert COMPOSE["services"][host]["environment"]["LOGSTORE_HTTP"].endswith(f":{port}")
    assert mounts(OBSERVERS["prometheus"]) == {"/etc/prometheus": "../ops/prometheus"}


def test_grafana_finds_prometheus_and_the_dashboard():
    provisioning = OPS / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert OBSERVERS[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/logstore.yml").read_text())["providers"]
    inside = f"{provider['options']['path']}/logstore.json"
    assert mounts(OBSERVERS["grafana"])[inside] == "../ops/grafana/logstore.json"
    assert OBSERVERS["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == inside


def test_the_profile_runs_on_an_engine_without_a_bridge_too():
    class Tagged(yaml.SafeLoader):
        """Reads what a tag of compose's stands before."""

    Tagged.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))
    host = yaml.load((ROOT / "docker/compose.host.yaml").read_text(), Tagged)["services"]
    for name, other in (("prometheus", "node"), ("grafana", "prometheus")):
        assert (host[name]["network_mode"], host[name]["ports"]) == ("host", [])
        assert host[name]["extra_hosts"] == [f"{other}:127.0.0.1"]
