"""Steps.

What is going on, on stderr, and how long each part took. Bars where somebody looks, lines where nobody does.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[int], None]


class Steps:
    """The steps of one run. `seconds`: name -> how long it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<44}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=Console(stderr=True)) if sys.stderr.isatty() else None

    @contextmanager
    def step(self, name: str, text: str, total: int | None = None) -> Iterator[Advance]:
        """Time one step; the function given is told what was done of `total`."""
        started = time.perf_counter()
        yield from self._shown(text, total)
        self.seconds[name] = round(time.perf_counter() - started, 3)
        if self._bars is None:
            print(f"{text}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)

    def _shown(self, text: str, total: int | None) -> Iterator[Advance]:
        bars, done = self._bars, 0
        if bars is None:
            yield lambda _: None
            return
        task = bars.add_task(text, total=total, done="")

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bars.update(task, advance=count, done=f"{done:,}")

        yield advance
        bars.update(task, total=total or 1, completed=total or 1)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
