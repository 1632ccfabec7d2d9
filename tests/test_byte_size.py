"""Sizes in bytes, with a unit or without, wherever an option or a setting takes them."""

import pytest
from click.testing import CliRunner

from batch.cli.group import batch
from logstore import settings
from logstore.cli import options
from logstore.cli.main import cli
from logstore.model.errors import UsageError
from logstore.settings import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 << 30), ("8 gib", 8 << 30), (" 512MiB ", 512 << 20), ("64KiB", 64 << 10), ("1TiB", 1 << 40),
        ("2PiB", 2 << 50), ("8GB", 8_000_000_000), ("1kB", 1_000), ("3M", 3_000_000), ("1B", 1), ("7", 7), ("0", 0),
    ],
)  # fmt: skip
def test_a_size_is_a_number_with_a_unit_or_without(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "8XB", "-1", "1.5GiB", "8iB", "8i", "8GiBB", "1e9", "8  GiB", "٣", "9" * 19]
)
def test_what_is_no_size_says_what_is_one(text):
    with pytest.raises(ValueError, match="wants a size such as 8GiB"):
        parse_size(text)


def test_a_task_may_be_given_its_bytes_with_a_unit(monkeypatch):
    monkeypatch.setenv("LOGSTORE_TASK_BYTES", "2GiB")
    assert settings.load().task_bytes == 2 << 30
    assert settings.load({"task_bytes": 5}).task_bytes == 5
    for wrong in ("0", "8XB", "16PiB"):
        monkeypatch.setenv("LOGSTORE_TASK_BYTES", wrong)
        with pytest.raises(UsageError, match="LOGSTORE_TASK_BYTES"):
            settings.load()


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (batch, ["compact", "t", "--bootstrap", "127.0.0.1:1", "--task-bytes"]),
        (cli, ["table", "create", "t", "--bootstrap", "127.0.0.1:1", "--max-value-bytes"]),
    ],
)
def test_options_of_bytes_take_units(command, argv):
    wrong = CliRunner().invoke(command, [*argv, "8XB"])
    assert (wrong.exit_code, "wants a size such as 8GiB" in wrong.output) == (2, True)
    assert options.BYTES.convert("1MiB", None, None) == options.BYTES.convert(1 << 20, None, None) == 1 << 20
