import os
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet
from support_wait import until

from logstore.cli.rows.columns import key_maker, value_maker
from logstore.cli.rows.files import How, Place, kind_of, rows
from logstore.model.errors import UsageError

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
    more = ["--guess-types"] if kind == "csv" else []
    summary = dev.json("load", table, str(files(tmp_path)[kind]), "--key", "{name}/{id:03d}", "--batch", "10", *more)
    assert summary["rows"] == len(ROWS)
    found = [
        orjson.loads(line) for line in dev("scan", table, "--json", "--token", summary["token"]).stdout.splitlines()
    ]
    assert {row["key"]: orjson.loads(row["value"]) for row in found} == {f"{r['name']}/{r['id']:03d}": r for r in ROWS}


def test_rows_are_applied_on_return_where_that_is_asked_for(dev, users, tmp_path):
    for level in ("applied", "one"):
        content = "".join(f"{level}-{n},v\n" for n in range(500))
        (tmp_path / "a.csv").write_text(f"key,value\n{content}")
        dev("load", users, str(tmp_path / "a.csv"), "--level", level)
        if level == "applied":
            keys = dev("scan", users, "--prefix", "applied-", "--keys-only").stdout.splitlines()
            assert len(keys) == 500


def test_some_columns_only(dev, users, tmp_path):
    token = dev.json("load", users, str(files(tmp_path)["csv"]), "--key", "row-{id}", "--value-columns", "score,name")[
        "token"
    ]
    assert dev("get", users, "row-3", "--token", token).stdout == b'{"score":"1.5","name":"n3"}'


