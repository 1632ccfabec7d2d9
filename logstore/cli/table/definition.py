"""Definition: commands that change one wait until it is served, then show it."""

from typing import Any

import click

from logstore.cli import show
from logstore.client.admin.served import await_served, check_served
from logstore.log.tables.change import Change
from logstore.log.tables.registry import Registry
from logstore.model.table import Table


def holds(registry: Registry, change: Change, timeout_s: float, *, new: bool = False, finish: Any = None) -> None:
    """Return when the change is served by everybody; then `finish`, also when that takes too long.

    Raises NotYet that says who does not serve it after `timeout_s`.
    """
    for warning in change.warnings:
        show.warn(f"warning: {warning}")
    lacking = await_served(registry, change, timeout_s, new=new)
    if finish is not None:
        finish()
    if lacking.workers == 0 and not lacking.reasons:
        show.warn("warning: no node is running; the definition holds when one is (`logstore node`)")
    check_served(lacking, timeout_s)


def document(found: Table) -> dict[str, Any]:
    """A definition as JSON."""
    return {
        "name": found.name, "topic": found.topic, "epoch": found.epoch, "partitions": found.partitions,
        "max_value_bytes": found.max_value_bytes, "adopted": found.adopted,
        "allow_control_records": found.allow_control_records,
        "description": found.description, "skips": {str(p): ranges for p, ranges in found.skips.items()},
        "compression": found.compression, "block_bytes": found.block_bytes, "keep_snapshots": found.keep_snapshots,
        "merge_share": found.merge_share,
        "schedule": found.schedule, "base": found.base, "origin": found.origin,
        "former_epochs": list(found.former_epochs), "revision": found.revision,
        "conditional": found.conditional, "expiring": found.expiring,
        **_model(found), **_window(found), **_splits(found),
    }  # fmt: skip


def rows_of(found: Table) -> str:
    """Words that `table create` makes such rows of: what a row is, and how the table's keys lie."""
    row = "wide" if found.wide else "siblings" if found.siblings else "conditional" if found.conditional else "plain"
    traits = {"expiring": found.expiring and not found.wide, "ordered": bool(found.splits)}
    return ", ".join([row, *(word for word, has in traits.items() if has)])


def _model(found: Table) -> dict[str, Any]:
    """Kind of the rows, where they are not one value each."""
    if found.wide:
        rules = {"rules": [one.document() for one in found.rules]} if found.rules else {}
        return {"wide": True, "families": found.families, "multi_row": found.multi_row, **rules}
    return {"siblings": True} if found.siblings else {}


def _window(found: Table) -> dict[str, int]:
    if not found.conditional:
        return {}
    return {"dedup_window_ms": found.dedup_window_ms, "dedup_records": found.dedup_records}


def _splits(found: Table) -> dict[str, Any]:
    return {"splits": list(map(show.field, found.splits))} if found.splits else {}


def done(change: Change, what: str, *, as_json: bool) -> None:
    """Say what was done."""
    if as_json:
        show.as_json({**document(change.table), "dropped": change.table.dropped, "warnings": change.warnings})
    else:
        click.echo(f"table {change.table.name}: {what}")
