"""The classes that the product defines, read from its source."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("logstore", "streaming", "batch")


class Defined(NamedTuple):
    """A class at the top of a module."""

    name: str
    module: str
    bases: tuple[str, ...]


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and tree of every module of the product."""
    for path, tree in _trees():
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), tree


@functools.cache
def _trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sources()]


def sources() -> list[Path]:
    """The files of the product."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def classes() -> list[Defined]:
    """Every class that stands at the top of a module."""
    return [
        Defined(node.name, module, tuple(ast.unparse(base) for base in node.bases))
        for module, tree in modules()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]


def identifiers(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives to something: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
