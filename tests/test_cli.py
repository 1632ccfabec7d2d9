import os
import subprocess
import sys

import orjson
import pytest
from confluent_kafka import Producer
from support_wait import until

from logstore import Store
from logstore.cli import main as cli_main
from logstore.cli.main import main, status_of
from logstore.log import topics
from logstore.log.tables.registry import Registry
from logstore.model.errors import BadKey, LogUnreachable, NoSuchTable, SetupError, UsageError
from tests.support_dev import call


def test_what_is_put_can_be_got_byte_by_byte(dev, users, tmp_path):
    written = dev.json("put", users, "ada", "Ada Lovelace")
    assert written.keys() == {"table", "partition", "offset", "token"}
    assert written["token"].endswith(f"-{written['partition']}-{written['offset'] + 1}")
    assert dev("get", users, "ada", "--token", written["token"]).stdout == b"Ada Lovelace"

    dev("put", users, "fresh", "1")
    for level in ("latest", "linearizable"):
        told = dev("get", users, "fresh", "--consistency", level, "--deadline-ms", "30000")
        assert told.stdout == b"1"
    rows = dev("scan", users, "--prefix", "fresh", "--max-lag-ms", "0", "--deadline-ms", "30000")
    assert rows.stdout == b"fresh\t1\n"

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
    until("all rows are visible", lambda: dev("scan", "scanned", "--keys-only").stdout.count(b"\n") == 4)
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
        (["get", "users", "k", "--consistency", "bounded"], 2, "the level bounded needs max_lag_ms"),
        (["scan", "users", "--consistency", "latest", "--max-lag-ms", "5"], 2, "no other level takes it"),
        (["get", "users", "k", "--max-lag-ms", "-1"], 2, "--max-lag-ms"),
        (["scan", "users", "--consistency", "strong"], 2, "--consistency"),
        (["get", "users", "k", "--deadline-ms", "99999"], 2, "--deadline-ms: wants a whole number from 1 to 30,000"),
        (["get", "users", "k", "--url", "http://127.0.0.1:1"], 1, "does not answer"),
        (["scan", "users", "--prefix", "a", "--start", "b"], 2, "either prefix, or start and end"),
        (["status", "--url", "http://127.0.0.1:1"], 1, "does not answer"),
        (["table", "create", "Upper"], 2, "not a table name: 'Upper'"),
        (["table", "create", "t", "--partitions", "0"], 2, "1 to 1,024 partitions"),
        (["table", "create", "t", "--topic", "x", "--partitions", "3"], 2, "leave --partitions"),
        (["table", "create", "t", "--topic-config", "x"], 2, "--topic-config wants NAME=VALUE"),
        (["table", "create", "users"], 1, "there is a table 'users' already"),
        (["table", "alter", "users"], 2, "nothing to change"),
        (["table", "alter", "users", "--partitions", "9"], 2, "--partitions is fixed at creation"),
        (["table", "alter", "users", "--drop-family", "f"], 2, "column family f of table users stays"),
        (["table", "alter", "users", "--add-family", "f:size=1"], 2, "--add-family 'f:size=1': write NAME"),
        (["table", "alter", "users", "--family", "f", "--family", "f"], 2, "--family f is given twice"),
        (["table", "alter", "users", "--add-family", "f"], 1, "have one value each"),
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
def test_what_cannot_be_is_one_line_that_says_what_to_do(dev, users, argv, status, says, monkeypatch, capfd):
    monkeypatch.setenv("LOGSTORE_BOOTSTRAP", dev.facts["bootstrap"])
    monkeypatch.setenv("LOGSTORE_URL", dev.facts["http"])
    with pytest.raises(SystemExit) as ended:
        main(argv)
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (status, "")
    assert err.startswith("logstore: ")
    assert err.count("\n") == 1
    assert says in err


def test_a_command_without_a_store_says_how_to_get_one(tmp_path):
    done = call("put", "users", "k", "v", LOGSTORE_DATA_DIR=str(tmp_path), LOGSTORE_BOOTSTRAP="")
    assert done.returncode == 2
    assert b"--bootstrap HOST:PORT or set LOGSTORE_BOOTSTRAP; `logstore dev`" in done.stderr


