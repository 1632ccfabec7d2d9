"""Start of commands: what takes long to import is imported where it is used."""

import subprocess
import sys

import pytest

HEAVY = {"numpy", "pyarrow", "pandas", "pyspark", "faust", "fsspec", "rich", "uvicorn", "lmdb"}
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
     "table create --help", "table list --help", "table describe --help", "batch --help"],
)  # fmt: skip
def test_a_command_imports_no_more_than_it_needs(command):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()], capture_output=True, timeout=60, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert HEAVY & set(done.stderr.split()) == set()
