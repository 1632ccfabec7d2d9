"""docs/rooms.md draws the import graph as it is, and names every room."""

import re
from collections import Counter
from graphlib import CycleError

import pytest
from support_rooms import PACKAGES, PAGE, ROOT, draw_all, imports, reduced, rooms


def test_the_pictures_are_those_of_the_code():
    assert PAGE.read_text() == draw_all(PAGE.read_text()), "`python tests/support_rooms.py` draws them anew"


@pytest.mark.parametrize(
    "package",
    [
        *PACKAGES,
        "logstore.serve",
        "logstore.serve.read",
        "logstore.log",
        "logstore.cli",
        "logstore.model",
        "streaming.lane",
        "batch.jobs",
    ],
)
def test_no_two_rooms_import_each_other(package):
    assert reduced(rooms(imports(), (package,)))


def test_no_room_holds_more_files_than_can_be_looked_over():
    files = Counter(str(file.parent) for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    assert {folder: count for folder, count in files.items() if count > 13} == {}, "give one subject a room of its own"


def test_a_circle_of_rooms_is_found():
    with pytest.raises(CycleError):
        reduced({"lane": {"view"}, "view": {"lane"}})


def test_an_arrow_is_left_out_where_a_longer_way_says_the_same():
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_every_room_of_the_picture_is_told():
    told = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(), re.MULTILINE)
    drawn = rooms(imports(), ("logstore", ""))
    assert {room.removeprefix("logstore.") for room in told} == set(drawn)
