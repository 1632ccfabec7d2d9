"""`logstore config show` and `logstore completion`: where settings come from, and what a shell is told."""

import os
import shutil
import socket
import subprocess

import orjson
import pytest
from click.testing import CliRunner
from support_store import LOGSTORE
from support_worker import make_table

from logstore.cli import table_names
from logstore.cli.main import cli
from logstore.cli.setup.config import unit
from logstore.settings import chosen

CANARY = "canary-7f3a"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user with a logstore.toml in the current folder, and nothing else set."""
    for name in os.environ:
        if name.startswith("LOGSTORE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*argv):
    done = CliRunner().invoke(cli, ["config", "show", *argv], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.stdout


def by_name(*argv):
    return {row.pop("name"): row for row in orjson.loads(config("--json", *argv))}


def test_every_setting_says_where_it_comes_from(here, monkeypatch):
    (here / "logstore.toml").write_text('# ours\nworkers = 2\n\nzone = "file"\nreaders = 3\n')
    monkeypatch.setenv("LOGSTORE_READERS", "4")
    found = by_name("--zone", "flag", "--log-level", "info")
    assert found["workers"] == {"value": 2, "unit": "processes", "from": f"{here}/logstore.toml, line 2"}
    assert found["readers"] == {"value": 4, "unit": "processes", "from": "environment LOGSTORE_READERS"}
    assert found["zone"] == {"value": "flag", "unit": "", "from": "option --zone"}
    assert found["fetch_mb_s"] == {"value": 200.0, "unit": "MB/s", "from": "default"}
    assert found["data_dir"]["value"].startswith(str(here))
    assert len(found) == len(chosen({}, {}, ()))
    assert "drain_s\t40.0\ts\tdefault\n" in config()


def test_no_secret_is_shown(here, monkeypatch):
    (here / "secret").write_text(CANARY)
    (here / "logstore.toml").write_text(
        f'storage = "s3://me:{CANARY}@bucket/x"\n[kafka]\nsecurity.protocol = "SASL_SSL"\nsasl.password = "{CANARY}"\n'
        f'sasl.username = "ada"\nsasl.oauthbearer.config = "secret={CANARY}"\nssl.key.password_file = "{here}/secret"\n'
    )
    monkeypatch.setenv("LOGSTORE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("LOGSTORE_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET", CANARY)
    monkeypatch.setenv("LOGSTORE_URL", f"http://me:{CANARY}@node:1")
    found = by_name()
    assert CANARY not in config() + config("--json")
    assert found["kafka.sasl.mechanism"] == {
        "value": "SCRAM-SHA-512", "unit": "", "from": "environment LOGSTORE_KAFKA_<NAME>"
    }  # fmt: skip
    assert found["kafka.sasl.username"]["value"] == "ada"
    assert found["kafka.sasl.password"] == {
        "value": "(set, not shown)", "unit": "", "from": f"{here}/logstore.toml, [kafka]"
    }  # fmt: skip
    assert (found["url"]["value"], found["storage"]["value"]) == ("http://***@node:1", "s3://***@bucket/x")


def test_a_unit_is_in_the_name():
    assert [unit(name) for name in ("fetch_mb_s", "slow_ms", "drain_s", "kafka_heap_mb", "slots", "zone")] == [
        "MB/s", "ms", "s", "MB", "", "",
    ]  # fmt: skip


def completions(words, **environ):
    done = subprocess.run(
        [LOGSTORE], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "_LOGSTORE_COMPLETE": "bash_complete", "COMP_WORDS": f"logstore {words}",
             "COMP_CWORD": str(len(words.split(" "))), **environ},
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split("\n") if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_ask(shell, tmp_path):
    done = CliRunner().invoke(cli, ["completion", shell], standalone_mode=False)
    assert done.exception is None
    assert f"_LOGSTORE_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([shell, "-n", script], check=True, timeout=60)


def test_commands_are_completed():
    assert completions("conf") == ["config"]
    assert completions("table des") == ["describe"]


@pytest.fixture
def patient(monkeypatch):
    """What a shell gets, on a machine whose cores are all taken."""
    monkeypatch.setattr(table_names, "DEADLINE_S", 60.0)
    monkeypatch.setattr(table_names, "PAGE_S", 60.0)

    def ask(begun, **given):
        context = cli.make_context("logstore", ["get"], resilient_parsing=True)
        context.params = given
        return table_names.table_names(context, cli.params[0], begun)

    return ask


def test_tables_are_asked_of_the_node(dev, users, patient, monkeypatch):
    monkeypatch.setenv("LOGSTORE_URL", "http://127.0.0.1:1")
    assert users in patient(users[0], url=dev.facts["http"])
    monkeypatch.setenv("LOGSTORE_URL", dev.facts["http"])
    assert users in patient(users)
    assert patient("nothing-begins-so") == []


def test_tables_of_a_store_without_a_node_are_asked_of_kafka(kafka, patient, monkeypatch):
    name = make_table(kafka.bootstrap).name
    monkeypatch.setenv("LOGSTORE_URL", "http://127.0.0.1:1")
    assert patient(name[:3], bootstrap=kafka.bootstrap).count(name) == 1


def test_a_silent_node_delays_nobody_and_nothing_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        found = completions("get u", LOGSTORE_URL=f"http://{where}", LOGSTORE_BOOTSTRAP=where, HOME=str(tmp_path))
    assert found == []
    assert completions("get u", LOGSTORE_URL="no url") == []
    assert completions("get u", LOGSTORE_CONFIG=str(tmp_path / "none")) == []
