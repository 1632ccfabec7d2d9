"""Compaction job: one process that compacts the tables that are due, and what its journal tells of each.

One process for all of them starts one engine: starting it costs more than a small table does. One job runs at a time,
so the journal has one name and is begun anew with each.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from logstore.model.table import Table
from logstore.process import child
from logstore.snapshot.schedule import DONE, FAILED, RUNNING, Standing, Turn, turns

Command = Callable[[Sequence[Table], str, Path], list[str]]  # (tables, storage URL, journal) -> argv of the job


def compact(bootstrap: str, data_dir: Path) -> Command:
    """Command line of compactions."""

    def command(tables: Sequence[Table], storage: str, journal: Path) -> list[str]:
        where = ["--bootstrap", bootstrap, "--storage", storage, "--data-dir", str(data_dir)]
        names = [table.name for table in tables]
        return child.python("batch", "compact", *where, "--journal", str(journal), "--", *names)

    return command


class CompactionJob:
    """A job's process, and the turns of its tables. For one thread."""

    def __init__(self, due: Sequence[tuple[Table, Standing]], command: Command, storage: str, log_path: Path) -> None:
        """Process and journal begin; `log_path` gets what it prints. Raises OSError."""
        self._standing = {table.name: (table, standing) for table, standing in due}
        self._open = dict.fromkeys(self._standing, False)  # table -> its turn has begun; absent: it has ended
        self._log_path, self._journal, self._read = log_path, log_path.with_suffix(".journal"), 0
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._journal.write_bytes(b"")
        argv = command([table for table, _ in due], storage, self._journal)
        with log_path.open("ab") as output:
            self._process = child.spawn(argv, output=output)

    def holds(self, table: Table) -> bool:
        """True while the table's turn is to come, or not over."""
        return table.name in self._open and self._standing[table.name][0].epoch == table.epoch

    def news(self) -> Iterator[tuple[Table, Standing, Turn]]:
        """Turns that have begun or ended since the last look; at the process's end, those that it left open."""
        status = self._process.poll()  # first: what it wrote before it ended is there now
        for turn in self._read_on():
            yield self._taken(turn)
        for turn in () if status is None else self._left(status):
            yield self._taken(turn)

    @property
    def ended(self) -> bool:
        """True when the process has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)

    def _taken(self, turn: Turn) -> tuple[Table, Standing, Turn]:
        if turn.state == RUNNING:
            self._open[turn.table] = True
        else:
            self._open.pop(turn.table, None)
        return *self._standing[turn.table], turn

    def _read_on(self) -> list[Turn]:
        with self._journal.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole + end)
        return [turn for turn in turns(whole) if turn.table in self._open]

    def _left(self, status: int) -> list[Turn]:
        """Turns that the journal leaves open.

        After a failure those tables are not to blame whose turn had not come, unless none had: they stay due.
        """
        now_ms = time.time_ns() // 1_000_000
        if not status:
            return [Turn(name, DONE, now_ms) for name in self._open]
        why = f"it ended with status {status}; {self._log_path} says why"
        begun = [name for name, has_begun in self._open.items() if has_begun]
        none_began = len(self._open) == len(self._standing) and not begun
        return [Turn(name, FAILED, now_ms, why) for name in (self._open if none_began else begun)]
