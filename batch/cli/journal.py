"""Journal of a command over several tables: whose turn began, whose ended and how, for who started the command."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logstore.model.errors import LogStoreError
from logstore.snapshot.schedule import DONE, FAILED, RUNNING, Turn


@contextmanager
def turn(journal: Path | None, table: str) -> Iterator[None]:
    """Write down a table's turn; one that ends with an error that is none of ours is left open, as by a kill."""
    _write(journal, table, RUNNING)
    try:
        yield
    except LogStoreError as error:
        _write(journal, table, FAILED, str(error))
        raise
    _write(journal, table, DONE)


def _write(journal: Path | None, table: str, state: str, why: str = "") -> None:
    if journal is not None:
        with journal.open("ab") as file:
            file.write(Turn(table, state, time.time_ns() // 1_000_000, why).line)
