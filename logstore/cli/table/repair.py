"""`logstore table repair`: the way out for a partition that stopped.

Shows what is missing, asks, writes the decision down.
"""

import re
import time
from typing import Any

import click

from logstore.cli import options, show
from logstore.cli.table import lost_end
from logstore.cli.table.definition import holds
from logstore.cli.table.repair_definition import repair_definition
from logstore.cli.table_names import table_names
from logstore.client.transport.node_pages import page_of
from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.read import holes
from logstore.log.tables import repairs
from logstore.log.tables.registry import Registry
from logstore.log.tables.repairs import Copies
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.table import Table
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.repository import Repository
from logstore.snapshot.storage import Storage, storage_url

_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?", re.ASCII)
_ASK_S = 5.0
_MOST_LISTED = 20  # holes; a long list helps nobody


@click.command()
@options.with_settings("bootstrap", "url", "data_dir", "timeout_s")
@click.argument("name", shell_complete=table_names)
@click.option("--partition", type=int, help="Which partition.")
@click.option("--skip", "skip", metavar="A..B", help="Step over these offsets.  [default: those that are missing]")
@click.option("--new-epoch", is_flag=True, help="The topic was created again: begin anew with it.")
@click.option("--definition", is_flag=True, help="Its definition cannot be read: write the last one that can.")
@click.option("--accept-loss", is_flag=True, help="The log lost its end: go on with the log as it is now.")
@click.option("--force", is_flag=True, help="Skip also offsets that hold records: they are undone, on every replica.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.STORAGE
@options.AS_JSON
def repair(
    settings: Settings, name: str, partition: int | None, skip: str | None, new_epoch: bool, definition: bool,
    accept_loss: bool, force: bool, yes: bool, storage: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what is missing in a partition's log, and have it stepped over: now, by every rebuild, on every replica."""
    if [new_epoch, definition, partition is not None].count(True) != 1:
        raise UsageError(
            "say --partition P (what is missing there?), --new-epoch (accept a topic that was created again) or "
            "--definition (the table's record cannot be read)"
        )
    chosen = [_parse(skip)] if skip else None
    registry = Registry(need_bootstrap(settings))
    if definition:
        change = repair_definition(registry, settings.data_dir, name, yes=yes)
        if change is not None:
            holds(registry, change, settings.timeout_s, new=not change.table.dropped)
            click.echo(f"table {name}: its definition is written again", err=True)
        return
    table = registry.table(name)
    if new_epoch:
        _accept(settings, registry, table, yes=yes)
        return
    assert partition is not None
    repairs.check_partition(table, partition)
    standing = _standing(settings, table, partition)
    there = Storage(storage_url(storage or settings.storage, registry.read().known_storage(), settings.data_dir))
    copies = _copies(there, table, partition, standing)
    if accept_loss:
        _accept_loss(settings, registry, table, partition, copies, there, yes=yes, as_json=as_json)
        return
    damage = repairs.examine(registry, table, partition, copies.reach)
    repairs.check_epoch(table, damage)
    assert damage.log is not None
    report = _report(table, partition, damage.log, standing, copies)
    if as_json:
        show.as_json(report)
    else:
        _tell(report, damage.log)
    differs = _differs(damage.log, copies)
    if differs:
        click.echo(f"  {differs}", err=True)
    behind = [hole for hole in damage.log.holes if hole.last >= copies.applied]
    ranges = chosen or [(max(hole.first, copies.applied), hole.last) for hole in behind]
    if not ranges:
        click.echo("nothing is missing from where the view stands on: there is nothing to repair", err=True)
        return
    _agree(f"step over {_named(ranges)} of {name}/{partition}, for ever?{' ' if differs else ''}{differs}", yes=yes)
    _skip(settings, registry, table, partition, ranges, copies, force=force)


def _accept(settings: Settings, registry: Registry, table: Table, *, yes: bool) -> None:
    repairs.renewed(registry, table)  # before anybody is asked
    _agree(
        f"begin table {table.name} anew with the topic {table.topic} as it is now? Rows of the former topic are gone",
        yes=yes,
    )
    holds(registry, repairs.new_epoch(registry, table), settings.timeout_s, new=True)
    click.echo(f"table {table.name}: begun anew", err=True)


def _accept_loss(
    settings: Settings, registry: Registry, table: Table, partition: int, copies: Copies, there: Storage, *,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what the log lost and what still holds it; ask; have everybody go on with the log as it is."""
    views = _views(registry, table, partition)
    found = lost_end.examine(settings.data_dir, registry, table, partition, copies, views)
    if as_json:
        show.as_json(found.document())
    else:
        found.tell()
    _agree(
        f"go on with the log of {table.name}/{partition} as it is, for ever? Views and snapshots that hold what it "
        "lost are thrown away or refused; tokens and versions of what was lost may meet other rows",
        yes=yes,
    )
    change = repairs.accept_loss(registry, table, partition, found.starts)
    refused = lost_end.refuse_snapshots(there, change.table, partition)
    holds(registry, change, settings.timeout_s)
    for name in refused:
        show.warn(f"snapshot {name} holds what was lost: it is refused from now on")
    if copies.archived > found.start_of_new:
        show.warn(
            f"the archive holds what was lost, too: `logstore batch archive {table.name} --repair` has it go on with "
            "the log, and gives those records up"
        )
    _await_running(settings, table, partition)
    click.echo(f"table {table.name}: partition {partition} goes on with the log as it is", err=True)


def _skip(
    settings: Settings,
    registry: Registry,
    table: Table,
    partition: int,
    ranges: list[tuple[int, int]],
    copies: Copies,
    *,
    force: bool,
) -> None:
    for first, last in ranges:
        change = repairs.skip(registry, table, partition, first, last, copies=copies, force=force)
        table = change.table
    holds(registry, change, settings.timeout_s)
    _await_going(settings, table, partition, ranges[-1][1] + 1)
    click.echo(f"table {table.name}: partition {partition} steps over {_named(ranges)} now", err=True)


def _views(registry: Registry, table: Table, partition: int) -> list[lost_end.HeldElsewhere]:
    """The partition's views on all nodes that answer."""
    with LiveWorkers(registry.bootstrap) as live_workers:
        urls = sorted({worker.url for worker in live_workers.look()})
    found = [(url, _ask(url, table, partition)) for url in urls]
    return [lost_end.HeldElsewhere(url, one["applied"] or 0, one["state"]) for url, one in found if one is not None]


def _copies(there: Storage, table: Table, partition: int, standing: dict[str, Any] | None) -> Copies:
    """Archive, snapshots and view of the partition, as far as they reach. Raises StorageUnreachable, Corrupted."""
    archived = ArchiveIndex(there, table.topic, table.epoch).next_offsets().get(partition, 0)
    repository = Repository(there, table.topic, table.epoch)
    current = repository.current()
    cut = repository.manifest(current.name).parts[partition].cut if current else 0
    return Copies(archived, cut, (standing and standing["applied"]) or 0)


def _await_going(settings: Settings, table: Table, partition: int, offset: int) -> None:
    """Return when the partition has got to `offset`.

    Raises LogStoreError that says where it stands, when that takes too long.
    """
    deadline = time.monotonic() + settings.timeout_s
    while (standing := _standing(settings, table, partition)) is not None and (standing["applied"] or 0) < offset:
        if time.monotonic() > deadline or standing["state"] in ("elsewhere", "unserved"):
            raise LogStoreError(
                f"the repair is written, but {table.name}/{partition} is {standing['state']} at {standing['applied']} "
                "after "
                f"{settings.timeout_s:g} s: {standing['reason'] or 'it has not said why'}; `logstore status` shows how "
                "it goes on"
            )
        time.sleep(0.1)


def _await_running(settings: Settings, table: Table, partition: int) -> None:
    """Return when the partition is not stopped any more. Raises LogStoreError when that takes too long."""
    deadline = time.monotonic() + settings.timeout_s
    while (standing := _standing(settings, table, partition)) is not None and standing["state"] == "stopped":
        if time.monotonic() > deadline:
            raise LogStoreError(
                f"the decision is written, but {table.name}/{partition} is still stopped after {settings.timeout_s:g} "
                f"s: {standing['reason']}"
            )
        time.sleep(0.1)


def _named(ranges: list[tuple[int, int]]) -> str:
    return ", ".join(f"{first}..{last}" for first, last in ranges[:_MOST_LISTED]) + (
        ", ..." if len(ranges) > _MOST_LISTED else ""
    )


def _agree(question: str, *, yes: bool) -> None:
    if not yes and not click.confirm(question, err=True):
        raise LogStoreError("nothing was changed")


def _parse(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise UsageError(f"--skip wants FIRST..LAST, such as 5..7, not {text[:40]!r}")
    return int(match[1]), int(match[2] or match[1])


def _standing(settings: Settings, table: Table, partition: int) -> dict[str, Any] | None:
    """State of the partition on the node that has it; None when none answers."""
    found = _ask(need_url(settings), table, partition)
    if found is not None and found["state"] == "elsewhere" and found["owner"]:
        return _ask(found["owner"], table, partition) or found
    return found


def _ask(url: str, table: Table, partition: int) -> dict[str, Any] | None:
    try:
        page = page_of(url, "/v1/partitions", _ASK_S)
    except LogStoreError:
        return None
    found = page.document["partitions"] if page.status == 200 else []
    return next((row for row in found if (row["table"], row["partition"]) == (table.name, partition)), None)


def _report(
    table: Table, partition: int, log: holes.Log, standing: dict[str, Any] | None, copies: Copies
) -> dict[str, Any]:
    missing = [
        {"first": h.first, "last": h.last, "count": h.size, "aborted": h.aborted, "why": _why(h, log)}
        for h in log.holes
    ]
    return {
        "table": table.name, "partition": partition, "log": {"start": log.start, "stable": log.stable, "end": log.end},
        "archived": copies.archived, "snapshot": copies.cut,
        "skipped": [list(pair) for pair in table.skips.get(partition, [])], "missing": missing,
        "state": standing and standing["state"], "applied": standing and standing["applied"],
        "reason": standing and standing["reason"],
    }  # fmt: skip


def _tell(report: dict[str, Any], log: holes.Log) -> None:
    where = f"{report['table']}/{report['partition']}"
    click.echo(
        f"{where}: the log holds offsets {log.start:,} to {log.end:,}; {sum(h.size for h in log.holes):,} are missing"
    )
    if 0 < log.start <= max(report["archived"], report["snapshot"]):
        click.echo(f"  what lay before {log.start:,} is not lost: archive or snapshots hold it")
    if report["state"]:
        click.echo(
            f"  the node says: {report['state']} at "
            f"{report['applied']}{': ' + report['reason'] if report['reason'] else ''}"
        )
    for hole in report["missing"][:_MOST_LISTED]:
        click.echo(f"  {hole['first']}..{hole['last']}  {hole['count']:,}  {hole['why']}")
    if len(report["missing"]) > _MOST_LISTED:
        click.echo(f"  ... and {len(report['missing']) - _MOST_LISTED:,} ranges more (--json lists all)")
    if log.stable < log.end:
        click.echo(f"  a transaction is open since offset {log.stable:,}: what it hides is not looked at")
    applied = report["applied"]
    if applied is not None and applied > log.end:
        click.echo(
            f"  the view has applied {applied:,}, the log ends at {log.end:,}: records are lost; --skip cannot help, "
            "--accept-loss shows what still holds them, and asks whether to go on with the log as it is"
        )


def _differs(log: holes.Log, copies: Copies) -> str:
    """Sentence about rows that a node that begins anew, and a rebuild, will not have; empty: none."""
    upto = min(copies.applied, log.start)
    if copies.reach >= upto:
        return ""
    return (
        f"Offsets {copies.reach:,} to {upto - 1:,} are in views only: a node that begins anew, `batch rebuild` and "
        "`batch compact` stop there, until they are skipped too (--skip, --force) and those rows are written again"
    )


def _why(hole: holes.Hole, log: holes.Log) -> str:
    if hole.last < log.start:
        return "deleted from the log's beginning (retention, or DeleteRecords)"
    if hole.aborted:
        return f"{hole.aborted:,} records of aborted transactions and their markers"
    return "a transaction's marker, or lost"
