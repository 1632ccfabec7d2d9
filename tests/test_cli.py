import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from pyarrow import parquet

from logstore.cli.load import READERS, key_maker
from logstore.cli.main import status_of
from logstore.log import topics
from logstore.log.registry import Registry
from logstore.model.errors import BadKey, LogUnreachable, NoSuchTable, SetupError, UsageError


class Dev:
    """A running `logstore dev`, and a way to call the command against it."""

    def __init__(self, data: Path, *more: str) -> None:
        self.data, self._err = data, data.with_suffix(".err")
        argv = [
            sys.executable,
            "-m",
            "logstore.cli.main",
            "dev",
            "--data-dir",
            str(data),
            "--http",
            "127.0.0.1:0",
            "--kafka-heap-mb",
            "256",
        ]
        self.began_s = time.monotonic()
        with self._err.open("wb") as err:
            self.process = subprocess.Popen([*argv, *more], stdout=subprocess.PIPE, stderr=err)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr
        self.ready_s = time.monotonic() - self.began_s
        self.facts: dict[str, Any] = orjson.loads(line)

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def __call__(self, *argv: str, stdin: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = call(*argv, stdin=stdin, LOGSTORE_BOOTSTRAP=self.facts["bootstrap"], LOGSTORE_URL=self.facts["http"])
        assert done.returncode == status, (argv, done.returncode, done.stderr.decode())
        assert b"Traceback" not in done.stderr
        return done

    def json(self, *argv: str, **more: Any) -> Any:
        return orjson.loads(self(*argv, "--json", **more).stdout)

    def pids(self) -> dict[str, Any]:
        return orjson.loads((self.data / "run" / "node.json").read_bytes())

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


def call(*argv: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "logstore.cli.main", *argv],
        input=stdin,
        capture_output=True,
        timeout=90,
        check=False,
        env=os.environ | environ,
    )


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 40) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    running = Dev(tmp_path_factory.mktemp("cli") / "data")
    yield running
    running.end()


@pytest.fixture(scope="module")
def users(dev: Dev) -> str:
    dev("table", "create", "users", "--partitions", "2")
    return "users"


# Rows


def test_dev_says_that_it_is_ready_in_one_line_of_json(dev):
    facts = dev.facts
    assert facts["ready"] is True
    assert facts["data_dir"] == str(dev.data)
    assert facts["http"].startswith("http://127.0.0.1:")
    assert all(psutil.pid_exists(pid) for pid in (facts["pids"]["node"], facts["pids"]["kafka"]))
    assert (len(facts["pids"]["workers"]), len(facts["pids"]["readers"])) == (1, 2)
    assert f"export LOGSTORE_BOOTSTRAP={facts['bootstrap']} LOGSTORE_URL={facts['http']}" in dev.stderr


def test_what_is_put_can_be_got_byte_by_byte(dev, users, tmp_path):
    written = dev.json("put", users, "ada", "Ada Lovelace")
    assert written.keys() == {"table", "partition", "offset", "token"}
    assert written["token"].endswith(f"-{written['partition']}-{written['offset'] + 1}")
    assert dev("get", users, "ada", "--token", written["token"]).stdout == b"Ada Lovelace"

    blob = bytes(range(256)) * 3
    token = dev.json("put", users, "blob", "-", stdin=blob)["token"]
    assert dev("get", users, "blob", "--token", token).stdout == blob
    assert dev.json("get", users, "blob")["value"]["base64"]

    (tmp_path / "in").write_bytes(blob[::-1])
    token = dev.json("put", users, "file", "--file", str(tmp_path / "in"), "--header", "by=test")["token"]
    assert dev("get", users, "file", "--token", token, "--output", str(tmp_path / "out")).stdout == b""
    assert (tmp_path / "out").read_bytes() == blob[::-1]


