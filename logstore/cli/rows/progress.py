"""Progress: how many rows there are by now, or how much of a log was looked through, where stderr is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def rows_bar(title: str, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A line that counts; the function takes the number of rows so far."""
    if hidden or not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - slow to load

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title.replace("[", "\\["), total=None, rows=0)
        yield lambda count: progress.update(task, rows=count)


class ScanBar:
    """Bar of a scan whose results come meanwhile, perhaps to the same terminal."""

    def __init__(self, advance: Callable[[int], None], stop: Callable[[], None], start: Callable[[], None]) -> None:
        self.advance, self._stop, self._start = advance, stop, start

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take the bar off the screen while results are printed."""
        self._stop()
        yield
        self._start()


@contextmanager
def scan_bar(title: str) -> Iterator[Callable[[int], ScanBar]]:
    """A bar that goes once the scan is over; the function takes the number of records that are to be looked through."""
    if not sys.stderr.isatty():
        yield lambda _total: ScanBar(lambda _count: None, _nothing, _nothing)
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - slow to load

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)

    def begin(total: int) -> ScanBar:
        task = progress.add_task(title.replace("[", "\\["), total=total)
        shared = sys.stdout.isatty()
        return ScanBar(
            lambda count: progress.advance(task, count),
            progress.stop if shared else _nothing,
            progress.start if shared else _nothing,
        )

    with progress:
        yield begin


def _nothing() -> None:
    """Nothing is on the screen."""
