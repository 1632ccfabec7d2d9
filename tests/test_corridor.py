"""The tour in docs/corridor.md names real things, in the order the code does them."""

import importlib
import re
from pathlib import Path

import pytest

from logstore.view import view

TOUR = (Path(__file__).parent.parent / "docs" / "corridor.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:logstore|streaming|batch)\.[\w.]+)`", TOUR)) - {"logstore.slots", "logstore.tables"})


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_the_tour_is_there(name):
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"{name} is nowhere")


def test_the_steps_of_a_commit_are_told_as_the_code_tells_them():
    told = re.findall(r"^\d\. (.+)$", TOUR, re.MULTILINE)
    coded = [line for _, line in re.findall(r"^ +(\d)\. (.+)$", view.__doc__, re.MULTILINE)]
    joined = " ".join(re.sub(r"\s+", " ", line) for line in coded)
    assert len(told) == 5
    assert [line.split(":")[0][:20] in joined for line in told] == [True] * 5


def test_the_tour_stops_at_every_folder_of_the_corridor():
    assert {name.split(".")[1] for name in NAMES if name.startswith("logstore.")} >= {"client", "log", "model", "view", "serve"}
