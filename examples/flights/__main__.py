"""`python -m examples.flights`.

The demo as a program. Exit status 0: everything as in the source; 1: not; 130: interrupted.
"""

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from examples.flights import demo


@click.command()
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures there too.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Empty or new; kept.  [default: temporary]",
)
@click.option("--keep", is_flag=True, help="Keep the temporary directory.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1_000), help="Only the first N changes of flights.  [default: all]"
)
@click.option("--fast", is_flag=True, help="Only the fast path: no archive, no snapshot, no second node.")
def main(json_file: Path | None, data_dir: Path | None, keep: bool, limit: int | None, fast: bool) -> None:
    """Run a store on a year of real flights, end to end along both paths, and check every row."""
    if data_dir is not None and data_dir.exists() and any(data_dir.iterdir()):
        raise click.UsageError(f"{data_dir} is not empty; name a new directory")
    with _ended_in_order(), _place(data_dir, keep=keep) as place:
        report = demo.run(place, limit, fast=fast)
    report.show()
    if json_file is not None:
        report.write(json_file)
    sys.exit(0 if report.ok else 1)


@contextlib.contextmanager
def _place(data_dir: Path | None, *, keep: bool) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir
    elif keep:
        kept = Path(tempfile.mkdtemp(prefix="logstore-demo-"))
        yield kept
        click.echo(f"kept: {kept}", err=True)
    else:
        with tempfile.TemporaryDirectory(prefix="logstore-demo-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """A terminal that closes, or a SIGTERM, ends the demo as Ctrl-C does; also where a shell had it ignore that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(130)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
