"""docs/http.md: its examples run as they stand, and its lists are those of the code."""

import re
from pathlib import Path

import orjson
import pytest
import support_page
from support_page import examples, matches

from logstore.serve.read.consistency import PARAMS
from logstore.serve.read.parameters.scan_query import QUERY_PARAMS
from logstore.serve.wire.problems import WORDS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "http.md").read_text()


@pytest.fixture(scope="module")
def printed(dev):
    return support_page.printed(PAGE, dev.facts)


@pytest.mark.parametrize("number", range(len(examples(PAGE))))
def test_an_example_prints_what_the_page_says(printed, number):
    command, told = examples(PAGE)[number]
    assert matches(told, printed[number]), (command, printed[number])


def test_the_words_of_errors_are_those_of_the_readers():
    told = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", PAGE, re.MULTILINE)
    assert {word: int(status) for word, status in told} == {word: status for word, (status, _) in WORDS.items()}


def test_the_pages_are_those_of_the_interface():
    told = set(re.findall(r"`(/[\w/{}:.]+)`", PAGE.split("## Pages")[1].split("\n## ")[0]))
    described = orjson.loads((ROOT / "logstore" / "serve" / "openapi.json").read_bytes())["paths"]
    assert told == set(described)


def test_the_parameters_are_those_of_the_interface():
    levels = re.findall(r"^\| `LS-[\w-]+` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(levels) == PARAMS
    scans = PAGE.split("## Scans")[1].split("```")[0]
    assert {name for row in re.findall(r"^\| (`.+?`) \|", scans, re.MULTILINE) for name in re.findall(r"\w+", row)} == (
        QUERY_PARAMS - PARAMS
    )
