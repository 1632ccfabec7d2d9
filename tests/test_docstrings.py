"""Docstrings that a newcomer can read: a noun of the domain is the subject, and modules are called by their names."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("logstore", "streaming", "batch")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
RIDDLE = re.compile(
    r"((Of|What|Those|Who|Whose|It|Its|This|These|That|They|Where|Which|How|As|All of|One more|Raises|Something|"
    r"Everything|Up to|(Do|Keep|Note|Open|Send|Write|Let|Take|Close|Pin|Stop|Start) it|"
    r"Why|Whom|Whoever|Only|None|Until|Once|From|Over|After|Before|At|In|On|While|When|If|"
    r"Looks|Tells|Says|Keeps|Leaves|Stands|Gives|Holds|Sends|Follows|Does|Is|Has|Thread-safe)\b(?!-)|\d+ when\b|\()"
)
# words that once named files and classes; the first word of a module's docstring is its name of today
OLD = re.compile(
    r"(Told|Shown|Asked|Asking|Tee|Seeds|Library|Helper|Followed|Catalogue|Saved|Ends|Confirm|Proof|Census|Home|Room|Leash|"
    r"Keeper|Fast|Pages|Layers|Past|Level|Reach|Gather|Listing|Served|Bases|Feeds|Voice|Truth|Witness|Extract|Job|Switch|"
    r"Point|State|Schedule|Digests|Moment|Tables|Adopted)[.:]"
)


@functools.cache
def docstrings(path):
    """(line, name, docstring) of everything in a file that has one."""
    return list(_docstrings(path))


def _docstrings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, getattr(node, "name", None), text


def test_the_packages_are_found():
    assert len(FILES) > 150


def first_lines(package, is_wrong):
    """The docstrings of a package that are wrong: where each begins, and its first line."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {name or 'module'}: {text.splitlines()[0]}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] == package
        for line, name, text in docstrings(path)
        if is_wrong(name, text)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_docstring_begins_with_a_noun_of_the_domain_or_a_verb(package):
    assert first_lines(package, lambda _, text: RIDDLE.match(text)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_docstring_says_more_than_its_name(package):
    assert first_lines(package, lambda name, text: len(text.splitlines()[0].split()) < (4 if name is None else 3)) == []


@pytest.mark.parametrize(
    "riddle", ["Why it stops.", "Only those of keys.", "Looks at who is there.", "0 when it is not."]
)
def test_the_rule_finds_a_riddle(riddle):
    assert RIDDLE.match(riddle)


def test_a_module_is_called_by_its_name_of_today():
    old = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in FILES
        for _, name, text in docstrings(path)
        if name is None and OLD.match(text)
    ]
    assert old == []
