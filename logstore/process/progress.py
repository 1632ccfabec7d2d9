"""Progress: whether a process that takes long to start works on, or hangs.

A limit on the time of a start turns a slow machine into one that is down: the process is ended in the middle of its
work, and begins it again. What is waited for is its work, on the processor and on the disk.
"""

import time
from pathlib import Path

import psutil

SHARE = 0.05  # of the time: an idle JVM takes a fiftieth
_BYTES_PER_S = 10e6  # moved from and to the disk: as good as a second of work


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
