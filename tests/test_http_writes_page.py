"""docs/http_writes.md: its examples run as they stand, and its lists are those of the code."""

import re
from pathlib import Path

import orjson
import pytest
import support_page
from support_page import examples, matches

from logstore.serve.wire.problems import WORDS
from logstore.serve.writes.row_record import OPERATIONS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "http_writes.md").read_text()
INTERFACE = orjson.loads((ROOT / "logstore" / "serve" / "openapi.json").read_bytes())


@pytest.fixture(scope="module")
def printed(dev, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        return support_page.printed(PAGE, dev.facts)


@pytest.mark.parametrize("number", range(len(examples(PAGE))))
def test_an_example_prints_what_the_page_says(printed, number):
    command, told = examples(PAGE)[number]
    assert matches(told, printed[number]), (command, printed[number])


def test_the_headers_are_those_of_the_interface():
    told = {name.lower() for name in re.findall(r"^\| `([\w-]+)(?:: [^`]*)?` \|", _part("One row"), re.MULTILINE)}
    described = {one["name"].lower() for one in _put()["parameters"] if one.get("in") == "header"}
    assert told - described == {"ls-deadline", "ls-token"}
    assert described <= told


def test_the_statuses_are_those_of_the_interface():
    told = set(re.findall(r"^\| (\d+) \|", _part("One row"), re.MULTILINE))
    assert told - {"503"} <= set(_put()["responses"])
    assert {int(status) for status in told} >= {WORDS["condition-failed"][0], WORDS["invalid-write"][0]}


def test_the_fields_of_a_row_are_those_of_the_interface():
    told = {name for row in re.findall(r"^\| (`.+?`) \|", _part("Many rows"), re.MULTILINE) for name in _words(row)}
    assert told == set(INTERFACE["components"]["schemas"]["RowWrite"]["properties"])
    assert all(f"`{one}`" in _part("Many rows") for one in OPERATIONS)


def _put():
    found = INTERFACE["paths"]["/v1/tables/{table}/rows/{key}"]["put"]
    parameters = [one for one in found["parameters"] if "in" in one]
    return {**found, "parameters": parameters}


def _part(heading: str) -> str:
    return PAGE.split(f"## {heading}")[1].split("\n## ")[0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
