"""docs/accurate_path.md names real things, and tells the steps as the code does."""

import re

import pytest
from support_tour import DOCS, assert_is_there, named_in

from batch.jobs import compact, restore
from streaming.adoption import adopter

TOUR = (DOCS / "accurate_path.md").read_text()
NAMES = sorted(named_in(TOUR))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_the_tour_is_there(name):
    assert_is_there(name)


@pytest.mark.parametrize(
    ("module", "title"), [(compact, "Making a snapshot"), (adopter, "Adopting it"), (restore, "Going back")]
)
def test_steps_have_the_numbers_of_the_code(module, title):
    section = TOUR.split(f"## {title}\n")[1].split("\n## ")[0]
    told = re.findall(r"^(\d)\. (\w+):", section, re.MULTILINE)
    coded = re.findall(r"^ +(\d)[. ] *(\w+) {2,}", module.__doc__, re.MULTILINE)
    assert len(told) == 5
    assert told == coded
