"""The names of code that a page of the docs speaks of."""

import importlib
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def named_in(text: str) -> set[str]:
    """Everything in backticks that begins with one of our packages."""
    return set(re.findall(r"`((?:logstore|streaming|batch)\.[\w.]+)`", text))


def assert_is_there(name: str) -> None:
    """The module, or what is in it, can be imported by that name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return
    raise AssertionError(f"{name} is nowhere")
