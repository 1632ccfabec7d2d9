"""Output of commands, for people: help where nothing was asked for, times that can be read, values with a line end."""

import os
import pty
import subprocess
import sys

import pytest

from logstore.cli import show
from logstore.cli.table.definition import rows_of
from logstore.model.table import Table


@pytest.mark.parametrize("group", [[], ["table"], ["snapshot"], ["kafka"], ["batch"]])
def test_a_group_without_a_command_prints_its_help_line_by_line(group):
    done = _logstore(*group)
    whole = _logstore(*group, "--help")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.strip() == whole.stdout.strip()
    assert done.stderr.count(b"\n") > 6


def test_a_time_is_shown_as_one_and_other_numbers_as_numbers(capsys):
    show.fields({"created_ms": 1_795_945_698_812, "entries": 1_234_567})
    assert capsys.readouterr().out == "what\tvalue\ncreated\t2026-11-29T09:48:18.812Z\nentries\t1,234,567\n"


def test_fields_without_content_are_dashes_and_those_with_parts_are_json(capsys):
    show.fields({"base": None, "skips": {}, "former": [], "families": {"content": {"versions": 3}}, "wide": False})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "what\tvalue",
        "base\t-",
        "skips\t-",
        "former\t-",
        'families\t{"content":{"versions":3}}',
        "wide\tno",
    ]


def test_a_list_of_tables_says_what_their_rows_are():
    def made(**fields: object) -> Table:
        return Table("t", "t", "0" * 32, 2, **fields)  # type: ignore[arg-type]  # fields of several kinds, by name

    assert rows_of(made()) == "plain"
    assert rows_of(made(splits=(b"m",))) == "plain, ordered"
    assert rows_of(made(conditional=True, expiring=True)) == "conditional, expiring"
    assert rows_of(made(conditional=True, siblings=True)) == "siblings"
    assert (
        rows_of(made(conditional=True, expiring=True, wide=True, families={"a": {}}, splits=(b"m",))) == "wide, ordered"
    )


def test_a_value_ends_with_a_line_end_at_a_terminal_and_as_it_is_elsewhere():
    program = [sys.executable, "-c", "from logstore.cli import show; show.value(b'Ada')"]
    assert subprocess.run(program, stdout=subprocess.PIPE, check=True, timeout=60).stdout == b"Ada"
    ours, theirs = pty.openpty()
    try:
        subprocess.run(program, stdout=theirs, check=True, timeout=60)
        assert os.read(ours, 100) == b"Ada\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


def _logstore(*arguments):
    program = [sys.executable, "-m", "logstore.cli.main", *arguments]
    return subprocess.run(program, capture_output=True, timeout=60, check=False)
