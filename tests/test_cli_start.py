"""Start of commands: what takes long to import is imported where it is used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import logstore
from logstore.cli.main import cli

HEAVY = {"numpy", "pyarrow", "pandas", "pyspark", "faust", "fsspec", "rich", "structlog", "uvicorn", "lmdb"}
OF_WRITERS = {"confluent_kafka", "logstore.log.kafka", "logstore.log.write.producer"}
OF_OTHERS = {"asyncio", "httpx", "ssl", "http.client", "email", "logging", "concurrent.futures", "ctypes", "subprocess",
             "tenacity", "tomllib", "msgpack", "msgspec", "encodings.idna", "xxhash", "httptools"}  # fmt: skip
OF_CLIENTS = {"logstore.client.store", "logstore.client.read.http", "httptools", "socket"}
OF_DOCUMENTS = {"json", "orjson"}
PROGRAM = """
import sys
from logstore.cli.main import cli
try:
    cli(sys.argv[1:], prog_name="logstore")
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "command",
    ["--version", "--help", "put --help", "get --help", "scan --help", "count --help", "delete --help", "incr --help",
     "append --help", "outcome --help", "edit --help", "shell --help", "config show --help", "stop --help",
     "table --help",
     "table create --help", "table alter --help", "table list --help", "table describe --help", "batch --help",
     "batch archive --help", "batch audit --help", "batch compact --help", "batch diff --help", "batch restore --help",
     "batch schedule --help", "batch trim --help"],
)  # fmt: skip
def test_a_command_imports_no_more_than_it_needs(command):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()], capture_output=True, timeout=60, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert HEAVY & set(done.stderr.split()) == set()
    if command.startswith("batch"):
        assert "confluent_kafka" not in done.stderr.split()
    elif command not in (
        "--version",
        "table create --help",
        "table alter --help",
        "table list --help",
        "table describe --help",
    ):  # which load `email`, or what asks Kafka
        assert (OF_WRITERS | OF_CLIENTS) & set(done.stderr.split()) == set()


@pytest.mark.parametrize("command", ["get t k --deadline-ms 1", "scan t --deadline-ms 1", "count t --deadline-ms 1",
                                     "status"])  # fmt: skip
def test_a_command_that_reads_imports_nothing_of_writers(command):
    """By name: what a module costs differs between machines, and with what else runs there."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split(), "--url", "http://127.0.0.1:1"],
        capture_output=True, timeout=60, text=True, check=False, env={**os.environ, "LOGSTORE_CONFIG": ""},
    )  # fmt: skip
    assert "ServerUnreachable: http://127.0.0.1:1 does not answer" in done.stderr
    unwanted = HEAVY | OF_WRITERS | OF_OTHERS | (set() if command == "status" else OF_DOCUMENTS)
    assert unwanted & set(done.stderr.split()) == set()


def test_the_package_alone_imports_nothing():
    program = "import sys; before = set(sys.modules); import logstore; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=Path(logstore.__file__).parents[1], capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["logstore"], done.stderr


def test_help_of_a_change_shows_what_stays():
    said = CliRunner().invoke(cli, ["table", "alter", "--help"]).output
    options = re.findall(
        r"^  --(description|allow|compression|block|keep|merge).*?(?=^  -)", said, re.MULTILINE | re.DOTALL
    )
    assert len(options) == 6
    assert said.count("[default: unchanged]") == 6
    assert "[default: 3]" in CliRunner().invoke(cli, ["table", "create", "--help"], terminal_width=200).output
