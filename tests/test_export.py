"""Load and export are inverses: what export writes, load makes the same rows of; what it cannot write, it refuses."""

import io
import random
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from logstore import Row
from logstore.cli.rows import files
from logstore.cli.rows.columns import as_it_is, key_maker, value_maker
from logstore.cli.rows.export import parquet_file
from logstore.cli.rows.export.objects import Objects
from logstore.cli.rows.export.output import output
from logstore.cli.rows.export.text_files import csv_lines, json_lines
from logstore.cli.rows.files import How
from logstore.model.errors import UsageError

KINDS = ["csv", "jsonl", "parquet"]
Pairs = list[tuple[bytes, bytes]]


def stored(pairs: Pairs) -> list[Row]:
    return [Row(key, value, 0, 0, "") for key, value in pairs]


def write(pairs: Pairs, path: Path, kind: str, template: str | None = None, *, guess_types: bool = False) -> Path:
    objects = None if template is None else Objects(template)
    with output(path) as out:
        if kind == "csv":
            out.writelines(csv_lines(stored(pairs), objects, delimiter=",", guess_types=guess_types))
        elif kind == "jsonl":
            out.writelines(json_lines(stored(pairs), objects))
        elif objects is None:
            parquet_file.write_pairs(stored(pairs), out)
        else:
            parquet_file.write_columns(stored(pairs), objects, out)
    return path


def read(path: Path, kind: str, template: str | None = None, *, guess_types: bool = False) -> Pairs:
    how = How(kind, guess_types=guess_types, empty_is_null=template is not None)
    if template is None:
        return [as_it_is(place) for place in files.rows(path, how)]
    key, value = key_maker(template), value_maker(None)
    return [(key(place), value(place)) for place in files.rows(path, how)]


ODD = [
    "",
    " ",
    "NA",
    "null",
    "007",
    "1.10",
    '"',
    '""',
    ",",
    "\n",
    "\r",
    "\r\n",
    "\ufeff",
    "\0",
    "ü€😀",
    "a\tb",
    "{}",
    "\\N",
]


@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_values_come_back_byte_by_byte(tmp_path, kind):
    rng = random.Random(7)
    texts = [*ODD, *("".join(rng.choices(ODD, k=rng.randrange(6))) for _ in range(500))]
    pairs = [(f"{text}{n}".encode(), text.encode()) for n, text in enumerate(texts)]
    if kind != "csv":
        pairs += [(b"\xff%d" % n, rng.randbytes(n)) for n in range(200)]
    assert read(write(pairs, tmp_path / "t", kind), kind) == pairs


OBJECTS = [
    {"id": 1, "name": "ada", "score": 1.5, "ok": True, "note": None},
    {"id": 2, "name": "007", "score": 1e22, "ok": False, "note": "true"},
    {"id": -3, "name": 'say "x",\r\n\ufeffü', "score": -0.0, "ok": True, "note": "NA"},
]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_come_back_with_their_types(tmp_path, kind):
    rows = OBJECTS if kind != "csv" else [{**row, "name": f"n{row['id']}", "note": None} for row in OBJECTS]
    pairs = [(b"%04d" % row["id"], orjson.dumps(row)) for row in rows]
    how = {"guess_types": kind == "csv"}
    assert read(write(pairs, tmp_path / "t", kind, "{id:04d}", **how), kind, "{id:04d}", **how) == pairs


