"""`logstore batch diff`: rows in which two tables, or two points of one, differ."""

import sys
from typing import TYPE_CHECKING

import click

from batch.cli.options import with_context
from batch.defaults import LISTED
from logstore.cli import show
from logstore.cli.options import AS_JSON
from logstore.cli.table_names import table_names

if TYPE_CHECKING:
    from batch.context import Context
    from batch.jobs.diff import Diff
    from logstore.snapshot.work import DiffKey

_SAID = {"only_left": "only in {left}", "only_right": "only in {right}", "different": "different values"}


@click.command()
@with_context
@click.argument("left", shell_complete=table_names, metavar="A[@TOKEN|@TIME]")
@click.argument("right", shell_complete=table_names, metavar="B[@TOKEN|@TIME]")
@click.option("--limit", type=click.IntRange(0, 100_000), default=LISTED, show_default=True, help="List so many keys.")
@AS_JSON
def diff(ctx: "Context", left: str, right: str, limit: int, as_json: bool) -> None:
    """Compare the rows of two tables, now or as they were. Exit status 1 when they differ."""
    from batch.jobs.diff import diff as run  # noqa: PLC0415 - only who needs it waits for its import

    found = run(ctx, left, right, listed=limit)
    if as_json:
        show.as_json(found.document())
    else:
        _show(found, left, right)
    if not found.same:
        sys.exit(1)


def _show(found: "Diff", left: str, right: str) -> None:
    names = {"left": left, "right": right} if left != right else {"left": "the first", "right": "the second"}
    said = ", ".join(
        f"{found.counts[kind]:,} {text.format(**names)}" for kind, text in _SAID.items() if found.counts[kind]
    )
    click.echo(
        f"{left} and {right}: {found.counts['same']:,} rows are the same{'; ' + said if said else ', none differ'}"
    )
    if found.keys:
        rows = [(one.key.decode(errors="backslashreplace"), _said(one, names)) for one in found.keys]
        show.table(("key", "what"), rows)
    rest = sum(found.counts[kind] for kind in _SAID) - len(found.keys)
    if rest:
        show.warn(f"and {rest:,} more; --limit lists them")


def _said(one: "DiffKey", names: dict[str, str]) -> str:
    said = _SAID[one.kind].format(**names)
    return f"{said}: {', '.join(one.cells)}" if one.cells else said
