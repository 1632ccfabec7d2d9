"""`logstore snapshot`: look at the snapshots of a table, verify, pin, roll back, drop, collect."""

import secrets
from pathlib import Path
from typing import Any

import click

from logstore.cli import options, show
from logstore.cli.table import leftovers
from logstore.cli.table_names import table_names
from logstore.log.kafka.offsets import bounds
from logstore.log.tables.registry import Registry
from logstore.model.errors import Corrupted, NoSuchSnapshot, UsageError
from logstore.model.table import Table
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url
from logstore.snapshot.verdicts import REFUSED, Verdicts

YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def snapshot() -> None:
    """List, verify, pin, roll back and collect snapshots."""


@snapshot.command(name="list")
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@options.STORAGE
@options.AS_JSON
def list_(settings: Settings, table: str, storage: str | None, as_json: bool) -> None:
    """List the snapshots of a table, oldest first. One that was rolled back is there, but does not count."""
    found, repository = _found(settings, table, storage)
    now, pins, verdicts = repository.current(), repository.pins(), repository.verdicts(found.base_snapshot)
    counting = repository.line()
    rows = [
        {
            **_listed(repository, verdicts, name),
            "current": now is not None and now.name == name,
            "pinned": name in pins,
            "counts": name in counting,
        }
        for name in repository.names()
    ]
    if as_json:
        show.as_json({"snapshots": rows})
    elif not rows:
        show.warn(f"there is no snapshot yet; `logstore batch compact {table}` makes one")
    else:
        columns = ("name", "kind", "entries", "size_bytes", "current", "pinned", "counts", "proof")
        show.table(columns, [[row[column] for column in columns] for row in rows])
        for row in rows:
            if row["proof"] == REFUSED:
                show.warn(f"snapshot {row['name']} is refused: {row['why']}; `logstore batch audit {table}` settles it")
            if row.get("damage"):
                show.warn(f"{row['damage']}; `logstore snapshot drop {table} {row['name']}` takes it out of sight")


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("name", required=False)
@options.STORAGE
@options.AS_JSON
def describe(settings: Settings, table: str, name: str | None, storage: str | None, as_json: bool) -> None:
    """Show a snapshot: the current one, or NAME."""
    found, repository = _found(settings, table, storage)
    document = _document(repository, repository.verdicts(found.base_snapshot), _name(repository, name))
    if as_json:
        show.as_json(document)
    else:
        show.fields(document)


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("name", required=False)
@options.STORAGE
@options.AS_JSON
def verify(settings: Settings, table: str, name: str | None, storage: str | None, as_json: bool) -> int:
    """Read a snapshot back: the current one, or NAME. Exit status 1 when something is wrong."""
    _, repository = _found(settings, table, storage)
    name = _name(repository, name)
    size = sum(file.size_bytes for file in repository.manifest(name).files)
    with click.progressbar(length=size, label=name, file=click.get_text_stream("stderr")) as bar:
        found = repository.verify(name, bar.update)
    if as_json:
        show.as_json({"snapshot": name, "problems": found})
    else:
        click.echo("\n".join(found) if found else f"snapshot {name}: sound")
    return 1 if found else 0


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("name", required=False)
@click.option("--why", default="by hand", show_default=True, help="The reason, for others.")
@options.STORAGE
@options.AS_JSON
def pin(settings: Settings, table: str, name: str | None, why: str, storage: str | None, as_json: bool) -> None:
    """Keep a snapshot, the current one or NAME, until `unpin`."""
    _, repository = _found(settings, table, storage)
    name = _name(repository, name)
    repository.pin(name, why)
    _say({"snapshot": name, "pinned": True}, f"snapshot {name}: pinned", as_json=as_json)


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("name")
@options.STORAGE
@options.AS_JSON
def unpin(settings: Settings, table: str, name: str, storage: str | None, as_json: bool) -> None:
    """Let a pinned snapshot go."""
    _found(settings, table, storage)[1].unpin(name)
    _say({"snapshot": name, "pinned": False}, f"snapshot {name}: not pinned", as_json=as_json)


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.option("--to", metavar="NAME", help="The snapshot.  [default: the one before the current]")
@YES
@options.STORAGE
@options.AS_JSON
def rollback(settings: Settings, table: str, to: str | None, yes: bool, storage: str | None, as_json: bool) -> None:
    """Make an older snapshot the current one. Those that came after it do not count any more."""
    registry = Registry(need_bootstrap(settings))
    found, repository = _found(settings, table, storage, registry)
    to = to or repository.before()
    older = repository.manifest(to)
    _check_reached(registry, found, older)
    repository.verdicts(found.base_snapshot).check(to, older.parts, table, "made current")
    if not yes:
        click.confirm(f"make {to} the current one of {table}?", abort=True, err=True)
    moved = repository.rollback(to)
    _say(moved._asdict(), f"snapshot {moved.name}: current", as_json=as_json)


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names, required=False)
@click.option("--orphans", is_flag=True, help="Archive and snapshots of dropped tables and former topics, instead.")
@click.option(
    "--keep", type=click.IntRange(1), help="How many of the newest stay.  [default: the table's keep_snapshots]"
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@YES
@options.STORAGE
@options.AS_JSON
def gc(
    settings: Settings,
    table: str | None,
    orphans: bool,
    keep: int | None,
    dry_run: bool,
    yes: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Remove snapshots of TABLE that nothing needs, or (--orphans) what dropped tables left in the storage."""
    if orphans == (table is not None):
        raise UsageError("name a table, or say --orphans")
    if table is None:
        _gc_orphans(settings, storage, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    found, repository = _found(settings, table, storage)
    base = [found.base["snapshot"]] if found.base else []
    keep = keep or found.keep_snapshots
    would = repository.gc(keep, dry_run=True, extra_keep=base)
    if would.files and not dry_run:
        if not yes:
            click.confirm(
                f"remove {len(would.snapshots):,} snapshots, {would.size_bytes:,} bytes?", abort=True, err=True
            )
        with repository.lease(secrets.token_hex(4), "gc"):  # what a job reads must stay
            would = repository.gc(keep, extra_keep=base)
    text = f"{len(would.snapshots):,} snapshots, {would.files:,} files, {would.size_bytes:,} bytes"
    _say({**would._asdict(), "dry_run": dry_run}, f"{'would remove' if dry_run else 'removed'} {text}", as_json=as_json)


def _gc_orphans(settings: Settings, url: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    definitions = Registry(need_bootstrap(settings)).read()
    storage = leftovers.storage_of(settings, definitions, url)
    found = leftovers.leftovers(definitions, storage)
    for folder in found:
        show.warn(f"{folder.path}: of table {folder.table}")
    if found and not dry_run:
        if not yes:
            click.confirm(f"remove {len(found):,} folders of {storage.url}, archives included?", abort=True, err=True)
        for folder in found:
            leftovers.remove(storage, folder)
    what = "would remove" if dry_run else "removed"
    _say({"orphans": [f.path for f in found], "dry_run": dry_run}, f"{what} {len(found):,} folders", as_json=as_json)


@snapshot.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("name")
@YES
@options.STORAGE
@options.AS_JSON
def drop(settings: Settings, table: str, name: str, yes: bool, storage: str | None, as_json: bool) -> None:
    """Take a snapshot out of sight, a damaged one for example; its files go with the next gc."""
    found, repository = _found(settings, table, storage)
    if found.base is not None and found.base["snapshot"] == name:
        raise UsageError(f"snapshot {name} is what table {table} began with: without it the table is lost")
    if not yes:
        click.confirm(f"drop snapshot {name} of {table}?", abort=True, err=True)
    repository.drop(name)
    _say({"snapshot": name, "dropped": True}, f"snapshot {name}: dropped", as_json=as_json)


def _check_reached(registry: Registry, table: Table, older: Manifest) -> None:
    """Raise UsageError when the log no longer holds the records after a snapshot: nothing could go on from it."""
    starts = bounds(registry.admin, table.topic, list(older.parts))
    for partition, part in older.parts.items():
        if starts[partition].start > part.cut:
            raise UsageError(
                f"snapshot {older.name} ends at {part.cut:,} in partition {partition}, the log of {table.name} begins "
                "at "
                f"{starts[partition].start:,}: a node could not go on from it; `logstore batch rebuild {table.name}` "
                "makes a new one from "
                "the archive"
            )


def _found(
    settings: Settings, table: str, storage: str | None, registry: Registry | None = None
) -> tuple[Table, Repository]:
    definitions = (registry or Registry(need_bootstrap(settings))).read()
    found = definitions.live(table)
    url = storage_url(storage or settings.storage, definitions.known_storage(), Path(settings.data_dir))
    return found, Repository(Storage(url), found.topic, found.epoch)


def _name(repository: Repository, name: str | None) -> str:
    if name is not None:
        return name
    now = repository.current()
    if now is None:
        raise NoSuchSnapshot("there is no current snapshot yet; `logstore batch compact TABLE` makes one")
    return now.name


def _listed(repository: Repository, verdicts: Verdicts, name: str) -> dict[str, Any]:
    """The facts of a snapshot, or what is wrong with its manifest."""
    try:
        return _document(repository, verdicts, name)
    except Corrupted as error:
        gone = dict.fromkeys(("entries", "size_bytes", "proof", "why"))
        return {"name": name, "kind": "damaged", **gone, "damage": str(error)}


def _document(repository: Repository, verdicts: Verdicts, name: str) -> dict[str, Any]:
    found = repository.manifest(name)
    proof = verdicts.whole(name, sorted(found.parts))
    return {
        "name": found.name, "kind": found.kind, "parent": found.parent, "created_ms": found.created_ms,
        "position": found.position.token, "proof": proof.word, "why": proof.why,
        "entries": sum(part.entries for part in found.parts.values()), "files": len(found.files),
        "size_bytes": sum(file.size_bytes for file in found.files),
        "digests": {str(partition): part.digest for partition, part in found.parts.items()},
    }  # fmt: skip


def _say(document: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        show.as_json(document)
    else:
        click.echo(text)
