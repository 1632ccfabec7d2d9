"""docs/decisions/README.md lists every decision under its title."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "decisions"


def test_every_decision_is_listed_by_number_under_its_title():
    titles = {page.name: page.read_text().splitlines()[0] for page in sorted(FOLDER.glob("[0-9]*.md"))}
    told = re.findall(r"^- \[(\d{4})\]\((.+?)\) (.+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert [(number, page, f"# {title}") for number, page, title in told] == [
        (name[:4], name, title) for name, title in titles.items()
    ]


def test_no_number_is_used_twice():
    numbers = [page.name[:4] for page in FOLDER.glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers)) > 10