def test_the_node_that_runs_on_the_data_directory_is_found_without_being_named(dev, users, monkeypatch):
    environ = {"LOGSTORE_DATA_DIR": str(dev.data), "LOGSTORE_BOOTSTRAP": "", "LOGSTORE_URL": ""}
    written = call("put", users, "found", "here", "--json", **environ)
    token = orjson.loads(written.stdout)["token"]
    assert call("get", users, "found", "--token", token, **environ).stdout == b"here"
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with Store() as store:
        assert store.get(users, "found", after=store.put(users, "found", "by a client")).value == b"by a client"
    with Store(dev.facts["bootstrap"]) as half, pytest.raises(UsageError, match="reading needs the URL"):
        half.get(users, "found")  # the one that runs here may be another store


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


# Looking


def test_status_shows_nodes_tables_and_partitions(dev, users):
    found = dev.json("status")
    assert [node["url"] for node in found["nodes"]] == [dev.facts["http"]]
    mine = [row for row in found["partitions"] if row["table"] == users]
    assert [(row["partition"], row["state"], row["group"]) for row in mine] == [
        (0, "live", "default"),
        (1, "live", "default"),
    ]
    text = dev("status").stdout.decode()
    assert dev.facts["http"] in text
    assert f"{users}\t0\tdefault\tlive" in text


def test_status_of_one_table_that_is_well_and_a_check_of_it(dev, users):
    assert {row["table"] for row in dev.json("status", "--table", users)["partitions"]} == {users}
    assert dev.json("status", "--table", users, "--unhealthy")["partitions"] == []
    checked = dev("status", "--check", "--table", users)
    assert (checked.stdout, checked.stderr) == (b"", b"")
    assert b"there is no table" in dev("status", "--table", "none-such", status=1).stderr
    assert b"does not answer" in dev("status", "--check", "--url", "http://127.0.0.1:1", status=1).stderr
    assert b"--watch" in dev("status", "--check", "--watch", status=2).stderr


def test_status_counts_what_is_in_quarantine(dev):
    dev("table", "create", "dirty", "--partitions", "1")
    producer = Producer({"bootstrap.servers": dev.facts["bootstrap"]})
    producer.produce("dirty", b"no key", None, partition=0)
    assert producer.flush(60) == 0
    counts = until(
        "it counts",
        lambda: [
            table["quarantined"]
            for table in dev.json("status")["tables"]
            if table["name"] == "dirty" and table["quarantined"]
        ],
    )
    assert sum(counts[0].values()) == 1
    assert b"table dirty: 1 records are in quarantine" in dev("status").stderr


@pytest.mark.slow
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
        "import sys; from logstore.cli.main import main\ntry: main(['-h'])\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert "Examples:" in done.stdout
    assert not {"confluent_kafka", "httpx", "pyarrow", "rich", "uvicorn", "faust"} & set(done.stderr.split())


def test_a_bug_is_one_line_and_a_trace_only_when_asked_for(tmp_path):
    code = "import click, sys\nfrom logstore.cli import main as m\n@m.cli.command()\n"
    code += "def boom(): raise RuntimeError('inside')\n"
    code += "m.main(['boom'])"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert plain.returncode == 1
    assert plain.stderr == "logstore: RuntimeError: inside; LOGSTORE_DEBUG=1 shows where\n"
    traced = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"LOGSTORE_DEBUG": "1"},
    )
    assert "Traceback" in traced.stderr


def test_a_path_that_the_system_refuses_is_named_in_its_words(monkeypatch, capsys):
    monkeypatch.delenv("LOGSTORE_DEBUG", raising=False)
    for error, said in (
        (
            FileNotFoundError(2, "No such file or directory", b"/nowhere"),
            "logstore: /nowhere: No such file or directory;",
        ),
        (OSError(28, "No space left on device"), "logstore: OSError: [Errno 28] No space left on device;"),
    ):
        monkeypatch.setattr(cli_main.cli, "main", _raise(error))
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def _raise(error):
    def call(*_, **__):
        raise error

    return call


def test_the_exit_status_tells_the_callers_words_from_the_rest():
    wrong = [UsageError("x"), BadKey(0)]
    rest = [NoSuchTable("t"), SetupError("x"), LogUnreachable("x")]
    assert [status_of(error) for error in wrong + rest] == [2, 2, 1, 1, 1]
