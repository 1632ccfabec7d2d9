"""The import graph between rooms, drawn for docs/rooms.md. `python tests/support_rooms.py` draws it anew."""

import re
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "rooms.md"
PACKAGES = ("logstore", "streaming", "batch")
NAMED = "pyspark_logstore"  # one module, without rooms of its own
Graph = dict[str, set[str]]  # room -> rooms that it imports


def imports() -> Graph:
    """Module -> the product's modules that it imports."""
    graph = grimp.build_graph(*PACKAGES, NAMED, exclude_type_checking_imports=True)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def rooms(modules: Graph, inside: Iterable[str]) -> Graph:
    """The graph between the children of these packages; "" stands for the folder that they lie in."""
    found: Graph = {}
    for module, imported in modules.items():
        room = _room(module, inside)
        if room is None:
            continue
        others = {_room(other, inside) for other in imported} - {None, room}
        found.setdefault(room, set()).update(other for other in others if other is not None)
    return found


def reduced(graph: Graph) -> Graph:
    """Without the arrows that a longer way says as well. Raises CycleError when rooms import each other."""
    below: Graph = {}
    for room in TopologicalSorter(graph).static_order():
        direct = graph.get(room, set())
        below[room] = direct.union(*(below[other] for other in direct))
    return {
        room: {other for other in direct if not any(other in below[third] for third in direct - {other})}
        for room, direct in graph.items()
    }


def drawn(graph: Graph) -> str:
    """As a Mermaid flowchart."""
    arrows = [f"    {room} --> {other}" for room in sorted(graph) for other in sorted(graph[room])]
    return "\n".join(["flowchart TD", *arrows])


def _room(module: str, inside: Iterable[str]) -> str | None:
    """The child of one of the packages that a module lies in."""
    for package in inside:
        if package == "":
            top = module.partition(".")[0]
            if top != "logstore":
                return top
        elif module.startswith(f"{package}."):
            return module.removeprefix(f"{package}.").partition(".")[0]
    return None


PICTURES = {
    "Everything": ("logstore", ""),
    "Readers": ("logstore.serve",),
    "Workers": ("streaming",),
    "Jobs": ("batch",),
}


def draw_all(page: str) -> str:
    """The page with every picture as the code is now."""
    modules = imports()
    for title, inside in PICTURES.items():
        block = f"## {title}\n\n```mermaid\n{drawn(reduced(rooms(modules, inside)))}\n```"
        page, count = re.subn(rf"## {title}\n\n```mermaid\n.*?```", lambda _, block=block: block, page, flags=re.DOTALL)
        assert count == 1, f"there is no picture {title}"
    return page


if __name__ == "__main__":
    PAGE.write_text(draw_all(PAGE.read_text()))
