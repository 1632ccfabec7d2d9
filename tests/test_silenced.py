"""A checker that is silenced is given a reason in words, and so is an `except` that takes everything."""

import re

import pytest
from support_rooms import ROOT

FILES = [path for folder in ("logstore", "streaming", "batch", "examples", "benchmarks", "tests")
         for path in sorted((ROOT / folder).rglob("*.py"))]  # fmt: skip
SILENCED = re.compile(r"# (noqa|type: ignore)\b")
REASONED = re.compile(r"# (noqa: [A-Z0-9]+(, ?[A-Z0-9]+)*|type: ignore\[[a-z-]+(, ?[a-z-]+)*\]) +[-#] *\S+ \S+")
BROAD = re.compile(r"^\s*except (Base)?Exception( as \w+)?:(?P<rest>.*)$")


def is_bare(line: str) -> bool:
    """True of a line that silences a checker without a reason."""
    return bool(SILENCED.search(line)) and not REASONED.search(line)


def is_unexplained(line: str, following: str) -> bool:
    """True of an `except` of everything that says nothing of why, and does not begin to let the error through."""
    found = BROAD.match(line)
    return bool(found) and "#" not in found["rest"] and not following.strip().startswith(("raise", "#"))


@pytest.mark.parametrize("package", ["logstore", "streaming", "batch", "examples", "benchmarks", "tests"])
def test_a_silenced_checker_has_its_reason_beside_it(package):
    bare = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] == package and path.name != "test_silenced.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if is_bare(line)
    ]
    assert bare == []


@pytest.mark.parametrize("package", ["logstore", "streaming", "batch", "examples"])
def test_who_takes_every_error_says_why(package):
    unexplained = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] == package
        for lines in [path.read_text().splitlines()]
        for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1)
        if "Exception" in line and "BaseException" not in line and is_unexplained(line, following)
    ]
    assert unexplained == []


@pytest.mark.parametrize(
    ("line", "bare"),
    [
        ("x = 1  # noqa", True),
        ("x = 1  # noqa: E731", True),
        ("x = 1  # noqa: E731 -", True),
        ("x = 1  # noqa: E731 - it is shorter", False),
        ("x = 1  # type: ignore", True),
        ("x = 1  # type: ignore[arg-type]", True),
        ("x = 1  # type: ignore[arg-type]  # untyped library", False),
        ("x = 1  # a comment", False),
    ],
)
def test_the_rule_finds_what_it_should(line, bare):
    assert is_bare(line) is bare


def test_an_except_of_everything_is_found():
    assert is_unexplained("    except Exception:", "        pass")
    assert not is_unexplained("    except Exception:  # of a callback", "        pass")
    assert not is_unexplained("    except ValueError:", "        pass")
