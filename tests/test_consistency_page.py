"""The page of consistency levels names a test for what it promises, and every one of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "consistency.md").read_text()


def test_every_promise_names_a_test_that_there_is():
    promises, table = PAGE.split("## Tests")
    held = dict(re.findall(r"^\| (T\d+) \| `([\w/.:]+)` \|$", table, re.MULTILINE))
    assert set(re.findall(r"\bT\d+\b", promises)) == set(held)
    for where in [*held.values(), *re.findall(r"`(tests/\w+\.py::\w+)`", table)]:
        path, _, name = where.partition("::")
        assert f"\ndef {name}(" in (ROOT / path).read_text(), where
