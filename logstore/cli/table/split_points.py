"""Split points on the command line: `--splits m,t`, or a file with one a line."""

from pathlib import Path
from typing import Any

import click

from logstore.cli import options
from logstore.model.errors import UsageError

MOST_BYTES = 1 << 20  # of a file: a definition takes far less


def with_split_points(function: Any) -> Any:
    """Add the options of ordered tables."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def split_points(ordered: bool, listed: str | None, file: Path | None, encoding: str) -> tuple[bytes, ...]:
    """The split points that were given; none: a hash table. Raises UsageError."""
    given = listed is not None or file is not None
    if given and not ordered:
        raise UsageError("split points are for ordered tables: add --ordered, or leave them out")
    if not ordered:
        return ()
    if listed is not None and file is not None:
        raise UsageError("give the split points with --splits, or with --splits-file, not with both")
    if listed is not None:
        return tuple(options.key_bytes(text, encoding) for text in listed.split(","))
    if file is not None:
        return _of_file(file, encoding)
    raise UsageError(
        "an ordered table is made with the keys at which its partitions begin: --splits m,t makes three, below m, from "
        "m and from t on; a table of one partition needs none: --partitions 1"
    )


def _of_file(file: Path, encoding: str) -> tuple[bytes, ...]:
    with file.open("rb") as opened:
        raw = opened.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise UsageError(f"{file} has more than {MOST_BYTES:,} bytes; a short prefix of each key splits as well")
    lines = raw.removesuffix(b"\n").split(b"\n")
    if encoding == "base64url":
        return tuple(options.key_bytes(line.decode("latin-1"), encoding) for line in lines)
    return tuple(lines)


_OPTIONS = (
    click.option("--ordered", is_flag=True, help="Place rows by ranges of keys, for quick scans; for good."),
    click.option(
        "--splits",
        "listed",
        metavar="KEY,KEY...",
        help="With --ordered: where partitions begin, rising; m,t makes three.",
    ),
    click.option(
        "--splits-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="With --ordered: the same from a file, a key a line.",
    ),
    options.KEY_ENCODING,
)
