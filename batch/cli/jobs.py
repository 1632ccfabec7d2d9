"""`logstore batch archive`, `compact` and `rebuild`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batch.cli.options import WAIT, with_context
from logstore.cli import show
from logstore.cli.options import AS_JSON
from logstore.cli.table_names import table_names
from logstore.model.errors import LogStoreError

if TYPE_CHECKING:
    from batch.context import Context
    from batch.jobs.compact import Compacted
    from logstore.model.table import Table


@click.command()
@with_context
@click.argument("table", shell_complete=table_names)
@click.option("--verify", is_flag=True, help="Archive nothing; read all that is archived back.")
@click.option("--repair", is_flag=True, help="Cut the archive back to what is whole, where the log holds the rest.")
@AS_JSON
def archive(ctx: "Context", table: str, verify: bool, repair: bool, as_json: bool) -> None:
    """Copy a table's log to Parquet, from where the last run ended. Safe to kill and to run again."""
    from batch.jobs import archive as archiving  # noqa: PLC0415 - only who needs it waits for its import

    definition = ctx.table(table)
    if repair:
        mended = archiving.repair_archive(ctx, definition)
        if as_json:
            show.as_json(
                {"table": table, "repaired": mended.replaced, "segments": mended.segments, "given_up": mended.given_up}
            )
        elif mended.replaced:
            click.echo(
                f"table {table}: {mended.given_up:,} files given up, {mended.segments:,} are whole; `logstore batch "
                "archive "
                f"{table}` copies the rest from the log again"
            )
        else:
            click.echo(f"table {table}: the archive is whole, nothing was changed")
        return
    if verify:
        found = archiving.verify_archive(ctx, definition)
        if as_json:
            show.as_json({"table": table, "verified": True, **found})
        else:
            click.echo(
                f"table {table}: {found['records']:,} records in {found['segments']:,} files, all as their manifests "
                "say"
            )
        return
    done = archiving.archive(ctx, definition).document()
    if as_json:
        show.as_json({"table": table, **done})
        return
    seconds = sum(done["seconds"].values())
    click.echo(
        f"table {table}: {done['records']:,} records archived in {seconds:.1f} s, {done['records_per_s']:,} records/s, "
        f"{done['size_bytes'] / 1e6:,.1f} MB"
    )


@click.command()
@with_context
@click.argument("tables", shell_complete=table_names, metavar="TABLE...", nargs=-1, required=True)
@click.option(
    "--verify",
    type=click.Choice(["new", "full"]),
    default="new",
    show_default=True,
    help="Which files are read back: those that are made, or those that are kept, too.",
)
@click.option("--full", is_flag=True, help="Merge the deltas with their base, however small they are.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append a line of JSON to this file when a table's turn begins, and when it ends.",
)
@WAIT
@AS_JSON
def compact(
    ctx: "Context", tables: tuple[str, ...], verify: str, full: bool, journal: Path | None, wait_s: float | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a snapshot of the one before and the log since. Writes go on meanwhile; nodes adopt it by themselves.

    What has changed becomes a delta upon the snapshot before; deltas that have grown too large (`table alter
    --merge-share`) are merged with their base.

    Several tables one after the other: what fails for one is said at the end, and the next one's turn comes.
    """
    from batch.cli.journal import turn  # noqa: PLC0415 - only who needs it waits for its import
    from batch.jobs.compact import compact as run  # noqa: PLC0415 - only who needs it waits for its import

    failed: list[LogStoreError] = []
    for table in tables:
        try:
            with turn(journal, table):
                definition = ctx.table(table)
                done = run(ctx, definition, verify_all=verify == "full", full=full)
                _tell(ctx, definition, done, wait_s, as_json=as_json)
        except LogStoreError as error:
            failed.append(error)
    if failed and len(tables) == 1:
        raise failed[0]
    if failed:
        raise LogStoreError(
            f"{len(failed)} of {len(tables)} tables have no new snapshot: {'; '.join(map(str, failed))}"
        )


@click.command()
@with_context
@click.argument("table", shell_complete=table_names)
@WAIT
@AS_JSON
def rebuild(ctx: "Context", table: str, wait_s: float | None, as_json: bool) -> None:
    """Make a snapshot from the beginning of the archived log, whatever snapshots there are."""
    from batch.jobs.compact import rebuild as run  # noqa: PLC0415 - only who needs it waits for its import

    definition = ctx.table(table)
    _tell(ctx, definition, run(ctx, definition), wait_s, as_json=as_json)


def _tell(ctx: "Context", table: "Table", done: "Compacted", wait_s: float | None, *, as_json: bool) -> None:
    document = done.document()
    if wait_s is not None:
        from batch.jobs.await_adopted import await_adopted  # noqa: PLC0415 - only who needs it waits for its import

        document["seconds"]["adopt"] = round(await_adopted(ctx, table, done.manifest, wait_s), 3)
    if as_json:
        show.as_json(document)
        return
    for warning in document["warnings"]:
        show.warn(warning)
    if done.unchanged:
        click.echo(f"table {table.name}: nothing is new since snapshot {document['snapshot']} at {document['cut']}")
        return
    seconds = document["seconds"]
    steps = ", ".join(f"{name} {seconds[name]:.1f}" for name in seconds)
    click.echo(
        f"table {table.name}: snapshot {document['snapshot']} of {document['entries']:,} rows at {document['cut']} "
        "from "
        f"{document['records']:,} records in {sum(seconds.values()):.1f} s ({steps}), {document['records_per_s']:,} "
        "records/s"
    )
