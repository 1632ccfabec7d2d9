"""Needs of a test: what has to run for it, found by following the names that its code uses.

From the test and its fixtures on, functions and classes of the tests are followed into those that they name, down to
what starts something. So nobody marks a test by hand, and a test that begins to use a broker is marked from then on.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parent
STARTERS = {  # module and name of what starts something -> the need of a test that uses it
    "logstore.broker.embedded.EmbeddedKafka": "kafka",
    "batch.session.session": "spark",
    "batch.engine.spark.SparkEngine": "spark",
    "support_spark.drive": "spark_alone",
    "support_store.Running": "store",
    "support_store.pasted": "store",
    "support_dev.Dev": "store",
}
MODULES = {"examples.flights": "store", "examples.notebook": "spark_alone"}  # run with -m -> the need of who does
CODE = {"from pyspark.sql import SparkSession\n": "spark_alone"}  # a line of a program run with -c -> likewise
SHARED = {"dev": "dev"}  # a fixture that shares what it starts with the whole session -> the need that stands for it
NEEDS = ("kafka", "spark", "spark_alone", "dev", "store")


def needs(item: pytest.Item) -> set[str]:
    """The needs of one collected test."""
    found: set[str] = set()
    for definitions in item._fixtureinfo.name2fixturedefs.values():  # type: ignore[attr-defined]  # pytest has no public way
        for definition in definitions:
            if definition.argname in SHARED:
                found.add(SHARED[definition.argname])
            else:
                found |= _needs_of(definition.func)
    return found | _needs_of(item.function)  # type: ignore[attr-defined]  # all items here are functions


@functools.cache
def _needs_of(function: Any) -> frozenset[str]:
    """Looked up once for all tests that use a fixture, and all parameters of a test."""
    found: set[str] = set()
    _follow(function, found, set())
    return frozenset(found)


def _follow(thing: Any, found: set[str], seen: set[int]) -> None:
    thing = getattr(thing, "__wrapped__", thing)  # what a decorator such as contextmanager stands for
    if id(thing) in seen:
        return
    seen.add(id(thing))
    need = STARTERS.get(_name(thing))
    if need is not None:
        found.add(need)
    elif _is_ours(thing):
        for function in _functions(thing):
            needs_of_texts, things = _uses(function)
            found |= needs_of_texts
            for used in things:
                _follow(used, found, seen)


@functools.cache
def _uses(function: FunctionType) -> tuple[frozenset[str], tuple[Any, ...]]:
    """The needs that its texts stand for, and what to follow; looked up once for all who come by here."""
    found: set[str] = set()
    things: list[Any] = []
    for used in _used(function, list(_codes(function.__code__))):
        if isinstance(used, str):
            found.update(need for module, need in MODULES.items() if module == used)
            found.update(need for line, need in CODE.items() if line in used)
        elif _leads_on(used):
            things.append(used)
    return frozenset(found), tuple(things)


def _leads_on(thing: Any) -> bool:
    thing = getattr(thing, "__wrapped__", thing)
    return _name(thing) in STARTERS or _is_ours(thing)


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}".removeprefix("tests.")


def _is_ours(thing: Any) -> bool:
    name = getattr(thing, "__module__", None)
    return isinstance(name, str) and _is_test_module(name)


@functools.cache
def _is_test_module(name: str) -> bool:
    return Path(getattr(sys.modules.get(name), "__file__", None) or "/").is_relative_to(TESTS)


def _functions(thing: Any) -> Iterator[FunctionType]:
    """The function itself, or the methods of a class and of its bases."""
    if isinstance(thing, FunctionType):
        yield thing
    elif isinstance(thing, type):
        for base in thing.__mro__:
            members = vars(base).values() if _is_ours(base) else ()
            plain = (getattr(member, "__func__", getattr(member, "fget", member)) for member in members)
            yield from (member for member in plain if isinstance(member, FunctionType))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _used(function: FunctionType, codes: Sequence[CodeType]) -> Iterator[Any]:
    """Its texts, and the values of the global names that it uses; of a module, those that it may use of it."""
    for code in codes:
        yield from (constant for constant in code.co_consts if isinstance(constant, str))
    names = {name for code in codes for name in code.co_names}
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if isinstance(value, ModuleType):
            yield from (vars(value)[inner] for inner in names & vars(value).keys())
        else:
            yield value
