"""Pages of the kinds of tables (expiring, siblings, ordered): their examples and programs run as they stand."""

import functools
import re
from pathlib import Path

import pytest
import support_page
from support_page import examples, matches

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("expiring_rows", "siblings", "ordered_tables")}
EXAMPLES = [(name, number) for name, page in PAGES.items() for number in range(len(examples(page)))]


@pytest.fixture(scope="module")
def printed(dev):
    """What the commands of a page print, run once."""
    return functools.cache(lambda name: support_page.printed(PAGES[name], dev.facts))


@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_an_example_prints_what_the_page_says(printed, name, number):
    command, told = examples(PAGES[name])[number]
    assert matches(told, printed(name)[number]), (command, printed(name)[number])


@pytest.mark.parametrize("name", PAGES)
def test_its_program_runs(dev, printed, capsys, monkeypatch, name):
    printed(name)
    for variable, value in {"DATA_DIR": str(dev.data), "BOOTSTRAP": "", "URL": "", "DEADLINE_MS": "30000"}.items():
        monkeypatch.setenv(f"LOGSTORE_{variable}", value)
    programs = re.findall(r"```python\n(.*?)```", PAGES[name], re.DOTALL)
    assert len(programs) == 1
    exec(programs[0], {})
    assert capsys.readouterr().out == ""
