"""`logstore stop` and `dev --detach`: what is started in the background is ended by its own lock."""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support_classes import ROOT
from support_free_port import free_port
from support_store import LOGSTORE, pasted

from logstore.broker.jars import cache_dir, run_showing
from logstore.cli.main import cli
from logstore.cli.running import detached
from logstore.model.errors import SetupError
from logstore.node.halt import halt
from logstore.node.node_dir import NodeDir

README = (ROOT / "README.md").read_text()
HOLD = """
import signal, sys
from pathlib import Path
from logstore.node.node_dir import NodeDir
signal.signal(signal.SIGTERM, signal.SIG_DFL if sys.argv[2] == "obeys" else signal.SIG_IGN)
with NodeDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    signal.pause() if sys.argv[2] == "obeys" else [signal.pause() for _ in range(9)]
"""


@pytest.fixture
def holder():
    """Starts what holds a data directory as a node does."""
    started = []

    def start(data: Path, how: str) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(data), how], stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(90)
        process.stdout.close()


def stop(data: Path, *more: str):
    return CliRunner().invoke(cli, ["stop", "--data-dir", str(data), *more], standalone_mode=False)


def test_where_nothing_runs_nothing_is_ended(tmp_path):
    done = stop(tmp_path / "none")
    assert (done.return_value, done.stderr) == (1, f"logstore: no node runs on {tmp_path / 'none'}\n")
    assert not (tmp_path / "none").exists()


def test_a_node_is_ended_in_order_or_by_force(tmp_path, holder):
    held = holder(tmp_path / "data", "obeys")
    done = stop(tmp_path / "data")
    assert (done.return_value, held.wait(90)) == (0, -15)
    assert f"stopped the node with the process id {held.pid} (it was starting)" in done.stdout
    held = holder(tmp_path / "data", "ignores")
    halted = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logstore.node.halt.HURRY_S", 0.1)
        halted = halt(tmp_path / "data", 0.1)
    assert (halted.pid, halted.in_order, held.wait(90)) == (held.pid, False, -9)
    assert halt(tmp_path / "data", 1) is None


def test_who_does_not_hold_the_lock_is_not_ended(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        directory = NodeDir(tmp_path / "data")
        with directory.lock():
            (tmp_path / "data" / "node.lock").write_text(str(bystander.pid))  # as if it were left of another one
            with pytest.raises(SetupError, match="is held, and not by the process"):
                halt(tmp_path / "data", 1)
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n", timeout=60)


def test_options_are_passed_on():
    flags = {"data_dir": "/d", "workers": 2, "zone": None, "secure": True, "insecure": None, "log_level": ("a", "b=c")}
    assert detached.arguments(flags) == shlex.split("--data-dir /d --workers 2 --secure --log-level a --log-level b=c")


def test_a_start_that_fails_says_why(tmp_path):
    done = subprocess.run(
        [LOGSTORE, "dev", "--detach", "--data-dir", str(tmp_path / "d"), "--http", "0.0.0.0:0"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--insecure" in done.stderr
    assert f"did not start (exit status 1); what it said is above and in {tmp_path}/d/logs/dev.err" in done.stderr
    assert done.stdout == ""


FETCH = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "a.jar.part").write_bytes(b"x" * 1000)
while not (folder / "seen").exists():
    time.sleep(0.01)
print("some")
sys.exit(3)
"""


def test_a_fetch_shows_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("logstore.broker.jars.PROGRESS_S", 0.05)

    def say(so_far):
        if so_far == 1000:
            (tmp_path / "seen").touch()

    assert run_showing([sys.executable, "-c", FETCH, tmp_path], tmp_path, say) == (3, "some\n")


def test_the_quickstart_can_be_pasted_into_a_shell_of_somebody_new(tmp_path):
    (block,) = re.findall(r"## Quickstart\n\n((?:    .*\n)+)", README)
    lines = [line.strip() for line in block.splitlines()]
    assert lines[0] == "make .venv && . .venv/bin/activate"  # which is done here
    port = free_port()
    text = "\n".join(lines[1:]).replace(":8480", f":{port}")
    assert {"logstore dev --detach", "logstore stop"} <= {line.partition("#")[0].strip() for line in text.splitlines()}
    home = tmp_path / "home"
    home.mkdir()
    began_s = time.monotonic()
    done = pasted(
        text, home, LOGSTORE_CACHE=str(cache_dir()), LOGSTORE_KAFKA_PORT="0", LOGSTORE_HTTP=f"127.0.0.1:{port}",
        LOGSTORE_KAFKA_HEAP_MB="256", LOGSTORE_DEADLINE_MS="30000",
    )  # fmt: skip
    print(f"{time.monotonic() - began_s:.1f} s\n{done.stdout}\n{done.stderr}")
    assert done.returncode == 0
    assert "table users: created" in done.stdout
    assert done.stdout.count("Ada Lovelace") == 2  # of get, and of curl
    assert "HTTP/1.1 200" in done.stdout
    assert re.search(r"stopped the node with the process id \d+ \(Kafka, 1 workers, 2 readers\)", done.stdout)
    assert "Traceback" not in done.stderr
