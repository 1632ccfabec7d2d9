"""Options of all batch commands, the context made of them, and their progress on stderr."""

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batch.defaults import AUTO, ENGINES, MASTER, PROCESSES
from logstore import settings
from logstore.cli import options
from logstore.extras import needing
from logstore.log.connect.sources import publish
from logstore.process.private_files import as_private_as

if TYPE_CHECKING:
    from batch.context import Progress

WAIT = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    metavar="S",
    help="Return when every node serves from it; fail when none came further for S seconds.",
)

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--bootstrap", metavar="HOST:PORT", help="Kafka.  [default: that of the node that runs here]"),
    options.KAFKA_CONFIG,
    click.option(
        "--data-dir", metavar="DIR", help="The node's data directory.  [default: logstore/dev in the user's data]"
    ),
    click.option(
        "--storage", metavar="URL", help="Where archive and snapshots lie.  [default: as the store is defined]"
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=AUTO,
        show_default=True,
        help="What runs the tasks: processes of this machine, Spark, or Spark for large jobs.",
    ),
    click.option(
        "--processes",
        type=click.IntRange(0, 1_024),
        default=PROCESSES,
        show_default="one a core",
        help="Of the local engine.",
    ),
    click.option(
        "--task-bytes",
        type=options.BYTES,
        metavar="SIZE",
        help="A partition that has more is folded by ranges of its keys.  [default: 8 GiB]",
    ),
    click.option("--master", metavar="URL", help=f"Spark's master; asks for Spark.  [default: {MASTER}]"),
    click.option("--conf", "conf", multiple=True, metavar="K=V", help="A setting of Spark's; may be given again."),
)


def with_context(function: F) -> F:
    """Add the options of every batch command.

    The command gets a `Context` as its first argument, which is closed behind it, and logs as a node does.
    """

    @functools.wraps(function)
    @needing("batch")
    def run(*args: Any, **kwargs: Any) -> Any:
        from batch.context import open_context  # noqa: PLC0415 - only who needs it waits for its import
        from batch.engine.choice import Engines, JobSize  # noqa: PLC0415 - only who needs it waits for its import

        flags = {name: kwargs.pop(name) for name in ("bootstrap", "kafka_config", "data_dir", "storage", "task_bytes")}
        master, conf = kwargs.pop("master"), options.pairs(kwargs.pop("conf"), "--conf")
        engine, processes = kwargs.pop("engine"), kwargs.pop("processes")
        with progress() as advance:
            chosen = settings.load(flags)
            publish(chosen.kafka_config)
            _set_up_logging(chosen)
            most = JobSize(chosen.local_records, chosen.local_mb << 20)
            engines = Engines(engine, master, conf, processes, most)
            context = open_context(chosen, engines=engines, progress=advance)
            if context.storage.url.startswith("file://"):
                as_private_as(Path(context.storage.url.removeprefix("file://")))
            try:
                return function(context, *args, **kwargs)
            finally:
                context.close()

    wrapped: Any = run
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # untyped library


def _set_up_logging(chosen: settings.Settings) -> None:
    from logstore.process import logs  # noqa: PLC0415 - only who runs a job waits for its import

    if not logging.getLogger().handlers:  # who calls a command in a process of their own has theirs
        logs.set_up("batch", form=chosen.log_format, levels=chosen.log_level)


@contextmanager
def progress() -> "Iterator[Progress]":
    """Progress bars on stderr, one a step, where that is a terminal."""
    if not sys.stderr.isatty():
        from batch.context import silent  # noqa: PLC0415 - only who needs it waits for its import

        yield silent
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - slow to load
    from rich.progress import Progress as Bars  # noqa: PLC0415 - only who needs it waits for its import

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield advance
