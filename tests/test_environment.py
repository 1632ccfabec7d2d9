"""What lies in the folder and the environment of a user does not change what our processes run."""

import os
import pwd
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support_jobs import LEFT_BY_A_SESSION
from support_store import cli, running

from batch.session import check_name, java_home
from logstore import Store
from logstore.broker.jars import cache_dir, kafka_jars
from logstore.cli.doctor import machine
from logstore.cli.doctor.check import WARN
from logstore.model.errors import SetupError, UsageError
from logstore.node.addresses import need_bootstrap, need_url
from logstore.process import child, environment
from logstore.settings import chosen, load

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


def test_dev_runs_in_any_folder_and_environment(foreign, tmp_path, monkeypatch):
    odd = {"LC_ALL": "C", "JAVA_TOOL_OPTIONS": "-XX:+NoSuchOption", "CLASSPATH": "/x", "TMPDIR": "/nonexistent"}
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    with running("dev", tmp_path / "Münch ::#%41'", "--http", "127.0.0.1:0", "--kafka-heap-mb", "256") as node:
        assert len(node.facts["pids"]["workers"]) == 1
        store = {"LOGSTORE_BOOTSTRAP": node.bootstrap, "LOGSTORE_URL": node.url, "LOGSTORE_DEADLINE_MS": "30000"}
        cli("table", "create", "t", "--timeout", "120", **store)
        cli("put", "t", "ü", "Wert", **store)
        assert cli("get", "t", "ü", **store).stdout == "Wert"
    assert ran(tmp_path) == ""


@pytest.fixture
def nameless(monkeypatch):
    """A user whom /etc/passwd does not know, without HOME."""

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LOGSTORE_CACHE", "LOGSTORE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_a_user_without_a_home_is_told_what_to_say(nameless, tmp_path, monkeypatch):
    with pytest.raises(SetupError, match=r"no home directory.*--data-dir"):
        _ = load({}).data_dir
    assert load({}).find_data_dir() is None
    assert load({"data_dir": str(tmp_path)}).data_dir == tmp_path
    with pytest.raises(UsageError, match="--data-dir: begins with ~"):
        load({"data_dir": "~/x"})
    with pytest.raises(SetupError, match=r"no home directory.*LOGSTORE_CACHE"):
        cache_dir()
    monkeypatch.setenv("LOGSTORE_CACHE", str(tmp_path / "a:b"))
    with pytest.raises(SetupError, match=r"the path has a :"):
        kafka_jars()


def test_a_user_without_a_home_reads_from_a_url_and_writes_to_an_address(nameless, monkeypatch):
    for name in ("LOGSTORE_URL", "LOGSTORE_BOOTSTRAP"):
        monkeypatch.delenv(name, raising=False)
    settings = load({"url": "http://node:1"})
    assert (need_url(settings), need_url(load({}))) == ("http://node:1", "http://127.0.0.1:8480")
    assert need_bootstrap(load({"bootstrap": "kafka:1"})) == "kafka:1"
    with pytest.raises(UsageError, match="where is Kafka"):
        need_bootstrap(settings)
    with Store() as store, pytest.raises(UsageError, match="needs the URL of a node"):
        store.get("t", "k")
    assert {one.name: one.value for one in chosen({})}["data_dir"] is None
    assert {check.state for check in machine.examine(None) if check.what == "cache"} == {WARN}


# the right to read stays, as the Python of these tests may be root's own
AS_NOBODY = (
    "setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search", "--", sys.executable, "-m", "logstore.cli.main",
)  # fmt: skip


def as_nobody(*argv):
    """The command, of a user whom /etc/passwd does not know."""
    plain = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run([*AS_NOBODY, *argv], capture_output=True, timeout=120, check=False, env=plain, cwd="/")


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root may become somebody else")
def test_a_user_without_a_name_reads_with_a_url_alone(http_node):
    if as_nobody("version").returncode != 0:
        pytest.skip("this root may not pass on the right to read")
    http_node.rows = {b"a": b"1"}
    for argv, says in {
        ("get", "t", "a"): b"1", ("scan", "t"): b"a\t1\n", ("count", "t"): b"1\n",
        ("export", "t", "--format", "jsonl"): b'{"key":"a","value":"1"}\n',
    }.items():  # fmt: skip
        done = as_nobody(*argv, "--url", http_node.url)
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", says), argv


def test_a_user_without_a_name_is_told_that_spark_wants_one(nameless):
    with pytest.raises(SetupError, match=r"Spark runs for users with a name only.*/etc/passwd"):
        check_name()


def test_spark_s_files_that_cannot_be_kept_are_one_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOGSTORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(SetupError, match=r"cannot keep Spark's files.*LOGSTORE_CACHE"):
        java_home()


def test_settings_of_a_home_that_nobody_may_read_and_of_a_folder_that_is_gone_are_none(monkeypatch, tmp_path):
    def locked(self):
        raise PermissionError(13, "Permission denied", str(self))

    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(Path, "is_file", locked)
    assert load({"data_dir": str(tmp_path)}, {}).data_dir == tmp_path


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


SPARK = """
import os, sys
from pathlib import Path
from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from batch.session import session
before = {name: value for name, value in os.environ.items() if name != "SPARK_CONNECT_MODE_ENABLED"}
spark = session("local[1,4]")
assert before.items() <= os.environ.items()
def look(_):
    import os, sys, types
    return [(sys.path, os.environ.get("PYTHONSAFEPATH"), os.environ.get("SPARK_HOME"), types.__file__)]
print(spark.sparkContext.parallelize([1], 1).mapPartitions(look).collect())
print("sum", spark.range(3).agg(f.sum("id")).first()[0])
spark.stop()
"""


def test_spark_runs_beside_another_spark_and_in_a_folder_of_ones_own(foreign, tmp_path):
    plain = {name: value for name, value in os.environ.items() if name not in LEFT_BY_A_SESSION}
    foreign_settings = {
        "SPARK_HOME": str(tmp_path / "spark-2.4"), "SPARK_CONF_DIR": str(tmp_path), "PYSPARK_SUBMIT_ARGS": "--nonsense",
        "JAVA_TOOL_OPTIONS": "-XX:+NoSuchOption", "SPARK_REMOTE": "sc://localhost:1", "CLASSPATH": "/x",
        "SPARK_CONNECT_MODE_ENABLED": "1", "PYSPARK_PYTHON": str(tmp_path / "python2"), "LC_ALL": "C",
        "PYTHONPATH": str(foreign),
    }  # fmt: skip
    (tmp_path / "spark-defaults.conf").write_text("spark.master nonsense\n")
    program = f"import sys; sys.path.remove({str(foreign)!r})\n{SPARK}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=240, check=False,
        env=plain | foreign_settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "'1'" in done.stdout
    assert "sum 3" in done.stdout
    assert str(tmp_path) not in done.stdout
    assert ran(tmp_path) == ""


def test_the_wheel_carries_the_product_and_nothing_else(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          timeout=120, check=True)  # fmt: skip
    with zipfile.ZipFile(tmp_path / done.stdout.strip().splitlines()[-1]) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "logstore", "streaming", "batch", "pyspark_logstore",
    }  # fmt: skip
    for needed in ("logstore/py.typed", "logstore/serve/openapi.json", "logstore/broker/kafka.properties",
                   "logstore/settings.py", "pyspark_logstore/__init__.py", "logstore/spark.py"):  # fmt: skip
        assert needed in names
