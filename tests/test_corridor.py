"""The tour in docs/corridor.md names real things, in the order the code does them."""

import re

import pytest
from support_tour import DOCS, assert_is_there, named_in

from logstore.view import view

TOUR = (DOCS / "corridor.md").read_text()
NAMES = sorted(named_in(TOUR) - {"logstore.slots", "logstore.tables"})


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_the_tour_is_there(name):
    assert_is_there(name)


def test_the_steps_of_a_commit_are_told_as_the_code_tells_them():
    told = re.findall(r"^\d\. (.+)$", TOUR, re.MULTILINE)
    coded = [line for _, line in re.findall(r"^ +(\d)\. (.+)$", view.__doc__, re.MULTILINE)]
    joined = " ".join(re.sub(r"\s+", " ", line) for line in coded)
    assert len(told) == 5
    assert [line.split(":")[0][:20] in joined for line in told] == [True] * 5


def test_the_tour_stops_at_every_folder_of_the_corridor():
    assert {name.split(".")[1] for name in NAMES if name.startswith("logstore.")} >= {
        "client",
        "log",
        "model",
        "view",
        "serve",
    }
