"""Tiers: tests are marked by what they need, and a run that costs too much fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support_tiers import TIERS

ROOT = Path(__file__).parent.parent
PROPERTIES = "tests/test_typed.py"
BUDGETED = """
import sys
sys.path.insert(0, "tests")
import pytest, support_tiers
support_tiers.TIERS["quick"] = support_tiers.TIERS["quick"]._replace(cpu_s=float(sys.argv[1]))
sys.exit(pytest.main(["--tier", "quick", "tests/test_wait.py", *sys.argv[2:]]))
"""


def run(*argv):
    # Options that whoever runs us likes (-v) would change what is printed.
    plain = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=plain
    )


@pytest.mark.parametrize("processes", ["0", "1"])  # by itself, and by what a process of xdist tells
@pytest.mark.slow
def test_a_run_that_uses_half_as_much_again_as_its_budget_fails_and_says_so(processes):
    done = run("-c", BUDGETED, "0.01", "-n", processes)
    assert (done.returncode, "5 passed" in done.stdout) == (1, True), done.stdout
    assert "EXCEEDED" in done.stdout
    done = run("-c", BUDGETED, "100", "-n", processes)
    assert (done.returncode, "5 passed" in done.stdout) == (0, True), done.stdout
    assert "limit 150" in done.stdout
    assert "EXCEEDED" not in done.stdout


def test_a_tier_in_which_no_test_runs_is_no_success():
    assert run("-m", "pytest", "--tier", "rest", "tests/test_wait.py").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.slow
def test_properties_run_again_where_they_have_more_examples():
    few, many = (run("-m", "pytest", "--tier", tier, "--collect-only", "-q", PROPERTIES) for tier in ("test", "rest"))
    assert "test_typed.py::test_what_json_can_say_comes_back" in many.stdout, many.stdout
    assert set(many.stdout.splitlines()[:2]) < set(few.stdout.splitlines())
    assert TIERS["rest"].examples > TIERS["test"].examples


MARKED = {
    "test_lane.py::test_the_broker_dies_and_comes_back": {"kafka", "slow"},  # by a fixture
    "test_ddl.py::test_a_store_that_was_never_started_says_how_to_start_one": {"kafka"},  # by itself
    "test_crash.py::test_a_whole_node_is_killed_again_and_again": {"store"},  # by a helper's class
    "test_demo.py::test_the_store_ends_with_a_demo_that_is_killed": {"store"},  # by a program's name
    "test_table.py::test_an_adopted_topic_is_read_and_outlives_its_table": {"dev"},  # the shared one
    "test_demo.py::test_verdicts_of_ranges_add_up": set(),
}
MARKS = """
import json, sys
import pytest

class Marks:
    def pytest_collection_finish(self, session):
        print()
        print(json.dumps({item.nodeid: [mark.name for mark in item.iter_markers()] for item in session.items}))

sys.exit(pytest.main(["--collect-only", "-q", "-m", "", *sys.argv[1:]], [Marks()]))
"""


def test_a_test_is_marked_by_what_it_uses():
    done = run("-c", MARKS, *(f"tests/{name}" for name in MARKED))
    assert done.returncode == 0, done.stdout
    (found,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {name: set(found[f"tests/{name}"]) for name in MARKED} == MARKED
