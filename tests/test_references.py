"""What docstrings, comments and pages point to is there: files, modules, classes."""

import ast
import functools
import re
from pathlib import Path

from support_classes import ROOT, modules, sources
from support_tour import assert_is_there

SOURCES = sources()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOREIGN = {"BuiltInPartitioner", "Utils", "Message"}  # of Kafka's and librdkafka's own code
FOREIGN_FILES = {"tables/manager.py", "worker.py"}  # of faust-streaming


@functools.cache
def index() -> dict[str, set[str]]:
    """A module's last name -> classes in modules of that name."""
    found: dict[str, set[str]] = {}
    for name, tree in modules():
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        found.setdefault(name.rpartition(".")[2], set()).update(names)
    return found


def pointed_to(path: Path) -> list[str]:
    """Everything in backticks; of a source, in its docstrings and comments."""
    text = path.read_text()
    if path.suffix == ".py":
        text = "\n".join(re.findall(r'"""(.*?)"""', text, re.DOTALL) + re.findall(r"# (.*)$", text, re.MULTILINE))
    return re.findall(r"`([^`\n]+)`", text)


def is_there(reference: str) -> bool:
    """True for what is there, and for what is no reference to a file or a class of the product."""
    if reference in FOREIGN_FILES:
        return True
    if re.fullmatch(r"[\w/-]+\.(md|py)", reference):
        return (ROOT / reference).exists() or ("/" not in reference and any(ROOT.glob(f"[lsbtd]*/**/{reference}")))
    if re.fullmatch(r"(logstore|streaming|batch)(\.\w+)+", reference) and not re.fullmatch(
        r"logstore\.[a-z]+", reference
    ):
        assert_is_there(reference)
        return True
    pairs = re.findall(r"\b([a-z_]+)\.([A-Z]\w*[a-z]\w*)", reference) if re.fullmatch(r"[\w.]+", reference) else []
    return all(name in index().get(module, ()) or name in FOREIGN for module, name in pairs)


def test_what_the_product_and_its_pages_point_to_is_there():
    missed = {
        (str(path.relative_to(ROOT)), reference)
        for path in (*SOURCES, *PAGES)
        for reference in pointed_to(path)
        if not is_there(reference)
    }
    assert missed == set()


def test_a_reference_to_what_is_gone_is_found():
    assert is_there("placement.Placement")
    assert is_there("docs/http.md")
    assert not is_there("place.Placement")
    assert not is_there("fast.py")
