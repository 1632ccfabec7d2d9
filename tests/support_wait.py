"""Waiting for what a test asserts."""

import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 90.0  # on a machine whose cores are all taken; one that is free needs a fraction of it
SHARE, CALM = 20, 5  # looks get rarer: by a twentieth of the wait so far, until there is a fifth of them


def until(what: str, condition: Callable[[], T], timeout_s: float = PATIENCE_S, *, every_s: float = 0.02) -> T:
    """The first true value of `condition`.

    After `timeout_s` seconds the test fails, with what it waited for and what the last look saw. The first looks are
    `every_s` seconds apart; later ones are rarer, as a look costs those whom it asks, and they are what is waited for.
    """
    began = time.monotonic()
    deadline = began + timeout_s
    while not (found := condition()):
        if time.monotonic() >= deadline:
            found, seen = _last_look(condition)
            assert found, f"after {timeout_s} s still not: {what}; seen last: {seen}"
            return found
        time.sleep(max(every_s, min((time.monotonic() - began) / SHARE, every_s * CALM)))
    return found


def _last_look(condition: Callable[[], T]) -> tuple[T, str]:
    """Look once more; returns what it found, and the values of the calls that it was made of."""
    codes = set(_codes(getattr(condition, "__code__", None)))
    seen: list[str] = []

    def note(frame: FrameType, event: str, value: Any) -> None:
        name, caller = frame.f_code.co_name, frame.f_back
        if event == "return" and caller is not None and caller.f_code in codes and not name.startswith("<"):
            seen.append(f"{name}() -> {value!r:.1000}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        found = condition()
    finally:
        sys.setprofile(before)
    return found, ", ".join(seen) or repr(found)


def _codes(code: CodeType | None) -> Iterator[CodeType]:
    if code is not None:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _codes(constant)
