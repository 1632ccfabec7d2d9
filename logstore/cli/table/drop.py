"""`logstore table drop`: a table, its topic, and on demand what lies in the storage."""

import sys

import click

from logstore.cli import options, show
from logstore.cli.table import leftovers
from logstore.cli.table.definition import done, holds
from logstore.cli.table_names import table_names
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry
from logstore.model.errors import UsageError
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings


@click.command()
@options.with_settings("bootstrap", "data_dir", "timeout_s")
@click.argument("name", shell_complete=table_names)
@click.option(
    "--yes", is_flag=True, help="Yes, delete the topic and every row (of an adopted topic: only forget the table)."
)
@click.option(
    "--storage",
    "files",
    type=click.Choice(["keep", "delete"]),
    help="What becomes of its archive and snapshots.  [default: asks; with --yes alone, keep]",
)
@options.AS_JSON
def drop(settings: Settings, name: str, yes: bool, files: str | None, as_json: bool) -> None:
    """Drop a table: its topic, and every row in it, is deleted. An adopted topic stays.

    Archive and snapshots stay in the storage until --storage delete or `logstore snapshot gc --orphans` removes them.
    """
    if not yes and not sys.stdin.isatty():
        raise UsageError(f"dropping {name!r} deletes its rows and its log; say --yes if that is meant")
    registry = Registry(need_bootstrap(settings))
    definitions = registry.read()
    if not yes:
        click.confirm(f"drop {name}, and delete its log and every row?", abort=True, err=True)
    known = definitions.tables.get(name)
    storage = leftovers.storage_of(settings, definitions)
    held = known is not None and leftovers.has_files(storage, known)
    if held and files is None and not yes:
        files = "delete" if click.confirm("delete its archive and snapshots too?", err=True) else "keep"
    change = ddl.drop(registry, name)
    holds(registry, change, settings.timeout_s, finish=lambda: ddl.delete_topic(registry, change.table))
    if held and files == "delete":
        leftovers.remove(storage, leftovers.Leftover(change.table.topic, change.table.epoch, name))
    elif held:
        show.warn(
            f"archive and snapshots of {name} stay in {storage.url}; `logstore snapshot gc --orphans` removes what "
            "dropped tables left"
        )
    done(
        change,
        "dropped" if not change.table.adopted else f"dropped; its topic {change.table.topic} stays",
        as_json=as_json,
    )
