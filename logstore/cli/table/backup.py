"""`logstore table export` and `import`: definitions as lines of JSON, for a back-up, and their way back."""

from dataclasses import replace
from pathlib import Path

import click

from logstore.cli import options, show
from logstore.log import topics
from logstore.log.tables import repairs
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import Corrupted, LogStoreError, TableExists
from logstore.model.table import Table
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings

_MOST_BYTES = 64 << 20


@click.command()
@options.with_settings("bootstrap", "data_dir")
def export(settings: Settings) -> int:
    """Print every table's definition, a line of JSON each: keep it beside copies of archive and snapshots."""
    definitions = Registry(need_bootstrap(settings)).read()
    for _, table in sorted(definitions.tables.items()):
        if not table.dropped:
            show.raw(table.to_json() + b"\n")
    for why in definitions.unreadable.values():
        show.warn(f"warning: {why}")
    return 1 if definitions.unreadable else 0


@click.command(name="import")
@options.with_settings("bootstrap", "data_dir")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
def import_(settings: Settings, file: Path, yes: bool) -> None:
    """Write definitions again that `export` has printed, where there are no such tables.

    A table whose topic is gone answers nothing: what archive and snapshots hold of it comes back with `logstore batch
    restore` and `logstore table promote`, which it says.
    """
    found = _read(file)
    registry = Registry(need_bootstrap(settings))
    definitions = registry.read()
    _check_absent(definitions, found)
    if not yes:
        click.confirm(f"write the definitions of {', '.join(table.name for table in found)}?", abort=True, err=True)
    for table in registry.write_all([_over_dropped(definitions, table) for table in found]):
        epoch = topics.epoch_of(registry.admin, table.topic)
        there = "its topic is there" if epoch == table.epoch else f"its topic is gone; {repairs.when_gone(table)}"
        click.echo(f"table {table.name}: defined; {there}")


def _read(file: Path) -> list[Table]:
    """Definitions of a file. Raises LogStoreError that names the line."""
    if file.stat().st_size > _MOST_BYTES:
        raise LogStoreError(
            f"{file} has more than {_MOST_BYTES:,} bytes: it is not what `logstore table export` prints"
        )
    found: dict[str, Table] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            table = Table.from_json(line)
        except LogStoreError as error:
            raise Corrupted(f"line {number} of {file} is no definition: {error}") from error
        if table.name in found:
            raise Corrupted(f"line {number} of {file} defines {table.name} again")
        found[table.name] = table
    if not found:
        raise LogStoreError(f"{file} is empty: it is not what `logstore table export` prints")
    return list(found.values())


def _over_dropped(definitions: Definitions, table: Table) -> Table:
    """The definition as a change of the one that was dropped under its name, where there is one."""
    dropped = definitions.tables.get(table.name)
    return table if dropped is None else replace(table, revision=dropped.revision)


def _check_absent(definitions: Definitions, found: list[Table]) -> None:
    """Raise TableExists for a table of that name, or of that topic."""
    live = {table.name: table for table in definitions.tables.values() if not table.dropped}
    topics_of = {table.topic: table.name for table in live.values()}
    for table in found:
        if table.name in live or table.name in definitions.unreadable:
            raise TableExists(f"there is a table {table.name!r} already: definitions are imported where there is none")
        if table.topic in topics_of:
            raise TableExists(
                f"the topic {table.topic!r} of {table.name!r} is that of table {topics_of[table.topic]!r} here"
            )
