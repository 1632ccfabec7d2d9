"""What a page of the docs says of the code: names, and the ways and side rooms of a tour."""

import functools
import importlib
import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def named_in(text: str) -> set[str]:
    """Everything in backticks that begins with one of our packages."""
    return set(_names(text))


def assert_is_there(name: str) -> None:
    """The module, or what is in it, can be imported by that name."""
    module = module_of(name)
    found = importlib.import_module(module)
    for attribute in name.removeprefix(module).split(".")[1:]:
        found = getattr(found, attribute)


@functools.cache
def module_of(name: str) -> str:
    """The module that a dotted name lies in."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            if importlib.util.find_spec(".".join(parts[:end])):
                return ".".join(parts[:end])
        except ModuleNotFoundError:
            continue
    raise AssertionError(f"{name} is nowhere")


def ways_in(text: str) -> dict[str, list[str]]:
    """Who walks -> the names of the way in their order, of all stations."""
    ways: dict[str, list[str]] = {}
    for who, way in re.findall(r"^\*\*Way, ([^:]+):\*\* (.+?)\n\n", text, re.MULTILINE | re.DOTALL):
        ways.setdefault(who, []).extend(_names(way))
    return ways


def way_modules(text: str) -> set[str]:
    """The modules that the ways lead through."""
    return {module_of(name) for way in ways_in(text).values() for name in way}


def side_rooms(text: str) -> set[str]:
    """The modules that are marked as side rooms."""
    rooms = re.findall(r"^\*\*Side rooms:\*\* (.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    return {module_of(name) for name in _names("\n".join(rooms)) if name != "logstore.slots"}


def _names(text: str) -> list[str]:
    return re.findall(r"`((?:logstore|streaming|batch)\.[\w.]+)`", text)
