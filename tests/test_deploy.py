"""Units for systemd and compose files: as they are, with what a person would look for in them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from support_classes import ROOT

from logstore.cli.main import cli

UNITS = sorted((ROOT / "ops" / "systemd").iterdir())
SERVICES = [path for path in UNITS if path.suffix == ".service"]
PROGRAM = "/opt/logstore/bin/logstore"
COMPOSE = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / "docker").glob("compose*.yaml")
           if path.name != "compose.host.yaml"}  # fmt: skip


def keys(path):
    """Settings of a unit, the last one of a name."""
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))


def analyze(*argv, folder):
    return subprocess.run(
        ["systemd-analyze", *argv], capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:", "LC_ALL": "C"},
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_has_no_complaint(tmp_path):
    program = Path(sys.executable)  # one that is there
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, str(program)))
    for path in UNITS:
        name = path.name.replace("@.", "@0.")
        done = analyze("verify", "--man=no", name, folder=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_service_calls_a_command_that_is_there_and_may_do_little(path):
    unit = keys(path)
    program, *words = unit["ExecStart"].split()
    command = [word for word in words if not word.startswith("-") and "%" not in word and not word[0].isdigit()]
    options = {word for word in words if word.startswith("--")}
    said = CliRunner().invoke(cli, [*[word for word in command if word != "json"], "--help"]).output
    assert program == PROGRAM
    assert options - set(re.findall(r"--[\w-]+", said)) == set()
    wanted = {"ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectHome": "yes"}
    assert wanted.items() <= unit.items()
    assert unit["User"] != "root"
    if unit["Type"] == "notify":
        assert (unit["Restart"], unit["RestartPreventExitStatus"]) == ("on-failure", "2 4")
        assert int(unit["WatchdogSec"]) > 15
        assert {"StartLimitBurst", "TimeoutStopSec", "LimitNOFILE"} <= unit.keys()


def test_a_cluster_has_three_brokers_of_which_two_acknowledge_and_two_nodes():
    services = COMPOSE["compose.cluster.yaml"]["services"]
    brokers = {name: one for name, one in services.items() if name.startswith("kafka-")}
    nodes = {name: one for name, one in services.items() if name.startswith("node-")}
    assert (len(brokers), len(nodes)) == (3, 2)
    for one in brokers.values():
        environment = one["environment"]
        assert (
            environment["KAFKA_DEFAULT_REPLICATION_FACTOR"]
            == environment["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"]
            == "3"
        )
        assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == "2"
        assert environment["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == "false"
    assert len({one["environment"]["KAFKA_NODE_ID"] for one in brokers.values()}) == 3
    assert len({one["environment"]["CLUSTER_ID"] for one in brokers.values()}) == 1
    assert len({tuple(one["volumes"]) for one in nodes.values()}) == 2


@pytest.mark.parametrize("name", COMPOSE)
def test_what_runs_is_started_again_bounded_and_looked_at(name):
    services = COMPOSE[name]["services"]
    lasting = {service: one for service, one in services.items() if service.startswith(("kafka", "node"))}
    assert lasting
    for service, one in lasting.items():
        wanted = {"restart", "mem_limit", "logging", "healthcheck", "stop_grace_period"}
        assert wanted - one.keys() == set(), service
        assert one["logging"]["options"].keys() == {"max-size", "max-file"}
    for one in services.values():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
