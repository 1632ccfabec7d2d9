"""Paths that are made of names from a log or a file: below their folder, or nothing is made or removed."""

import ast
import re
from pathlib import Path

import pytest

from logstore.model.errors import Corrupted, UsageError
from logstore.model.safe_path import below, relative
from logstore.model.storage_url import check_storage_url
from logstore.model.table import Table
from logstore.snapshot.manifest import FileFacts, Manifest
from logstore.snapshot.storage import Storage
from logstore.view import paths
from streaming.control.sweep import sweep

UPWARDS = ["..", "../x", "../../x", "/etc", "a/../../b", "a/b", ".", "", "a\0b", "x" * 256, "a\\b"]
E = "e" * 32


@pytest.mark.parametrize("name", UPWARDS)
def test_a_name_that_is_not_one_step_down_makes_no_path(tmp_path, name):
    with pytest.raises(Corrupted, match="nothing is made or removed"):
        below(tmp_path, name)
    with pytest.raises(Corrupted):
        below(tmp_path, "fine", name)


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "users.2", "~", "ä"])
def test_other_names_do(tmp_path, name):
    assert below(tmp_path, "views", name) == tmp_path / "views" / name


def test_every_folder_of_a_table_is_joined_that_way(tmp_path):
    for folder in (paths.epoch_dir, paths.snapshots_dir):
        for table, epoch in (("../x", E), ("x", ".."), ("/x", E), ("x", "/tmp")):
            with pytest.raises(Corrupted):
                folder(tmp_path, table, epoch)


def test_what_a_forged_definition_names_is_not_swept(tmp_path):
    victim = tmp_path / "victim" / "e" / "0"
    victim.mkdir(parents=True)
    (victim / "file").write_text("precious")
    data_dir = tmp_path / "data"
    (data_dir / "views").mkdir(parents=True)
    with pytest.raises(Corrupted):
        sweep(data_dir, [Table("../../victim", "x", "e", 1, dropped=True)])
    assert (victim / "file").read_text() == "precious"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "..", "a/.."])
def test_a_storage_reads_and_writes_below_its_root_alone(tmp_path, path):
    (tmp_path / "x").write_text("precious")
    storage = Storage(f"file://{tmp_path}/root")
    for ask in (
        storage.read, storage.list, storage.size, storage.remove, storage.remove_tree, storage.tidy, storage.local,
        lambda path: storage.create(path, b"x"), lambda path: storage.replace(path, b"x"),
        lambda path: storage.upload(tmp_path / "x", path), lambda path: storage.fetch(path, tmp_path / "fetched"),
    ):  # fmt: skip
        with pytest.raises(Corrupted):
            ask(path)
    assert relative("a/b.sst") == "a/b.sst"
    assert sorted(child.name for child in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize(
    "wrong", [{"name": "../x"}, {"topic": "../x"}, {"epoch": ".."}, {"parent": "a/b"}, {"file": "../../x"}]
)
def test_a_manifest_whose_names_lead_out_is_damaged(wrong):
    file = FileFacts(0, wrong.pop("file", "s/0.sst"), 0, 0, b"", b"", "0" * 32)
    fields = {
        "name": "s", "table": "t", "topic": "t", "epoch": E, "partitions": 1, "max_value_bytes": 1, "kind": "compact",
        "parent": None, "created_ms": 0, "verified_ms": 0, "job": "j", "build": "b", "parts": {}, "files": [file],
    }  # fmt: skip
    with pytest.raises(Corrupted):
        Manifest.from_json(Manifest(**{**fields, **wrong}).to_json())


FORBIDDEN = [
    "http://127.0.0.1:1/b", "https://b", "ftp://b/c", "simplecache::http://b/c", "filecache::file:///b", "sftp://b",
    "memory://x", "local:///x", "github://o:r@/", "s3://KEY:SECRET@bucket/p", "s3://user@bucket", "s3://b?secret=x",
    "gs://u:p@b", "abfs://c:p@account/x", "file:///a/../../etc", "file://relative", "s3://", "nothing", "", None, 5,
    "file:///\x00", "s3://" + "x" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("url", FORBIDDEN)
def test_a_node_goes_to_no_storage_of_another_kind(url):
    with pytest.raises(UsageError):
        check_storage_url(url)


@pytest.mark.parametrize(
    "url", ["file:///a/b", "s3://bucket/p", "gs://b", "abfs://container@account.dfs.core.windows.net/p"]
)
def test_those_of_the_known_kinds_it_does(url):
    assert check_storage_url(url) == url


def test_another_scheme_is_a_setting(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="storage_schemes"):
        Storage("memory://x")
    monkeypatch.setenv("LOGSTORE_STORAGE_SCHEMES", "file,memory")
    assert Storage("memory://x").list("") == []


# folders that names of the store's own making are joined to; everything else goes through `safe_path`
ROOTS = re.compile(r"dir|director|path|folder|files|views|snapshots|parent|disk|scratch|root|place\b|home")
HERE = Path(__file__).parent.parent
ARITHMETIC = re.compile(r"(_s|_ms|_bytes|size|count|total|1e6|1000|1_000)\b")


def joins(source: Path) -> list[str]:
    """Joins of a path with what is no constant."""
    tree = ast.parse(source.read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)]
    found = [n for n in found if not isinstance(n.right, ast.Constant) and ROOTS.search(ast.unparse(n.left))]
    texts = [ast.unparse(n) for n in found if not ARITHMETIC.search(ast.unparse(n.right))]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return texts + [ast.unparse(n) for n in calls if n.func.attr == "joinpath"]


OWN = {
    "batch/failpoints.py": {"folder / point"},
    "batch/session.py": {"homes / xxh3_64_hexdigest(str(java).encode())"},
    "batch/tasks/fold.py": {"self._directory / f'run-{self._made:06d}.arrow'"},
    "logstore/cli/doctor/machine.py": {"cache_dir() / f'kafka-{VERSION}'"},
    "logstore/settings.py": {"place / FILE"},
    "logstore/model/safe_path.py": {"root.joinpath(*map(one_step, names))"},
    # names of this process's counters, of Kafka's jars in their list, of a settings file
    "logstore/view/paths.py": {
        "directory / _REACHED", "data_dir / 'run' / f'worker-{worker}.sock'", "data_dir / 'workers' / f'{worker}.json'",
    },
    "streaming/worker.py": {"config.data_dir / 'workers' / f'{config.me.worker}.faust'",
                            "self._config.data_dir / 'workers' / f'{self._config.me.worker}.faust'"},
    "logstore/serve/app.py": {"files('logstore.serve').joinpath('openapi.json')"},
    "logstore/snapshot/sst.py": {"incoming / f'{number:05d}.sst'"},
}  # fmt: skip


def test_paths_are_joined_with_names_nowhere_else():
    sources = [s for room in ("logstore", "streaming", "batch") for s in sorted((HERE / room).rglob("*.py"))]
    sources = [s for s in sources if "broker" not in s.parts]  # of its own folder and its own jars
    assert len(sources) > 100
    found = {str(s.relative_to(HERE)): set(joins(s)) for s in sources}
    wrong = {name: texts - OWN.get(name, set()) for name, texts in found.items() if texts - OWN.get(name, set())}
    assert not wrong, "join these with safe_path.below"
