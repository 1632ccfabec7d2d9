"""Real files of others go through load and export and come back the same, in every format that can hold them."""

import csv
import io
import re
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from logstore.cli.rows import files
from logstore.cli.rows.files import How
from logstore.model.errors import UsageError
from tests.test_export import Pairs, read, write

PACKAGES = ("airportsdata", "bokeh_sampledata", "vega_datasets")
SHORT = {
    "airportsdata/iata_macs.csv", "bokeh_sampledata/_data/antibiotics.csv", "bokeh_sampledata/_data/routes.csv.gz",
    "bokeh_sampledata/_data/penguins.csv", "vega_datasets/_data/la-riots.csv", "vega_datasets/_data/airports.csv",
}  # fmt: skip
DAMAGED = {"bokeh_sampledata/_data/sprint.csv": "line 51"}  # quotes behind a backslash: not the CSV of RFC 4180


def found(*, every: bool = True) -> Iterator[Any]:
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None, f"{package} is not installed; `make .venv` does it"
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted([*folder.rglob("*.csv"), *folder.rglob("*.csv.gz")]):
            name = str(path.relative_to(folder.parent))
            if name not in DAMAGED and (every or name in SHORT):
                yield pytest.param(path, id=name, marks=[] if name in SHORT else pytest.mark.long)


def template_of(path: Path) -> str:
    """A key of two columns that have a value in every row."""
    rows = [place.row for place in files.rows(path, How("csv"))]
    names = [name for name in rows[0] if name and not re.search(r"[{}!:]", name) and all(row[name] for row in rows)]
    return "/".join(f"{{{name}}}" for name in names[:2])


def cells(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    text = (zlib.decompress(data, zlib.MAX_WBITS | 16) if path.suffix == ".gz" else data).decode("utf-8-sig")
    return [line for line in csv.reader(io.StringIO(text, newline="")) if line]


@pytest.mark.parametrize("path", list(found()))
def test_a_csv_file_comes_back_the_same_in_every_format(path, tmp_path):
    key = template_of(path)
    pairs = read(path, "csv", key)
    assert pairs
    back = write(pairs, tmp_path / "back.csv", "csv", key)
    assert cells(back) == cells(path)
    for kind in ("csv", "jsonl", "parquet"):
        assert read(write(pairs, tmp_path / f"columns.{kind}", kind, key), kind, key) == pairs
        assert read(write(pairs, tmp_path / f"pairs.{kind}", kind), kind) == pairs


@pytest.mark.parametrize("path", list(found()))
def test_a_parquet_file_made_of_it_comes_back_the_same(path, tmp_path):
    key = template_of(path)
    typed = arrow_csv.read_csv(path, convert_options=arrow_csv.ConvertOptions(timestamp_parsers=["no times"]))
    for at, kind in enumerate(typed.schema.types):  # a key begins with text; dates become text, as load says
        if at == 0 or pa.types.is_date(kind) or pa.types.is_time(kind):
            typed = typed.set_column(at, typed.schema.names[at], typed.column(at).cast(pa.string()))
    parquet.write_table(typed, tmp_path / "in.parquet")
    pairs: Pairs = read(tmp_path / "in.parquet", "parquet", key)
    back = write(pairs, tmp_path / "out.parquet", "parquet", key)
    assert read(back, "parquet", key) == pairs
    assert parquet.read_table(back).to_pylist() == parquet.read_table(tmp_path / "in.parquet").to_pylist()


def test_a_damaged_file_is_refused_with_its_line():
    for name, line in DAMAGED.items():
        spec = find_spec(name.split("/")[0])
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent.parent / name
        with pytest.raises(UsageError, match=f"{path.name}, {line}: cannot be read as CSV"):
            list(files.rows(path, How("csv")))


@pytest.mark.parametrize("path", [*found(every=False)][:2])
def test_a_table_of_it_is_exported_as_the_file_it_was_loaded_from(dev, tmp_path, path):
    table, key = f"trip-{zlib.crc32(path.name.encode())}", "/".join(f"{{{name}}}" for name in cells(path)[0])
    dev("table", "create", table, "--partitions", "2")
    loaded = dev.json("load", table, str(path), "--key", key)
    out = str(tmp_path / "out.csv")
    dev("export", table, "--key", key, "--token", loaded["token"], "--out", out)
    assert sorted(cells(Path(out))) == sorted(cells(path))
