"""`logstore batch audit`: the log against the current snapshot and every node's views."""

from typing import TYPE_CHECKING, Any

import click

from batch.cli.options import with_context
from batch.defaults import LISTED, NODES_S
from logstore.cli import show
from logstore.cli.options import AS_JSON
from logstore.cli.table_names import table_names

if TYPE_CHECKING:
    from batch.context import Context
    from batch.jobs.audit import Audit, Suspect
    from logstore.snapshot.work import GuiltyCell, GuiltyKey, SeenValue


@click.command()
@with_context
@click.argument("table", shell_complete=table_names)
@click.option("--explain", is_flag=True, help=f"Name the keys that differ, the first {LISTED}.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, 86_400), default=NODES_S, show_default=True, metavar="S",
    help="How long nodes that come no further are waited for.",
)  # fmt: skip
@AS_JSON
def audit(ctx: "Context", table: str, explain: bool, timeout_s: float, as_json: bool) -> None:
    """Fold the log from its beginning and compare: the current snapshot, and every node's view.

    Exit status 0: all agree; 1: something differs, or could not be compared.
    """
    from batch.jobs.audit import AGREE  # noqa: PLC0415 - only who needs it waits for its import
    from batch.jobs.audit import audit as run  # noqa: PLC0415 - only who needs it waits for its import

    found = run(ctx, ctx.table(table), explain=explain, timeout_s=timeout_s)
    if as_json:
        show.as_json(document(found))
    else:
        _tell(found)
    if found.verdict() != AGREE:
        click.get_current_context().exit(1)


def document(found: "Audit") -> dict[str, Any]:
    """JSON document of the result."""
    return {
        "table": found.table.name, "verdict": found.verdict(), "position": found.position.token,
        "snapshot": found.snapshot and found.snapshot.name, "problems": found.problems,
        "nodes_compared": found.table.allow_control_records,
        "partitions": [
            {
                "partition": partition, "verdict": found.verdict(partition), "cut": found.cuts[partition],
                "digest": folded.digest,
                "entries": folded.entries,
                "compared": [_suspect(suspect) for suspect in found.suspects if suspect.partition == partition],
            }
            for partition, folded in sorted(found.folded.items())
        ],
        "seconds": {name: round(seconds, 3) for name, seconds in found.seconds.items()},
    }  # fmt: skip


def _suspect(suspect: "Suspect") -> dict[str, Any]:
    return {
        "name": suspect.name, "verdict": suspect.verdict, "reason": suspect.reason, "counts": suspect.counts,
        "keys": [
            {"key": show.field(one.key), "expected": _seen(one.expected), "found": _seen(one.found), **_cells(one)}
            for one in suspect.guilty
        ],
    }  # fmt: skip


def _cells(guilty: "GuiltyKey") -> dict[str, Any]:
    if not guilty.cells:
        return {}
    return {"cells": [{"cell": c.name, "expected": _seen(c.expected), "found": _seen(c.found)} for c in guilty.cells]}


def _seen(seen: "SeenValue | None") -> dict[str, int] | None:
    return None if seen is None else {"version": seen.version, "bytes": seen.size_bytes}


def _tell(found: "Audit") -> None:
    """Print suspects and reasons, the keys, and one line for all."""
    from batch.jobs.audit import AGREE  # noqa: PLC0415 - only who needs it waits for its import

    for suspect in found.suspects:
        if suspect.verdict != AGREE:
            click.echo(f"partition {suspect.partition}, {suspect.name}: {suspect.verdict}: {suspect.reason}")
    for problem in found.problems:
        click.echo(f"snapshot: {problem}")
    _tell_keys(found)
    entries = sum(folded.entries for folded in found.folded.values())
    compared = f"snapshot {found.snapshot.name}" if found.snapshot else "no snapshot yet"
    nodes = len({suspect.url for suspect in found.suspects if suspect.url}) if found.table.allow_control_records else 0
    why = (
        ""
        if found.table.allow_control_records
        else " (the topic takes no control records: nodes are not compared by digest)"
    )
    click.echo(
        f"table {found.table.name}: {found.verdict()}: {entries:,} rows at {found.position.token}, {compared}, "
        f"nodes: {nodes}{why}, {sum(found.seconds.values()):.1f} s"
    )


def _tell_keys(found: "Audit") -> None:
    room = LISTED
    for suspect in found.suspects:
        if suspect.counts:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(suspect.counts.items()))
            click.echo(f"partition {suspect.partition}, {suspect.name}: keys: {counts}")
        for one in suspect.guilty[:room]:
            click.echo(f"  {_line(show.field(one.key), one)}")
            for cell in one.cells:
                click.echo(f"    {_line(cell.name, cell)}")
        room = max(0, room - len(suspect.guilty))


def _line(name: Any, guilty: "GuiltyKey | GuiltyCell") -> str:
    return f"{name!r}: expected {_text(guilty.expected)}, found {_text(guilty.found)}"


def _text(seen: "SeenValue | None") -> str:
    return "nothing" if seen is None else f"version {seen.version:,} of {seen.size_bytes:,} bytes"
