from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from logstore.cli.load import READERS, key_maker

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
    found = [
        orjson.loads(line) for line in dev("scan", table, "--json", "--token", summary["token"]).stdout.splitlines()
    ]
    assert {row["key"]: orjson.loads(row["value"]) for row in found} == {f"{r['name']}/{r['id']:03d}": r for r in ROWS}


def test_some_columns_only(dev, users, tmp_path):
    token = dev.json("load", users, str(files(tmp_path)["csv"]), "--key", "row-{id}", "--value-columns", "score,name")[
        "token"
    ]
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
