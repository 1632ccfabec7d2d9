"""Start of commands: what takes long to import is imported where it is used."""

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from logstore.cli.main import cli

HEAVY = {"numpy", "pyarrow", "pandas", "pyspark", "faust", "fsspec", "rich", "structlog", "uvicorn", "lmdb"}
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
    ["--version", "--help", "put --help", "get --help", "scan --help", "count --help", "table --help",
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


def test_help_of_a_change_shows_what_stays():
    said = CliRunner().invoke(cli, ["table", "alter", "--help"]).output
    options = re.findall(r"^  --(description|allow|compression|block|keep).*?(?=^  -)", said, re.MULTILINE | re.DOTALL)
    assert len(options) == 5
    assert said.count("[default: unchanged]") == 5
    assert "[default: 3]" in CliRunner().invoke(cli, ["table", "create", "--help"], terminal_width=200).output
