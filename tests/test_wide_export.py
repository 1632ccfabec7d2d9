"""Export of wide tables: a line of JSON for each version of a cell."""

import secrets

import orjson

from logstore import RowEdit, Store


def test_the_cells_of_a_wide_table_are_lines(dev, tmp_path):
    name, out = f"export-{secrets.token_hex(4)}", tmp_path / "pages.jsonl"
    dev("table", "create", name, "--partitions", "1", "--wide", "--family", "content:versions=2", "--family", "anchor")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        for n in range(3):
            made = store.edit(name, "k", RowEdit().set("content", "html", str(n)))
        last = store.edit(name, "l", RowEdit().set("anchor", b"\xff", b"\xfe"))
    dev("export", name, "--cells", "--versions", "9", "--out", str(out), "--token", last.token)
    lines = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    times = [line.pop("timestamp") for line in lines]
    assert lines == [
        {"key": "k", "family": "content", "qualifier": "html", "version": made.offset, "value": "2"},
        {"key": "k", "family": "content", "qualifier": "html", "version": made.offset - 1, "value": "1"},
        {
            "key": "l", "family": "anchor", "qualifier": {"base64": "/w=="}, "version": last.offset,
            "value": {"base64": "/g=="},
        },
    ]  # fmt: skip
    assert all(isinstance(one, int) for one in times)
    for argv, status, says in (
        (("export", name, "--out", str(out), "--token", last.token), 1, "export --cells"),
        (("export", name, "--cells", "--format", "csv"), 2, "--cells writes JSON lines"),
    ):
        refused = dev(*argv, status=status)
        assert says in refused.stderr.decode()
