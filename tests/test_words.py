"""One word for one thing: docs/words.md is true, and a class name stands for one class."""

import functools
import re
from collections import Counter

import pytest
from support_classes import Defined, classes, identifiers, modules
from support_tour import DOCS, assert_is_there

LISTS = re.compile(  # lists of their own, drawn in their modules
    r"logstore\.model\.errors|logstore\.view\.feed\.(\w+_records|acknowledgement|key)"
)
PAGE = (DOCS / "words.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([\w.]+)` \| ([^|]*?) ?\|$", PAGE, re.MULTILINE)


@functools.cache
def public() -> list[Defined]:
    """The classes that the page may list."""
    return [one for one in classes() if not one.name.startswith("_") and not LISTS.fullmatch(one.module)]


def pieces(name: str) -> list[str]:
    """The words of a name, in the singular."""
    return [piece.lower().removesuffix("s") for piece in re.findall(r"[A-Z][a-z0-9]*", name)]


def has(name: str, word: str) -> bool:
    """True when the word, or its words in this order, stand in the class name."""
    wanted, found = [part.lower().removesuffix("s") for part in word.split()], pieces(name)
    return any(found[at : at + len(wanted)] == wanted for at in range(len(found)))


def test_a_class_name_stands_for_one_class():
    counted = Counter(one.name for one in classes())
    assert len(counted) > 200
    assert {name: [one.module for one in classes() if one.name == name] for name, n in counted.items() if n > 1} == {}


def test_a_word_stands_once():
    words = [word for word, *_ in ROWS]
    assert len(words) == len(set(words)) > 40


@pytest.mark.parametrize(("word", "place"), [(word, place) for word, _, place, _ in ROWS])
def test_the_place_of_a_word_is_there(word, place):
    assert_is_there(place)


@pytest.mark.parametrize(("word", "names"), [(word, names) for word, _, _, names in ROWS])
def test_classes_with_a_word_in_their_names_are_listed_with_it(word, names):
    told = set(re.findall(r"`(\w+)`", names))
    assert told == {one.name for one in public() if has(one.name, word)}


def has_one_of(name: str, words: set[str]) -> bool:
    """True when a name of Python has one of the words, or more than one of it."""
    return any({piece, piece.removesuffix("s"), piece.removesuffix("es")} & words for piece in name.lower().split("_"))


def test_no_name_has_a_word_that_was_given_up():
    table = PAGE.split("## Words that no name has")[1]
    given_up = set(re.findall(r"^\| (\w+) \| [\w ]+ \|$", table, re.MULTILINE)) - {"not"}
    assert len(given_up) >= 3
    assert has_one_of("_census", given_up)
    assert has_one_of("wishes", given_up)
    named = {(module, name) for module, tree in modules() for name in identifiers(tree)}
    assert {(module, name) for module, name in named if has_one_of(name, given_up)} == set()


def test_the_rule_finds_what_it_should():
    assert has("OpenSnapshots", "snapshot")
    assert has("LocalSnapshot", "local snapshot")
    assert has("NodeDir", "node")
    assert not has("ControlPlane", "control record")
    assert not has("Folded", "fold")
    assert Defined("Lane", "streaming.lane.lane", ("threading.Thread",)) in public()
