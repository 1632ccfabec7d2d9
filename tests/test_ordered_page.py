"""docs/ordered_tables.md: its examples run as they stand."""

import re
from pathlib import Path

import pytest
import support_page
from support_page import examples, matches

PAGE = (Path(__file__).parent.parent / "docs" / "ordered_tables.md").read_text()
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
    for name, value in {"DATA_DIR": str(dev.data), "BOOTSTRAP": "", "URL": ""}.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", value)
    assert len(PROGRAMS) == 1
    for program in PROGRAMS:
        exec(program, {})
    assert capsys.readouterr().out == ""
