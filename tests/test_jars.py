import hashlib
import json
import os
import subprocess
import sys
import threading

import pytest

from logstore.broker import jars
from logstore.model.errors import SetupError

CONTENT = {"a-1.jar": b"first" * 1000, "b-2.jar": b"second" * 1000}
EXPECTED = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
DEAD_PROXY = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9 -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=9"


class Shop:
    """Where jars come from: delivers what it has, and counts."""

    def __init__(self, content=None, deliveries=None):
        self.content = content or CONTENT
        self.deliveries = deliveries or []
        self.visits = 0

    def __call__(self, folder, ivy_cache):
        self.visits += 1
        folder.mkdir()
        ivy_cache.mkdir(exist_ok=True)
        for name, content in (self.deliveries.pop(0) if self.deliveries else self.content).items():
            (folder / name).write_bytes(content)


def closed(folder, ivy_cache):
    raise SetupError("no network")


def test_the_pinned_list_is_the_broker_with_its_logging():
    names = jars.checksums()
    assert len(names) == 46
    assert f"kafka-server-{jars.VERSION}.jar" in names
    assert all(len(digest) == 64 for digest in names.values())


def test_jars_are_fetched_once_and_then_work_without_a_network(tmp_path):
    shop = Shop()
    folder = jars.ensure(tmp_path, EXPECTED, shop)
    assert {path.name: path.read_bytes() for path in folder.glob("*.jar")} == CONTENT
    assert jars.ensure(tmp_path, EXPECTED, closed) == folder
    assert shop.visits == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, f"{folder.name}.lock"]


def damage_a_byte(path):
    raw = bytearray(path.read_bytes())
    raw[7] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "harm",
    [
        damage_a_byte,
        lambda path: path.write_bytes(b"short"),
        lambda path: path.unlink(),
        lambda path: path.with_name("stranger.jar").write_bytes(b"x"),
    ],
    ids=["a bit flipped", "cut short", "gone", "a stranger beside it"],
)
def test_a_damaged_jar_is_fetched_again(tmp_path, harm):
    folder = jars.ensure(tmp_path, EXPECTED, Shop())
    harm(folder / "a-1.jar")
    with pytest.raises(SetupError, match="no network"):
        jars.ensure(tmp_path, EXPECTED, closed)
    shop = Shop()
    jars.ensure(tmp_path, EXPECTED, shop)
    assert shop.visits == 1
    assert {path.name: path.read_bytes() for path in folder.glob("*.jar")} == CONTENT


def test_a_cache_copied_from_elsewhere_is_checked_and_taken(tmp_path):
    folder = jars.ensure(tmp_path, EXPECTED, Shop())
    os.utime(folder / "a-1.jar", (1, 1))
    assert jars.ensure(tmp_path, EXPECTED, closed) == folder
    (folder / jars.STAMP).write_text('{"expected": {')
    assert jars.ensure(tmp_path, EXPECTED, closed) == folder
    assert json.loads((folder / jars.STAMP).read_text())["facts"]["a-1.jar"] == [5000, 1_000_000_000]


def test_a_bad_delivery_is_refused_and_asked_for_once_more(tmp_path):
    shop = Shop(deliveries=[CONTENT | {"b-2.jar": b"altered"}])
    jars.ensure(tmp_path, EXPECTED, shop)
    assert shop.visits == 2
    with pytest.raises(SetupError, match=r"not the pinned ones \(b-2.jar"):
        jars.ensure(tmp_path / "other", EXPECTED, Shop(content=CONTENT | {"b-2.jar": b"altered"}))


def test_what_a_killed_fetch_left_is_cleared(tmp_path):
    (tmp_path / "staging-old").mkdir()
    jars.ensure(tmp_path, EXPECTED, Shop())
    assert not (tmp_path / "staging-old").exists()


def test_two_at_once_fetch_once(tmp_path):
    started, go, shop = threading.Event(), threading.Event(), Shop()

    def slow(folder, ivy_cache):
        started.set()
        assert go.wait(30)
        shop(folder, ivy_cache)

    first = threading.Thread(target=jars.ensure, args=(tmp_path, EXPECTED, slow))
    first.start()
    assert started.wait(90)
    second = threading.Thread(target=jars.ensure, args=(tmp_path, EXPECTED, slow))
    second.start()
    go.set()
    first.join(90)
    second.join(90)
    assert shop.visits == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="LOGSTORE_CACHE"):
        jars.ensure(tmp_path / "file", EXPECTED, Shop())


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGSTORE_CACHE", str(tmp_path))
    assert jars.cache_dir() == tmp_path
    monkeypatch.delenv("LOGSTORE_CACHE")
    assert jars.cache_dir().name == "logstore"


def test_without_network_and_cache_the_real_ivy_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LOGSTORE_CACHE", str(tmp_path))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", DEAD_PROXY)
    with pytest.raises(SetupError, match=r"cannot fetch Kafka's jars: .*refused.*LOGSTORE_IVY_SETTINGS.*--bootstrap"):
        jars.kafka_jars()
    assert "Fetching Apache Kafka" in capfd.readouterr().err
    assert not (tmp_path / f"kafka-{jars.VERSION}").exists()


def test_pyspark_is_found_but_not_imported():
    code = (
        "import sys; from logstore.broker import jars; print(jars._ivy_jar().name); assert 'pyspark' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("ivy-")
