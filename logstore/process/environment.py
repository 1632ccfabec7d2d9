"""Environment of child processes: what is passed on to them, and what is not.

A Python child runs our modules, whatever lies in the current folder or on PYTHONPATH under the same name: it is started
with -P (`child.python`), and a folder of PYTHONPATH that has a `streaming` of its own is left out. A Java child gets no
options and no class path but ours, and names of files in UTF-8 whatever the locale.
"""

import os
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the folder our packages lie in
PACKAGES = ("logstore", "streaming", "batch")
_PYTHON = ("PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONWARNINGS")  # a shell at the end; a warning that ends a worker
JAVA = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")


def for_python(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a Python child, and of what that starts in turn."""
    found = {name: value for name, value in _of(environ).items() if name not in _PYTHON}
    path = os.pathsep.join(_usable(found.pop("PYTHONPATH", "")))
    return {**found, **({"PYTHONPATH": path} if path else {}), "PYTHONSAFEPATH": "1"}


def for_java(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a Java child."""
    found = {name: value for name, value in _of(environ).items() if name not in JAVA}
    return {**found, "LC_ALL": "C.UTF-8"}


def _of(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def _usable(path: str) -> list[str]:
    """Folders of PYTHONPATH; an empty one would be the current folder."""
    return [folder for folder in path.split(os.pathsep) if folder and not _hides_ours(Path(folder))]


def _hides_ours(folder: Path) -> bool:
    if folder.resolve() == ROOT.resolve():
        return False
    found = [PathFinder.find_spec(package, [str(folder)]) for package in PACKAGES]
    return any(spec is not None and spec.loader is not None for spec in found)  # a bare folder hides no package