def test_bytes_that_load_took_from_parquet_go_back_to_parquet(tmp_path):
    columns = {"id": ["a", "b", "c"], "raw": pa.array([b"text", b"\xff\x00", None])}
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    pairs = read(tmp_path / "in.parquet", "parquet", "{id}")
    back = write(pairs, tmp_path / "out.parquet", "parquet", "{id}")
    assert parquet.read_table(back).to_pydict() == pa.table(columns).to_pydict()
    assert read(back, "parquet", "{id}") == pairs


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("csv", b'{"id":"k","v":1.10}', "column v: 1.10 is no text"),
        ("csv", b'{"id":"k","v":true}', "column v: true is no text"),
        ("csv", b'{"id":"k","v":""}', "an empty text would be null in CSV"),
        ("csv", b'{"id":"k","v":[1]}', "CSV holds no lists and objects"),
        ("csv", b'{"id":"k","w":"1"}', "the columns are id, w, those of the first row id, v"),
        ("parquet", b'{"id":"k","v":1.10}', "the digits of 1.10 are more than Parquet's numbers keep"),
        ("parquet", b'{"id":"k","v":9223372036854775808}', "are more than Parquet's numbers keep"),
        ("parquet", b'{"id":"k","v":7}', "int after text, a column of Parquet has one type"),
        ("parquet", b'{"id":"k","v":{"a":1}}', "lists and objects are not written to Parquet"),
        ("parquet", b'{"v":"x","id":"k"}', "the columns are v, id"),
        ("jsonl", b'{"id": "k"}', "JSON that load would write otherwise"),
        ("jsonl", b'{"id":"other"}', "--key '{id}' makes b'other' of its columns"),
        ("jsonl", b'{"v":1}', "'id' is no column"),
        ("jsonl", b'{"id":"k","id":"k"}', "the name 'id' is there twice"),
        ("jsonl", b"Ada", "the value is no JSON"),
        ("jsonl", b'"k"', "the value is no JSON object"),
        ("jsonl", b"\xff", "the value is no JSON"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_row_and_no_file_is_left(tmp_path, kind, value, says):
    first = (b"a", b'{"id":"a","v":"x"}')
    with pytest.raises(UsageError) as refused:
        write([first, (b"k", value)], tmp_path / "out", kind, "{id}")
    assert says in str(refused.value)
    assert str(refused.value).startswith("row b'k'")
    assert list(tmp_path.iterdir()) == []


def test_csv_with_guessed_types_refuses_a_text_that_would_become_a_number(tmp_path):
    for text in ("7", "-1.5e3", "true"):
        pair = b"k", orjson.dumps({"id": "k", "v": text})
        with pytest.raises(UsageError, match="would become a number or truth value"):
            write([pair], tmp_path / "out", "csv", "{id}", guess_types=True)
        assert read(write([pair], tmp_path / "out", "csv", "{id}"), "csv", "{id}") == [pair]


def test_csv_refuses_bytes_that_are_no_text_and_says_the_way_out(tmp_path):
    for pair in ((b"k", b"\xff"), (b"\xff", b"v")):
        with pytest.raises(UsageError, match="--format jsonl writes them in base64, --format parquet as they are"):
            write([pair], tmp_path / "out", "csv")


def test_a_file_that_is_there_stays_as_it_is_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.csv"
    path.write_bytes(b"before")
    with pytest.raises(UsageError):
        write([(b"a", b"1"), (b"k", b"\xff")], path, "csv")
    assert path.read_bytes() == b"before"
    write([(b"a", b"1")], path, "csv")
    assert path.read_bytes() == b"key,value\na,1\n"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_is_written_as_its_name_says(tmp_path, suffix):
    pairs = [(b"%d" % n, b"x" * n) for n in range(1_000)]
    assert read(write(pairs, tmp_path / f"t.jsonl{suffix}", "jsonl"), "jsonl") == pairs
    assert (tmp_path / f"t.jsonl{suffix}").stat().st_size < 100_000


def test_a_parquet_file_is_written_a_row_group_at_a_time():
    out = io.BytesIO()
    parquet_file.write_pairs(iter(stored([(b"%d" % n, b"v") for n in range(50_000)])), out)
    written = parquet.ParquetFile(out)
    assert written.metadata.num_rows == 50_000
    assert written.metadata.num_row_groups == 3


# With the command


@pytest.mark.slow
def test_what_was_loaded_is_exported_and_loaded_again(dev, tmp_path):
    lines = ["id,name,empty", *(f"{n:05d},n{n},{'x' if n % 2 else ''}" for n in range(2_500))]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    for table in ("exported", "exported-again"):
        dev("table", "create", table, "--partitions", "3")
    token = dev.json("load", "exported", str(tmp_path / "in.csv"), "--key", "{id}")["token"]
    assert dev("count", "exported", "--token", token).stdout == b"2500\n"
    assert dev.json("count", "exported", "--prefix", "0001") == {"table": "exported", "rows": 10}
    wrote = dev.json("export", "exported", "--key", "{id}", "--out", str(tmp_path / "out.csv"))
    assert (wrote["rows"], wrote["file"]) == (2_500, str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "in.csv").read_bytes()
    piped = dev("export", "exported", "--as-of", token).stdout
    token = dev.json("load", "exported-again", "-", "--format", "jsonl", stdin=piped)["token"]
    assert dev("export", "exported-again", "--token", token).stdout == piped
    assert dev("scan", "exported-again").stdout == dev("scan", "exported").stdout
    assert dev("export", "exported", "--prefix", "0000", "--format", "csv", "--key", "{id}").stdout.count(b"\n") == 11


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["export", "users", "--out", "x.foo"], 2, "cannot tell what x.foo is to be"),
        (["export", "users", "--out", "x.parquet.gz"], 2, "leave the .gz or .zst out"),
        (["export", "users", "--out", "/no/such/folder/x.csv"], 2, "cannot write /no/such/folder/x.csv"),
        (["export", "users", "--out", "/tmp", "--format", "csv"], 2, "/tmp is a folder"),
        (["export", "users", "--json"], 2, "--json describes a file"),
        (["export", "users", "--guess-types"], 2, "--guess-types goes with --format csv and --key"),
        (["export", "users", "--delimiter", ";"], 2, "--delimiter goes with --format csv"),
        (["export", "users", "--format", "csv", "--delimiter", '"'], 2, "neither a quote nor a line end"),
        (["export", "nowhere"], 1, "there is no table 'nowhere'"),
        (["export", "users", "--as-of", "rubbish"], 2, "not a token"),
        (["count", "nowhere"], 1, "there is no table 'nowhere'"),
        (["load", "users", __file__, "--format", "csv", "--null", "NA"], 2, "go with --key"),
    ],
)
def test_a_wrong_call_says_what_to_do(dev, users, argv, status, says):
    failed = dev(*argv, status=status)
    assert says in failed.stderr.decode()
    assert failed.stderr.count(b"\n") == 1
    assert failed.stdout == b""


def test_a_file_of_other_columns_needs_a_key(dev, users, tmp_path):
    (tmp_path / "a.csv").write_text("id,v\n1,2\n")
    failed = dev("load", users, str(tmp_path / "a.csv"), status=2)
    assert b"the columns are id, v: say with --key how the key is made of them, such as --key '{id}'" in failed.stderr
