"""docs/http.md: its examples run as they stand, and its lists are those of the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from logstore.serve.read.consistency import PARAMS
from logstore.serve.read.parameters.scan_query import QUERY_PARAMS
from logstore.serve.wire.problems import WORDS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "http.md").read_text()
MARK = "===="


def examples() -> list[tuple[str, str]]:
    """(command, what it prints) of the whole page."""
    found: list[tuple[str, str]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


@pytest.fixture(scope="module")
def printed(dev):
    """What each command prints, one shell for all of them."""
    script = "".join(f"{command}\necho {MARK}\n" for command, _ in examples())
    environ = {
        "LOGSTORE_BOOTSTRAP": dev.facts["bootstrap"],
        "LOGSTORE_URL": dev.facts["http"],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script.replace("http://127.0.0.1:8480", dev.facts["http"])],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r", "").split(f"{MARK}\n")


@pytest.mark.parametrize("number", range(len(examples())))
def test_an_example_prints_what_the_page_says(printed, number):
    command, told = examples()[number]
    pattern = ".*".join(map(re.escape, told.split("...")))
    assert re.fullmatch(pattern, printed[number]), (command, printed[number])


def test_the_words_of_errors_are_those_of_the_readers():
    told = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", PAGE, re.MULTILINE)
    assert {word: int(status) for word, status in told} == {word: status for word, (status, _) in WORDS.items()}


def test_the_pages_are_those_of_the_interface():
    told = set(re.findall(r"`(/[\w/{}:.]+)`", PAGE.split("## Pages")[1].split("\n## ")[0]))
    described = orjson.loads((ROOT / "logstore" / "serve" / "openapi.json").read_bytes())["paths"]
    assert told == set(described)


def test_the_parameters_are_those_of_the_interface():
    levels = re.findall(r"^\| `LS-[\w-]+` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(levels) == PARAMS
    scans = PAGE.split("## Scans")[1].split("```")[0]
    assert {name for row in re.findall(r"^\| (`.+?`) \|", scans, re.MULTILINE) for name in re.findall(r"\w+", row)} == (
        QUERY_PARAMS - PARAMS
    )
