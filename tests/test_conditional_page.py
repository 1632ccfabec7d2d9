"""docs/conditional_writes.md: its examples run as they stand, and its words are those of the code."""

import re
from pathlib import Path

import pytest
import support_page
from support_page import examples, matches

from logstore import Outcome
from logstore.client.conditional import outcome

PAGE = (Path(__file__).parent.parent / "docs" / "conditional_writes.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def printed(dev):
    return support_page.printed(PAGE, dev.facts)


@pytest.mark.parametrize("number", range(len(examples(PAGE))))
def test_an_example_prints_what_the_page_says(printed, number):
    command, told = examples(PAGE)[number]
    assert matches(told, printed[number]), (command, printed[number])


@pytest.mark.usefixtures("printed")
def test_its_programs_run(dev, capsys, monkeypatch):
    for name, value in {"DATA_DIR": str(dev.data), "BOOTSTRAP": "", "URL": "", "DEADLINE_MS": "30000"}.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", value)
    assert len(PROGRAMS) == 3
    names: dict[str, object] = {}
    for program in PROGRAMS:
        exec(program, names)
    assert capsys.readouterr().out == "3\nTrue applied rejected\n"
    assert isinstance(names["outcome"], Outcome)
    assert names["outcome"].applied


def test_its_outcomes_are_those_that_there_are():
    told = PAGE.split("## Outcomes")[1].split("| reason |")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) == set(outcome.Word.__args__)
