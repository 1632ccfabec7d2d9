"""Definition: commands that change one wait until it is served, then show it."""

from typing import Any

import click

from logstore.cli import show
from logstore.log.membership.live_workers import LiveWorkers
from logstore.log.tables import ddl
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogStoreError
from logstore.model.table import Table


def holds(registry: Registry, change: ddl.Change, timeout_s: float, *, new: bool = False, finish: Any = None) -> None:
    """Return when the change is served by everybody; then `finish`, also when that takes too long.

    Raises LogStoreError that says who does not serve it after `timeout_s`.
    """
    for warning in change.warnings:
        show.warn(f"warning: {warning}")
    with LiveWorkers(registry.bootstrap) as live_workers:
        lacking = live_workers.await_served(change.revision, change.table if new else None, registry.slots(), timeout_s)
    if finish is not None:
        finish()
    if lacking.workers == 0:
        show.warn("warning: no node is running; the definition holds when one is (`logstore node`)")
    if lacking.reasons:
        raise LogStoreError(
            f"the definition is written, but not served by everybody after {timeout_s:g} s: "
            f"{'; '.join(lacking.reasons)}; "
            "`logstore status` shows how it goes on"
        )


def document(found: Table) -> dict[str, Any]:
    """A definition as JSON."""
    return {
        "name": found.name, "topic": found.topic, "epoch": found.epoch, "partitions": found.partitions,
        "max_value_bytes": found.max_value_bytes, "adopted": found.adopted,
        "allow_control_records": found.allow_control_records,
        "description": found.description, "skips": {str(p): ranges for p, ranges in found.skips.items()},
        "compression": found.compression, "block_bytes": found.block_bytes, "keep_snapshots": found.keep_snapshots,
        "schedule": found.schedule, "base": found.base, "origin": found.origin,
        "former_epochs": list(found.former_epochs), "revision": found.revision,
    }  # fmt: skip


def done(change: ddl.Change, what: str, *, as_json: bool) -> None:
    """Say what was done."""
    if as_json:
        show.as_json({**document(change.table), "dropped": change.table.dropped, "warnings": change.warnings})
    else:
        click.echo(f"table {change.table.name}: {what}")