@pytest.mark.parametrize(
    ("name", "content", "key", "says"),
    [
        ("a.csv", "id,v\n1,2\n", "{nr}", "'nr' is no column; there are id, v"),
        ("a.csv", "id,v\n,2\n", "{id}", "'id' has no value"),
        ("a.csv", "id,v\n1,2,3\n", "{id}", "line 2: 3 fields, the first line names 2 columns"),
        ("a.csv", "id,v\nx,2\n", "{id:03d}", "Unknown format code 'd'"),
        ("a.csv", "id,v\n1,2\n", "plain", "name at least one column in braces"),
        ("a.csv", "id,v\n1,2\n", "{id.real}", "'id.real' is no column; there are id, v"),
        ("a.csv", "id,v\n1,2\n", "{id", "expected '}'"),
        ("a.jsonl", '{"id": 1}\nnot json\n', "{id}", "line 2, column 1: is not JSON"),
        ("a.jsonl", "[1]\n", "{id}", "line 1 is no JSON object"),
        ("a.parquet", "hello", "{id}", "cannot be read as Parquet"),
        ("a.txt", "hello", "{id}", "cannot tell what a.txt is"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why(dev, users, tmp_path, name, content, key, says):
    (tmp_path / name).write_text(content)
    assert says in dev("load", users, str(tmp_path / name), "--key", key, status=2).stderr.decode()


def read(path: Path | None, kind: str, **how: object) -> list[dict[str, object]]:
    return [place.row for place in rows(path, How(kind, **how))]


def test_a_quote_that_is_not_closed_and_bytes_that_are_no_text_are_found(tmp_path):
    (tmp_path / "a.csv").write_text('id,v\n1,"a\nb"\n2,"open\n3,x\n')
    with pytest.raises(UsageError, match=r"a.csv, line 5: .*; the row begins at line 4: is a quote not closed\?"):
        read(tmp_path / "a.csv", "csv")
    (tmp_path / "a.csv").write_text('"id,v\n')
    with pytest.raises(UsageError, match=r"line 1: .*the row begins at line 1"):
        read(tmp_path / "a.csv", "csv")
    (tmp_path / "a.csv").write_bytes(b"id,v\n1,M\xfcnchen\n")
    with pytest.raises(UsageError, match=r"line 2, column 4: the bytes b'\\xfc' are no utf-8; say what it is"):
        read(tmp_path / "a.csv", "csv")


def test_a_column_of_any_name_may_be_part_of_a_key():
    row = {"2009": "a", "a.b[0]": b"text", "n": 7, "x (y)": 1.5}
    assert key_maker("{2009}/{a.b[0]}{{}}{n:03d}{x (y)}")(Place(row, "here")) == b"a/text{}0071.5"
    for wrong in ("{n!r}", "{n:{n}}", "{}", "n"):
        with pytest.raises(UsageError, match="nothing but columns"):
            key_maker(wrong)
    with pytest.raises(UsageError, match=r"here: --key .*: the bytes of column 'raw' are no UTF-8: b'\\xff'"):
        key_maker("{raw}")(Place({"raw": b"\xff"}, "here"))


def test_csv_is_text_and_only_an_empty_field_is_null(tmp_path):
    path = tmp_path / "a.csv"
    text = """\ufeffid,v,w
00501,1.10,NA
501,100000000000000000001,
7,2024-01-02 03:04,"a,b"
"""
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert read(path, "csv") == [
        {"id": "00501", "v": "1.10", "w": "NA"},
        {"id": "501", "v": "100000000000000000001", "w": None},
        {"id": "7", "v": "2024-01-02 03:04", "w": "a,b"},
    ]
    assert read(path, "csv", null="NA")[0]["w"] is None
    guessed = read(path, "csv", guess_types=True)
    assert guessed[0]["id"] == "00501"  # no number of JSON
    assert [str(row["v"]) for row in guessed] == ["1.10", "100000000000000000001", "2024-01-02 03:04"]
    assert key_maker("{id:04d}")(Place(guessed[1], "")) == b"0501"


def test_a_long_quoted_field_with_line_ends_is_one_value(tmp_path):
    long = "line\n" * 600_000  # 3 MB
    (tmp_path / "a.csv").write_text(f'id,v\n1,"{long}"\n2,x\n')
    assert read(tmp_path / "a.csv", "csv") == [{"id": "1", "v": long}, {"id": "2", "v": "x"}]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_bytes_of_another_encoding_are_an_error_with_their_place_or_read_as_told(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    csv, jsonl = "id,v\n" + "x,y\n" * 50_000 + "1,München\n", '{"v": 1}\n' * 50_000 + '{"v": "München"}\n'
    path.write_bytes({"csv": csv, "jsonl": jsonl}[kind].encode("latin-1"))
    where = {"csv": "line 50002, column 4", "jsonl": "line 50001, column 9"}[kind]
    with pytest.raises(UsageError, match=f"a.{kind}, {where}: .*--encoding latin-1"):
        read(path, kind)
    assert read(path, kind, encoding="latin-1")[-1]["v"] == "München"


def test_numbers_of_json_keep_their_digits(tmp_path):
    line = b'{"a":1.10,"b":100000000000000000000000001,"c":[1e400,{"d":-0}],"e":true,"f":null}'
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    (place,) = rows(tmp_path / "a.jsonl", How("jsonl"))
    assert value_maker(None)(place) == line
    assert key_maker("{a}/{b}/{e}")(place) == b"1.10/100000000000000000000000001/true"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": 1, "a": 2}', "the name 'a' is there twice"),
        ('{"a": "\\ud800"}', "JSON cannot hold it"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_what_json_cannot_hold_is_an_error_that_names_the_line(tmp_path, line, says):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match=says):
        [value_maker(None)(place) for place in rows(tmp_path / "a.jsonl", How("jsonl"))]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_is_read_as_what_it_holds(tmp_path, suffix):
    path = tmp_path / f"a.csv{suffix}"
    with pa.CompressedOutputStream(str(path), {".gz": "gzip", ".zst": "zstd"}[suffix]) as out:
        out.write(b"id,v\n" + b"1,x\n" * 100_000)
    assert kind_of(path) == "csv"
    assert read(path, "csv") == [{"id": "1", "v": "x"}] * 100_000


def test_parquet_keeps_nanoseconds_decimals_and_the_columns_of_its_folders(tmp_path):
    folder = tmp_path / "data" / "year=2024" / "origin=New%20York"
    folder.mkdir(parents=True)
    columns = {
        "at": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "price": pa.array([Decimal("1.10")], pa.decimal128(9, 2)),
        "raw": pa.array([b"\xff"]),
    }
    parquet.write_table(pa.table(columns), folder / "part-0.parquet")
    (place,) = rows(tmp_path / "data", How("parquet"))
    assert orjson.loads(value_maker(None)(place)) == {
        "at": "2023-11-14T22:13:20.123456789", "price": "1.10", "raw": {"base64": "/w=="},
        "year": "2024", "origin": "New York",
    }  # fmt: skip
    parquet.write_table(pa.table({"x": [1.0, float("nan")]}), tmp_path / "nan.parquet")
    with pytest.raises(UsageError, match="row 2, column x: JSON has no nan; --null nan makes it null"):
        read(tmp_path / "nan.parquet", "parquet")
    assert read(tmp_path / "nan.parquet", "parquet", null="nan") == [{"x": 1.0}, {"x": None}]


@pytest.mark.parametrize(
    ("last", "says", "rows_in"),
    [
        (b"only one\n", b"line 37: 1 fields", b"30"),
        ("35,M\xfcnchen\n".encode("latin-1"), b"line 37, column 5: ", b"0"),  # text is decoded a block at a time
    ],
    ids=["a row that is none", "another encoding"],
)
def test_load_error_paths_end_without_sigabrt_late_in_a_file(dev, users, tmp_path, last, says, rows_in):
    whole = b"id,v\n" + b"".join(b"%d,x\n" % i for i in range(35))
    (tmp_path / "a.csv").write_bytes(whole + last)
    done = dev("load", users, str(tmp_path / "a.csv"), "--key", "early-{id}", "--batch", "10", status=2)
    assert says in done.stderr
    assert rows_in + b" rows are in; to run it again is safe" in done.stderr
    assert done.stderr.count(b"\n") == 1
    dry = dev("load", users, "-", "--format", "csv", "--key", "dry-{id}", "--dry-run", stdin=whole)
    assert b"35 rows could be written" in dry.stdout
    assert dev("scan", users, "--prefix", "dry-").stdout == b""


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from logstore.cli.main import main
main(sys.argv[1:])
"""


def test_ctrl_c_says_how_many_rows_are_in_and_the_next_load_finishes_it(dev, users, tmp_path):
    whole = "id,v\n" + "".join(f"{i},x\n" for i in range(35))
    argv = ["load", users, "-", "--format", "csv", "--key", "ctrl-c-{id}", "--batch", "10"]
    environ = os.environ | {"LOGSTORE_BOOTSTRAP": dev.facts["bootstrap"], "LOGSTORE_URL": dev.facts["http"]}
    scan = "scan", users, "--prefix", "ctrl-c-", "--json"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *argv], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as load:
        load.stdin.write(whole.encode())
        load.stdin.flush()  # and more may come, so that the last five rows are no batch yet
        until("three batches are in", lambda: dev(*scan).stdout.count(b"\n") == 30, timeout_s=60)
        load.send_signal(signal.SIGINT)
        said = load.stderr.read()
        assert load.wait(60) == 130, said
    # click ends the line that holds the ^C of a terminal
    assert re.fullmatch(rb"\n?logstore: stopped; (20|30) rows are in; to run it again is safe: [^\n]*\n", said), said
    (tmp_path / "again.csv").write_text(whole)
    dev("load", users, str(tmp_path / "again.csv"), *argv[5:])
    until("all rows are in", lambda: dev(*scan).stdout.count(b"\n") == 35, timeout_s=60)
