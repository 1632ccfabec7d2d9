"""`logstore stop`: end the node that runs on this machine's data directory."""

import click

from logstore.cli import options, show
from logstore.node.halt import Halted, halt
from logstore.settings import Settings


@click.command()
@options.with_settings("data_dir")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 3_600),
    default=100.0,
    show_default=True,
    help="Seconds for an end in order; then what is left is killed.",
)
def stop(settings: Settings, timeout_s: float) -> int:
    """End the `logstore dev` or `logstore node` that runs here, in order; the data stay.

    Exit status 1 when none runs.
    """
    halted = halt(settings.data_dir, timeout_s)
    if halted is None:
        show.warn(f"no node runs on {settings.data_dir}")
        return 1
    click.echo(_said(halted, settings))
    return 0


def _said(halted: Halted, settings: Settings) -> str:
    found = halted.record
    parts = ["Kafka"] if found.get("kafka") else []
    parts += [f"{len(found[kind])} {kind}" for kind in ("workers", "readers") if found.get(kind)]
    how = "" if halted.in_order else " in a hurry: its views are opened without a clean mark"
    return (
        f"stopped the node with the process id {halted.pid}{how} ({', '.join(parts) or 'it was starting'}); "
        f"the data stay in {settings.data_dir}"
    )
