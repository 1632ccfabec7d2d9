"""`logstore worker` and `logstore reader`: one process of a node, under systemd or in a container."""

from typing import Any

import click

from logstore.cli.running.ending import ending_for_good
from logstore.cli.running.options import READER, WORKER, need_kafka, settings_of, with_options
from logstore.node.single import run_reader, run_worker
from logstore.process import logs
from logstore.process.private_files import own_files_only
from logstore.settings import Settings

_INDEX = click.option(
    "--index", type=click.IntRange(min=0), default=0, show_default=True, help="Which one of its node's this is."
)


@click.command()
@with_options(WORKER, _INDEX)
def worker(index: int, **flags: Any) -> None:
    """Run one worker of a node: it follows the log into the views of the data directory.

    All workers and readers of a node have the same settings and data directory, and see the same process ids. Prints
    one JSON line when readers answer for all slots it was given. SIGTERM: it hands its slots over, and ends with 0.
    Exit status 4: started again it would end again, until a person has done what it says.
    """
    settings = settings_of(flags)
    bootstrap = need_kafka(settings, "a worker")
    _begin(f"worker-{index}", settings)
    with ending_for_good():
        run_worker(settings, index, bootstrap)


@click.command()
@with_options(READER, _INDEX)
def reader(index: int, **flags: Any) -> None:
    """Run one reader of a node: it answers HTTP from the views of the data directory.

    All workers and readers of a node have the same settings and data directory, and see the same process ids. Prints
    one JSON line when reads can be answered. SIGTERM: it finishes what runs, and ends with 0.
    """
    settings = settings_of(flags)
    _begin(f"reader-{index}", settings)
    run_reader(settings, index)


def _begin(process: str, settings: Settings) -> None:
    own_files_only()
    logs.set_up(process, form=settings.log_format, levels=settings.log_level)
