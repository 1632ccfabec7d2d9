"""`logstore batch restore`: a table of any position of another one's history."""

from typing import TYPE_CHECKING

import click

from batch.cli.options import WAIT, with_context
from logstore.cli import show
from logstore.cli.options import AS_JSON
from logstore.cli.table_names import table_names

if TYPE_CHECKING:
    from batch.context import Context

SERVED_S = 30.0  # until every reader serves the new table


@click.command()
@with_context
@click.argument("table", shell_complete=table_names)
@click.option(
    "--at",
    required=True,
    metavar="TOKEN|TIME",
    help="A token that names every partition, or a time like 2026-01-31T12:00:00Z.",
)
@click.option("--as", "name", required=True, metavar="NAME", help="The new table.")
@WAIT
@AS_JSON
def restore(ctx: "Context", table: str, at: str, name: str, wait_s: float | None, as_json: bool) -> None:
    """Make a new table of what TABLE held at a point of its history. TABLE stays as it is.

    At a time means: by partition, up to the first offset whose log time is later.
    """
    from batch.jobs.await_adopted import await_adopted  # noqa: PLC0415 - only who needs it waits for its import
    from batch.jobs.restore import restore as run  # noqa: PLC0415 - only who needs it waits for its import
    from logstore.cli.table.definition import holds  # noqa: PLC0415 - only who needs it waits for its import
    from logstore.log.tables.change import Change  # noqa: PLC0415 - only who needs it waits for its import

    done = run(ctx, table, at, name)
    document = done.document()
    holds(ctx.registry, Change(done.table, done.table.revision + 1, []), SERVED_S, new=True)
    if wait_s is not None:
        document["seconds"]["adopt"] = round(await_adopted(ctx, done.table, done.manifest, wait_s), 3)
    if as_json:
        show.as_json(document)
        return
    seconds = document["seconds"]
    steps = ", ".join(f"{step} {seconds[step]:.1f}" for step in seconds)
    click.echo(
        f"table {name}: {document['entries']:,} rows, as {table} held them at {document['position']}, in "
        f"{sum(seconds.values()):.1f} s "
        f"({steps})"
    )
    show.warn(
        f"`logstore batch diff {table} {name}` compares them, `logstore table promote {name} --over {table}` puts it "
        "in its place"
    )
