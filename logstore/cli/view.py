"""`logstore view`: what a node keeps of a partition."""

import time
from pathlib import Path

import click

from logstore.cli import options, show
from logstore.cli.table_names import table_names
from logstore.log.kafka import offsets
from logstore.log.tables import repairs
from logstore.log.tables.registry import Registry
from logstore.model.errors import NotYet, UsageError
from logstore.model.table import Table
from logstore.node.addresses import need_bootstrap
from logstore.node.node_dir import NodeDir
from logstore.process.durable import write_whole
from logstore.settings import Settings
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url
from logstore.snapshot.verdicts import REFUSED
from logstore.view import paths

ASK_S = 0.1


@click.group()
def view() -> None:
    """Throw away what this node keeps of a partition, and begin again."""


@view.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.option("--partition", type=click.IntRange(0), required=True, metavar="P")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=30.0, show_default=True, metavar="S")
@options.STORAGE
@options.AS_JSON
def discard(
    settings: Settings, table: str, partition: int, yes: bool, timeout_s: float, storage: str | None, as_json: bool
) -> None:
    """Throw away this node's view of a partition: it begins again, with a snapshot that is proved or with the log.

    For a view that a snapshot was refused for and an audit found wrong. Nothing that was written is lost.
    """
    registry = Registry(need_bootstrap(settings))
    definitions = registry.read()
    found = definitions.live(table)
    repairs.check_partition(found, partition)
    url = storage_url(storage or settings.storage, definitions.storage, Path(settings.data_dir))
    _check_beginning(registry, found, partition, Repository(Storage(url), found.topic, found.epoch))
    if not yes:
        click.confirm(f"throw away this node's view of {table}/{partition}, and begin it again?", abort=True, err=True)
    data_dir = Path(settings.data_dir)
    asked = paths.discard_path(data_dir, found.epoch, partition)
    asked.parent.mkdir(parents=True, exist_ok=True)
    write_whole(asked, table.encode())
    done = _wait(asked, timeout_s) if NodeDir(data_dir).running() else False
    if as_json:
        show.as_json({"table": table, "partition": partition, "discarded": done})
    else:
        click.echo(
            f"{table}/{partition}: {'thrown away, it begins again' if done else 'thrown away at the next start'}"
        )


def _check_beginning(registry: Registry, table: Table, partition: int, repository: Repository) -> None:
    """Check that the view could begin again. Raises UsageError."""
    start = offsets.bounds(registry.admin, table.topic, [partition])[partition].start
    if start == 0 and table.base is None:
        return
    verdicts = repository.verdicts(table.base_snapshot)
    for name in repository.candidates(table.base_snapshot):
        if verdicts.proof(name, partition).word != REFUSED and repository.manifest(name).parts[partition].cut >= start:
            return
    raise UsageError(
        f"the view of {table.name}/{partition} could not begin again: the log begins at {start:,} and no snapshot that "
        "is "
        f"not refused reaches it; `logstore batch rebuild {table.name}` makes one from the archive first"
    )


def _wait(asked: Path, timeout_s: float) -> bool:
    """Wait until the request was taken up. Raises NotYet."""
    deadline = time.monotonic() + timeout_s
    while asked.exists():
        if time.monotonic() > deadline:
            raise NotYet(
                f"nobody on this node took the request up within {timeout_s:g} s: the partition is another node's, or "
                "the "
                f"worker is busy; it stands until {asked} is removed"
            )
        time.sleep(ASK_S)
    return True
