"""Progress: whether work that takes long goes on, or hangs.

A limit on its time turns a slow machine into one that is down: it is ended in the middle, and begins again. So what is
limited is the time in which it came no further. `Patience` hears it from who works; `Progress` looks at a process that
says nothing, at its work on the processor and on the disk.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import psutil

SHARE = 0.05  # of the time: an idle JVM takes a fiftieth
_BYTES_PER_S = 10e6  # moved from and to the disk: as good as a second of work


class Patience:
    """Patience with work that is under way: it is over once nothing has come further for so long.

    Further than ever: work that fails, and begins again, does not count anew.
    """

    def __init__(self, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._for_s, self._clock = for_s, clock
        self._furthest: dict[Hashable, int] = {}
        self._since_s = clock()

    def saw(self, reached: Mapping[Hashable, int]) -> None:
        """Hear how far each piece of work has come."""
        for piece, at in reached.items():
            if at > self._furthest.get(piece, -1):
                self._furthest[piece], self._since_s = at, self._clock()

    def is_over(self) -> bool:
        """True when nothing came further in that time."""
        return self._clock() - self._since_s > self._for_s


class Progress:
    """Progress of a process, which is looked at again and again; nothing is kept but its last sign of life."""

    def __init__(self, pid: int, patience_s: float, log: Path | None = None) -> None:
        """`patience_s`: it hangs when it did next to nothing for so long. `log`: a file that grows while it works."""
        self._pid, self._patience_s, self._log = pid, patience_s, log
        self._since_s, self._done = time.monotonic(), self._look()

    def hangs(self) -> bool:
        """True once the process has been there for `patience_s` without working; one that is gone does not hang."""
        passed_s = time.monotonic() - self._since_s
        if passed_s < self._patience_s:
            return False
        (worked_s, lines), (before_s, lines_before) = self._look(), self._done
        if worked_s - before_s < SHARE * passed_s and lines <= lines_before and psutil.pid_exists(self._pid):
            return True
        self._since_s, self._done = time.monotonic(), (worked_s, lines)
        return False

    def _look(self) -> tuple[float, int]:
        """Seconds that the process has worked, and bytes of its log."""
        size = self._log.stat().st_size if self._log is not None and self._log.exists() else 0
        try:
            process = psutil.Process(self._pid)
            times, moved = process.cpu_times(), process.io_counters()
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # of another account: its log alone tells
            return 0.0, size
        worked_s = times.user + times.system + times.children_user + times.children_system
        return worked_s + (moved.read_bytes + moved.write_bytes) / _BYTES_PER_S, size
