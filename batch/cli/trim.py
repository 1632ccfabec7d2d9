"""`logstore batch trim`: delete the part of a log that snapshot and archive hold."""

from typing import TYPE_CHECKING

import click

from batch.cli.options import with_context
from logstore.cli import show
from logstore.cli.options import AS_JSON
from logstore.cli.table_names import table_names

if TYPE_CHECKING:
    from batch.context import Context


@click.command()
@with_context
@click.argument("table", shell_complete=table_names)
@click.option("--yes", is_flag=True, help="Delete; without it, only say what would go.")
@click.option("--adopted-too", is_flag=True, help="Although the topic was adopted, and others may read it.")
@AS_JSON
def trim(ctx: "Context", table: str, yes: bool, adopted_too: bool, as_json: bool) -> None:
    """Delete the log below the current snapshot.

    The current snapshot, the one before and the archive are read back first, and have to be sound.
    """
    from batch.jobs.trim import trim as run  # noqa: PLC0415 - only who needs it waits for its import

    done = run(ctx, ctx.table(table), yes=yes, adopted_too=adopted_too)
    if as_json:
        show.as_json(done.document())
        return
    what = "deleted" if yes else "would go (nothing was deleted; --yes does)"
    click.echo(
        f"table {table}: {done.records:,} records below {done.document()['position']} {what}; snapshot {done.snapshot} "
        "stands for them"
    )
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