def test_keys_that_are_no_text_are_written_as_base64url(dev, users):
    token = dev.json("put", users, "_wB6", "odd", "--key-encoding", "base64url")["token"]
    assert dev("get", users, "_wB6", "--key-encoding", "base64url", "--token", token).stdout == b"odd"
    assert b"_wB6\n" in dev("scan", users, "--keys-only", "--key-encoding", "base64url").stdout
    assert b"not base64url" in dev("get", users, "!", "--key-encoding", "base64url", status=2).stderr


def test_a_deleted_row_is_gone_with_status_1(dev, users):
    dev("put", users, "gone", "x")
    token = dev.json("delete", users, "gone")["token"]
    missing = dev("get", users, "gone", "--token", token, status=1)
    assert missing.stdout == b""
    assert missing.stderr == b"logstore: there is no row 'gone' in table 'users'\n"


def test_a_scan_is_in_key_order_and_bounded(dev):
    dev("table", "create", "scanned", "--partitions", "3")
    for key in ("b2", "a1", "b1", "c1"):
        token = dev.json("put", "scanned", key, key.upper())["token"]
    del token
    eventually(lambda: dev("scan", "scanned", "--keys-only").stdout.count(b"\n") == 4, "all rows are visible")
    assert dev("scan", "scanned").stdout == b"a1\tA1\nb1\tB1\nb2\tB2\nc1\tC1\n"
    assert dev("scan", "scanned", "--prefix", "b", "--reverse", "--keys-only").stdout == b"b2\nb1\n"
    assert dev("scan", "scanned", "--start", "b1", "--end", "c1", "--limit", "1").stdout == b"b1\tB1\n"
    rows = [orjson.loads(line) for line in dev("scan", "scanned", "--json").stdout.splitlines()]
    assert [(row["key"], row["value"]) for row in rows] == [("a1", "A1"), ("b1", "B1"), ("b2", "B2"), ("c1", "C1")]


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["put", "users", "k"], 2, "give the value once"),
        (["put", "users", "k", "v", "--file", "x"], 2, "give the value once"),
        (["put", "users", "k", "--file", "/no/such/file"], 2, "cannot read /no/such/file"),
        (["put", "users", "k", "v", "--header", "x"], 2, "--header wants NAME=VALUE"),
        (["put", "users", "", "v"], 2, "1 to 65,535 bytes"),
        (["put", "nowhere", "k", "v"], 1, "there is no table 'nowhere'; `logstore table list`"),
        (["get", "nowhere", "k"], 1, "there is no table 'nowhere'"),
        (["get", "users", "k", "--token", "rubbish"], 2, "not a token"),
        (["get", "users", "k", "--deadline-ms", "99999"], 2, "--deadline-ms: wants a whole number from 1 to 30,000"),
        (["get", "users", "k", "--url", "http://127.0.0.1:1"], 1, "does not answer"),
        (["put", "users", "k", "v", "--bootstrap", "127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["scan", "users", "--prefix", "a", "--start", "b"], 2, "either prefix, or start and end"),
        (["status", "--url", "http://127.0.0.1:1"], 1, "does not answer"),
        (["table", "create", "Upper"], 2, "not a table name: 'Upper'"),
        (["table", "create", "t", "--partitions", "0"], 2, "1 to 1,024 partitions"),
        (["table", "create", "t", "--topic", "x", "--partitions", "3"], 2, "leave --partitions"),
        (["table", "create", "t", "--topic-config", "x"], 2, "--topic-config wants NAME=VALUE"),
        (["table", "create", "users"], 1, "there is a table 'users' already"),
        (["table", "alter", "users"], 2, "nothing to change"),
        (["table", "alter", "users", "--partitions", "9"], 2, "--partitions is fixed at creation"),
        (["table", "alter", "users", "--topic-config", "retention.ms=5"], 2, "old mutations would be deleted"),
        (["table", "drop", "users"], 2, "say --yes"),
        (["table", "repair", "users"], 2, "say --partition P"),
        (["table", "repair", "users", "--partition", "9"], 2, "partitions 0 to 1, not 9"),
        (["table", "repair", "users", "--partition", "0", "--skip", "a..b"], 2, "--skip wants FIRST..LAST"),
        (["table", "repair", "users", "--new-epoch"], 2, "no new epoch"),
        (["frobnicate"], 2, "there is no command 'frobnicate'; there are put, get"),
        (["put"], 2, "Missing argument 'TABLE'; see `logstore put --help`"),
        (["status", "--colour"], 2, "No such option"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_what_to_do(dev, users, argv, status, says):
    done = dev(*argv, status=status)
    assert done.stdout == b""
    assert done.stderr.startswith(b"logstore: ")
    assert done.stderr.count(b"\n") == 1
    assert says in done.stderr.decode()


def test_a_command_without_a_store_says_how_to_get_one(tmp_path):
    done = call("put", "users", "k", "v", LOGSTORE_DATA_DIR=str(tmp_path), LOGSTORE_BOOTSTRAP="")
    assert done.returncode == 2
    assert b"--bootstrap HOST:PORT or set LOGSTORE_BOOTSTRAP; `logstore dev`" in done.stderr


def test_the_node_that_runs_on_the_data_directory_is_found_without_being_named(dev, users):
    environ = {"LOGSTORE_DATA_DIR": str(dev.data), "LOGSTORE_BOOTSTRAP": "", "LOGSTORE_URL": ""}
    written = call("put", users, "found", "here", "--json", **environ)
    token = orjson.loads(written.stdout)["token"]
    assert call("get", users, "found", "--token", token, **environ).stdout == b"here"


def test_a_reader_that_went_away_is_no_error(dev, users):
    dev("put", users, "pipe", "x" * 100_000)
    with subprocess.Popen(
        [sys.executable, "-m", "logstore.cli.main", "scan", users, "--url", dev.facts["http"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as scan:
        assert scan.stdout is not None
        assert scan.stderr is not None
        scan.stdout.close()
        assert scan.stderr.read() == b""
        assert scan.wait(30) == 1


# Tables


def test_a_tables_life(dev):
    created = dev.json("table", "create", "life", "--partitions", "3", "--description", "short", "--topic-config", "segment.ms=700000")
    assert (created["partitions"], created["topic"], created["adopted"]) == (3, "life", False)
    assert "life" in [table["name"] for table in dev.json("table", "list")["tables"]]
    assert dev.json("table", "alter", "life", "--description", "shorter")["description"] == "shorter"
    described = dev.json("table", "describe", "life")
    assert (described["description"], described["findings"], described["epoch"]) == ("shorter", [], created["epoch"])
    dev("put", "life", "k", "v")

    assert dev.json("table", "drop", "life", "--yes")["dropped"] is True
    assert dev("get", "life", "k", status=1).stderr.startswith(b"logstore: there is no table 'life'")
    again = dev.json("table", "create", "life", "--partitions", "1")
    assert again["former_epochs"] == [created["epoch"]]
    assert dev("get", "life", "k", status=1).stderr.startswith(b"logstore: there is no row 'k'")


def test_a_created_table_is_served_when_the_command_returns(dev):
    for i in range(3):
        name = f"now-{i}"
        dev("table", "create", name)
        dev("get", name, "k", status=1)
        token = dev.json("put", name, "k", "v")["token"]
        assert dev("get", name, "k", "--token", token).stdout == b"v"
        dev("table", "drop", name, "--yes")


def test_an_adopted_topic_is_read_and_outlives_its_table(dev):
    registry = Registry(dev.facts["bootstrap"])
    topics.create(registry.admin, "theirs", 1, 1, {"retention.ms": "604800000"})
    producer = Producer({"bootstrap.servers": registry.bootstrap})
    producer.produce("theirs", b"value", b"key")
    assert producer.flush(20) == 0

    done = dev("table", "create", "adopted", "--topic", "theirs")
    assert b"warning: retention.ms is 604800000, should be -1" in done.stderr
    assert dev("get", "adopted", "key").stdout == b"value"
    assert b"its topic theirs stays" in dev("table", "drop", "adopted", "--yes").stdout
    assert topics.epoch_of(registry.admin, "theirs")


def test_a_partition_that_a_transaction_stopped_is_repaired(dev):
    dev("table", "create", "stopped", "--partitions", "1")
    producer = Producer({"bootstrap.servers": dev.facts["bootstrap"], "transactional.id": "t"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("stopped", b"value", b"key")
    producer.commit_transaction(30)
    eventually(lambda: [p["state"] for p in dev.json("status")["partitions"] if p["table"] == "stopped"] == ["stopped"], "it stops")
    assert b"table repair stopped" in dev("get", "stopped", "key", status=1).stderr
    assert dev.json("doctor", status=1)["ok"] is False

    refused = dev("table", "repair", "stopped", "--partition", "0", stdin=b"n\n", status=1)
    assert b"1..1" in refused.stdout
    assert b"nothing was changed" in refused.stderr
    assert b"hold 1 records" in dev("table", "repair", "stopped", "--partition", "0", "--skip", "0..1", "--yes", status=2).stderr
    dev("table", "repair", "stopped", "--partition", "0", stdin=b"y\n")
    assert dev("get", "stopped", "key").stdout == b"value"
    assert b"nothing is missing" in dev("table", "repair", "stopped", "--partition", "0").stderr


def test_a_topic_that_was_created_again_is_accepted_when_told(dev):
    before = dev.json("table", "create", "again", "--partitions", "1")["epoch"]
    registry = Registry(dev.facts["bootstrap"])
    topics.delete(registry.admin, "again")
    eventually(lambda: topics.epoch_of(registry.admin, "again") is None, "it is gone")
    assert topics.create(registry.admin, "again", 1, 1, topics.wal_settings(1_000_000, 1))
    eventually(lambda: topics.epoch_of(registry.admin, "again"), "it is back")
    assert b"--new-epoch" in dev("table", "repair", "again", "--partition", "0", status=1).stderr
    dev("table", "repair", "again", "--new-epoch", "--yes")
    assert dev.json("table", "describe", "again")["former_epochs"] == [before]
    token = dev.json("put", "again", "k", "v")["token"]
    assert dev("get", "again", "k", "--token", token).stdout == b"v"


# Loading

ROWS = [{"id": i, "name": f"n{i}", "score": i / 2} for i in range(1, 26)]


def files(folder: Path) -> dict[str, Path]:
    paths = {kind: folder / f"rows.{kind}" for kind in ("csv", "jsonl", "parquet")}
    paths["csv"].write_text("id,name,score\n" + "".join(f"{r['id']},{r['name']},{r['score']}\n" for r in ROWS))
    paths["jsonl"].write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in ROWS))
    parquet.write_table(pa.Table.from_pylist(ROWS), paths["parquet"])
    return paths


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_row_of_a_file_becomes_a_row(dev, tmp_path, kind):
    table = f"load-{kind}"
    dev("table", "create", table, "--partitions", "2")
    summary = dev.json("load", table, str(files(tmp_path)[kind]), "--key", "{name}/{id:03d}", "--batch", "10")
    assert summary["rows"] == len(ROWS)
    found = [orjson.loads(line) for line in dev("scan", table, "--json", "--token", summary["token"]).stdout.splitlines()]
    assert {row["key"]: orjson.loads(row["value"]) for row in found} == {f"{r['name']}/{r['id']:03d}": r for r in ROWS}


def test_some_columns_only(dev, users, tmp_path):
    token = dev.json("load", users, str(files(tmp_path)["csv"]), "--key", "row-{id}", "--value-columns", "score,name")["token"]
    assert dev("get", users, "row-3", "--token", token).stdout == b'{"score":1.5,"name":"n3"}'


@pytest.mark.parametrize(
    ("name", "content", "key", "says"),
    [
        ("a.csv", "id,v\n1,2\n", "{nr}", "'nr' is no column; there are id, v"),
        ("a.csv", "id,v\n,2\n", "{id}", "'id' has no value"),
        ("a.csv", "id,v\n1,2,3\n", "{id}", "cannot be read as CSV"),
        ("a.csv", "id,v\nx,2\n", "{id:03d}", "Unknown format code 'd'"),
        ("a.csv", "id,v\n1,2\n", "plain", "name at least one column in braces"),
        ("a.csv", "id,v\n1,2\n", "{id.real}", "nothing but columns"),
        ("a.csv", "id,v\n1,2\n", "{id", "expected '}'"),
        ("a.jsonl", '{"id": 1}\nnot json\n', "{id}", "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "{id}", "line 1 is no JSON object"),
        ("a.parquet", "hello", "{id}", "cannot be read as Parquet"),
        ("a.txt", "hello", "{id}", "cannot tell what a.txt is"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(dev, users, tmp_path, name, content, key, says):
    (tmp_path / name).write_text(content)
    assert says in dev("load", users, str(tmp_path / name), "--key", key, status=2).stderr.decode()


def test_a_file_is_read_in_batches_and_text_stays_text(tmp_path):
    (tmp_path / "a.csv").write_text("zip,n\n" + "".join(f"0{i:04d},1\n" for i in range(1000)))
    with (tmp_path / "a.csv").open("rb") as file:
        batches = list(READERS["csv"](file, 300, True))
    assert [len(batch) for batch in batches] == [300, 300, 300, 100]
    assert batches[0][7] == {"zip": "00007", "n": "1"}
    assert key_maker("{zip}")(batches[0][7]) == "00007"


# Looking


def test_status_shows_nodes_tables_and_partitions(dev, users):
    found = dev.json("status")
    assert [node["url"] for node in found["nodes"]] == [dev.facts["http"]]
    mine = [row for row in found["partitions"] if row["table"] == users]
    assert [(row["partition"], row["state"], row["group"]) for row in mine] == [(0, "live", "default"), (1, "live", "default")]
    text = dev("status").stdout.decode()
    assert dev.facts["http"] in text
    assert f"{users}\t0\tdefault\tlive" in text


def test_status_counts_what_is_in_quarantine(dev):
    dev("table", "create", "dirty", "--partitions", "1")
    producer = Producer({"bootstrap.servers": dev.facts["bootstrap"]})
    producer.produce("dirty", b"no key", None, partition=0)
    assert producer.flush(20) == 0
    counts = eventually(
        lambda: [table["quarantined"] for table in dev.json("status")["tables"] if table["name"] == "dirty" and table["quarantined"]],
        "it counts",
    )
    assert sum(counts[0].values()) == 1
    assert b"table dirty: 1 records are in quarantine" in dev("status").stderr


def test_doctor_finds_a_setting_that_loses_data_and_says_how_to_change_it(dev):
    dev("table", "create", "ill")
    registry = Registry(dev.facts["bootstrap"])
    topics.set_settings(registry.admin, "ill", {"retention.ms": "60000"})
    found = dev.json("doctor", status=1)
    (check,) = [check for check in found["checks"] if check["what"] == "table ill"]
    assert check["state"] == "fail"
    assert "`logstore table alter ill --topic-config retention.ms=-1` changes it" in check["found"]
    dev("table", "alter", "ill", "--topic-config", "retention.ms=-1")
    assert [c["state"] for c in dev.json("doctor")["checks"] if c["what"] == "table ill"] == ["ok"]


def test_versions_are_known_without_a_store():
    assert orjson.loads(call("version", "--json").stdout)["logstore"] == "0.1.0"
    assert call("--version").stdout == b"logstore 0.1.0\n"


def test_help_is_quick_and_loads_no_command():
    code = (
        "import sys; from logstore.cli.main import main\ntry: main(['-h'])\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert "Examples:" in done.stdout
    assert not {"confluent_kafka", "httpx", "pyarrow", "rich", "uvicorn", "faust"} & set(done.stderr.split())


def test_a_bug_is_one_line_and_a_trace_only_when_asked_for(tmp_path):
    code = "import click, sys\nfrom logstore.cli import main as m\n@m.cli.command()\ndef boom(): raise RuntimeError('inside')\n"
    code += "m._MODULES['boom'] = 'x'; m.LazyGroup.get_command = lambda *_: boom; m.main(['boom'])"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert plain.returncode == 1
    assert plain.stderr == "logstore: RuntimeError: inside; LOGSTORE_DEBUG=1 shows where\n"
    traced = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"LOGSTORE_DEBUG": "1"}
    )
    assert "Traceback" in traced.stderr


def test_the_exit_status_tells_the_callers_words_from_the_rest():
    wrong = [UsageError("x"), BadKey(0)]
    rest = [NoSuchTable("t"), SetupError("x"), LogUnreachable("x")]
    assert [status_of(error) for error in wrong + rest] == [2, 2, 1, 1, 1]


# What dies


def test_a_killed_kafka_worker_or_reader_is_back_and_nothing_is_lost(dev, users):
    dev("put", users, "before", "1")
    for kind in ("readers", "workers", "kafka"):
        before = dev.pids()
        victim = before["kafka"] if kind == "kafka" else before[kind][0]
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda kind=kind, before=before: dev.pids()[kind] not in (before[kind], None, []) and dev.pids()[kind], f"{kind} are back"
        )
        token = dev.json("put", users, f"after-{kind}", "2")["token"]
        assert dev("get", users, f"after-{kind}", "--token", token, "--deadline-ms", "30000").stdout == b"2"
    assert dev.pids()["bootstrap"] == dev.facts["bootstrap"]
    assert dev("get", users, "before").stdout == b"1"


def test_a_warm_start_is_quick_and_has_everything(tmp_path):
    data = tmp_path / "data"
    first = Dev(data)
    first("table", "create", "kept")
    first("put", "kept", "k", "v")
    children = [psutil.Process(pid) for pid in (first.facts["pids"]["kafka"], *first.facts["pids"]["workers"])]
    first.process.kill()  # not in order
    first.end()
    assert psutil.wait_procs(children, timeout=10)[1] == []

    second = Dev(data)
    try:
        print(f"cold {first.ready_s:.1f} s, warm {second.ready_s:.1f} s")
        assert second.ready_s < 10
        assert second.facts["bootstrap"] == first.facts["bootstrap"]
        assert second("get", "kept", "k").stdout == b"v"
    finally:
        second.end()
    assert second.process.returncode == 0


def test_a_data_directory_in_use_is_refused(dev):
    done = call("dev", "--data-dir", str(dev.data), "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert f"already (process {dev.facts['pids']['node']})".encode() in done.stderr


def test_serving_beyond_this_machine_is_refused(tmp_path):
    done = call("dev", "--data-dir", str(tmp_path / "d"), "--http", "0.0.0.0:0")
    assert done.returncode == 1
    assert b"--insecure" in done.stderr


def test_a_log_that_was_cut_off_below_is_shown_by_repair(dev):
    dev("table", "create", "cut", "--partitions", "1")
    registry = Registry(dev.facts["bootstrap"])
    for i in range(3):
        dev("put", "cut", f"k{i}", "v")
    for future in registry.admin.delete_records([TopicPartition("cut", 0, 2)]).values():
        future.result(10)
    (missing,) = dev.json("table", "repair", "cut", "--partition", "0", "--yes")["missing"]
    assert (missing["first"], missing["last"]) == (0, 1)
    assert "deleted from the log's beginning" in missing["why"]
