"""`logstore batch schedule`: conditions under which a table is compacted by itself.

The leader of the workers runs what is due (`streaming/schedule/compaction_schedule.py`).
"""

from typing import Any

import click

from logstore.cli import options, show
from logstore.cli.table_names import table_names
from logstore.model.errors import UsageError
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings


@click.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.option(
    "--every-mutations",
    type=click.IntRange(1),
    metavar="N",
    help="When the log holds so many records more than the snapshot.",
)
@click.option("--every-minutes", type=click.IntRange(1), metavar="T", help="When the snapshot is so old.")
@click.option("--off", is_flag=True, help="No more by itself.")
@options.STORAGE
@options.AS_JSON
def schedule(
    settings: Settings, table: str, every_mutations: int | None, every_minutes: int | None, off: bool,
    storage: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show when TABLE is compacted by itself and how that went, or set it: when either limit is reached."""
    from logstore.cli import compactions  # noqa: PLC0415 - only who needs it waits for its import
    from logstore.log.tables.joining import amend  # noqa: PLC0415 - only who needs it waits for its import
    from logstore.log.tables.registry import Registry  # noqa: PLC0415 - only who needs it waits for its import

    registry = Registry(need_bootstrap(settings))
    found = registry.table(table)
    wanted = {"every_mutations": every_mutations, "every_minutes": every_minutes}
    limits = any(limit is not None for limit in wanted.values())
    if off and limits:
        raise UsageError("--off takes no limits; leave --every-mutations and --every-minutes out")
    if off or limits:
        found = amend(registry, found, {"schedule": None if off else wanted}, []).table
    stands = compactions.look(registry, found, storage or settings.storage, settings.data_dir)
    if as_json:
        show.as_json({"table": table, **(stands or {"schedule": None})})
        return
    _show(table, found.schedule)
    for line in compactions.lines(stands) if stands else ():
        click.echo(f"  {line}")


def _show(table: str, found: dict[str, Any] | None) -> None:
    said = {"every_mutations": "{:,} mutations", "every_minutes": "{:,} minutes"}
    limits = [said[name].format(limit) for name, limit in (found or {}).items() if limit is not None]
    text = (
        f"every {' or '.join(limits)}, whichever comes first"
        if limits
        else f"never; `logstore batch compact {table}` does it by hand"
    )
    click.echo(f"table {table}: compacted {text}")
