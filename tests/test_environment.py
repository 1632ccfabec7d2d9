"""What lies in the folder and the environment of a user does not change what our processes run."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support_store import running

from logstore.process import child, environment

ROOT = Path(__file__).parent.parent
LOUD = "import os; open(os.environ['LOGSTORE_TEST_RAN'], 'a').write(__file__ + '\\n')\n"
HIDING = ("streaming", "types", "batch", "logstore", "json", "faust", "pyspark", "click")


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A folder of modules with our names and Python's, which say so when they are run; it is the current one."""
    folder = tmp_path / "mine"
    for name in HIDING:
        (folder / name).mkdir(parents=True)
        for file in ("__init__.py", "__main__.py"):
            (folder / name / file).write_text(LOUD)
    monkeypatch.setenv("LOGSTORE_TEST_RAN", str(tmp_path / "ran"))
    monkeypatch.chdir(folder)
    return folder


def ran(tmp_path: Path) -> str:
    path = tmp_path / "ran"
    return path.read_text() if path.exists() else ""


def test_the_folder_that_dev_is_started_in_is_not_run(foreign, tmp_path):
    with running("dev", tmp_path / "data", "--http", "127.0.0.1:0", "--kafka-heap-mb", "256") as node:
        assert len(node.facts["pids"]["workers"]) == 1
    assert ran(tmp_path) == ""


def test_children_run_our_modules_whatever_lies_in_the_folder_and_on_the_path(foreign, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(foreign), "", str(tmp_path)]))
    for module in ("streaming", "logstore.serve", "batch"):
        with (tmp_path / "out").open("wb") as out:
            process = child.spawn(child.python(module, "--help"), output=out)
            assert process.wait(60) == 0, (tmp_path / "out").read_text()
    assert ran(tmp_path) == ""


def test_what_children_get_of_the_environment():
    given = {
        "HOME": "/h", "PYTHONPATH": os.pathsep.join(["", "/a", str(environment.ROOT)]), "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error", "JAVA_TOOL_OPTIONS": "-Xmx1k", "_JAVA_OPTIONS": "x", "CLASSPATH": "/x",
    }  # fmt: skip
    python = environment.for_python(given)
    assert python["PYTHONPATH"] == os.pathsep.join(["/a", str(environment.ROOT)])
    assert python["PYTHONSAFEPATH"] == "1"
    assert not python.keys() & {"PYTHONINSPECT", "PYTHONWARNINGS"}
    assert "PYTHONPATH" not in environment.for_python({"PYTHONPATH": ""})
    java = environment.for_java(given)
    assert java.keys() == {"HOME", "PYTHONPATH", "PYTHONINSPECT", "PYTHONWARNINGS", "LC_ALL"}


def test_the_wheel_carries_the_product_and_nothing_else(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          timeout=120, check=True)  # fmt: skip
    with zipfile.ZipFile(tmp_path / done.stdout.strip().splitlines()[-1]) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"logstore", "streaming", "batch"}
    for needed in ("logstore/py.typed", "logstore/serve/openapi.json", "logstore/broker/kafka.properties",
                   "logstore/settings.py"):  # fmt: skip
        assert needed in names
