"""docs/accurate_path.md names real things, and tells the steps as the code does."""

import importlib
import re
from pathlib import Path

import pytest

from batch import compact
from streaming import adopter

TOUR = (Path(__file__).parent.parent / "docs" / "accurate_path.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:logstore|streaming|batch)\.[\w.]+)`", TOUR)))


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


@pytest.mark.parametrize(("module", "title"), [(compact, "Making a snapshot"), (adopter, "Adopting it")])
def test_steps_have_the_numbers_of_the_code(module, title):
    section = TOUR.split(f"## {title}\n")[1].split("\n## ")[0]
    told = re.findall(r"^(\d)\. (\w+):", section, re.MULTILINE)
    coded = re.findall(r"^ +(\d)[. ] *(\w+) {2,}", module.__doc__, re.MULTILINE)
    assert len(told) == 5
    assert told == coded
