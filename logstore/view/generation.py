"""Generation: the next view of a partition, built beside the one in use, over a newer base.

    1. copy     every entry of version `cut` and above, from one committed state of the old view; the list of what was
                skipped with it; of a conditional table all that it remembers
    2. again    what has come since, round by round, until little comes; the old view is written all the while
    3. flip     the writer of the old view adds the rest, gives the folder its number (`View.move`) and goes on with the
                new one

Built under the name `<number>.new`, which nobody opens: a process killed at any instant leaves the old generation as it
was.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest
from logstore.model.folding.fold import Folded
from logstore.model.hard_rows.decisions import DecisionItem, decisions_digest
from logstore.model.safe_path import below
from logstore.process import durable
from logstore.view.environment import Sync
from logstore.view.layout import Base, Quarantine, State
from logstore.view.reader import Reading, ViewReader
from logstore.view.view import View, ViewIdentity

_CHUNK = 5_000  # entries of one commit
_CHUNK_BYTES = 8 << 20
_FULL_ROUND = 20_000  # entries: a round that copied fewer was quick


class Builder:
    """Builder of one generation. Requires: the process that owns the partition waits for it."""

    def __init__(
        self, source: ViewReader, path: Path, identity: ViewIdentity, base: Base, *, sync: Sync = "none",
        saw: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Begin at `path`; what an earlier attempt left there is removed. `saw` hears how many entries were looked at.

        Raises DiskFull, Corrupted.
        """
        shutil.rmtree(path, ignore_errors=True)
        self._saw = saw
        self._source, self._since = source, base.cut
        self._decided = False  # outcomes and ids were copied once
        self._view = View(path, identity, base, sync=sync)

    def round(self) -> int:
        """Copy what has come since the round before (the first: since the cut); returns how many entries that was."""
        copied = 0
        with self._source.reading() as reading:
            for chunk in _chunks(reading, self._since, self._saw):
                self._view.apply(Folded(self._view.next_offset, self._view.state.log_time_ms, chunk, [], None))
                copied += len(chunk)
            self._view.set_quarantine(reading.quarantine())
            if reading.decisions is not None:
                since = self._since if self._decided else 0  # ids and outcomes are all in the view, none in its base
                decided = reading.decisions
                self._view.load_decisions(decided.items(since), decided.counter, decided.revision)
                self._decided = True
            state = reading.state
        moved = Folded(state.next_offset, state.log_time_ms, {}, [], None)
        self._view.apply(moved, state.leader_epoch, state.stop, state.last)
        self._since = state.next_offset
        return copied

    def rounds(self, most: int = 5) -> None:
        """Rounds until one is quick, `most` at most.

        The last one, begun when the writer keeps what it applies, is the caller's.
        """
        for _ in range(most):
            if self.round() < _FULL_ROUND:
                return

    @property
    def state(self) -> State:
        """State of the new generation."""
        return self._view.state

    def close(self) -> None:
        """Flush: from here on it survives a power cut as any view does."""
        self._view.close()


def begin(
    directory: Path,
    number: int,
    identity: ViewIdentity,
    base: Base | None,
    quarantine: Quarantine,
    *,
    sync: Sync = "none",
    fill: Callable[[View], None] = lambda _: None,
) -> View:
    """A new view under its number, whole or not at all; `fill` gives it what it does not look up in its base.

    One that is half made must not be taken for a view without a base. Raises as `fill`.
    """
    path = unborn(directory, number)
    shutil.rmtree(path, ignore_errors=True)
    view = View(path, identity, base, quarantine=quarantine, sync=sync)
    try:
        fill(view)
        view.move(below(directory, str(number)))
    except BaseException:
        view.close(flush=False)
        raise
    return view


def take_in(view: View, items: Iterable[DecisionItem]) -> None:
    """Have a new view of a conditional table hold the outcomes and ids of the snapshot that it stands on.

    Raises Corrupted when they are not what that snapshot's digest counts, and as `View.load_decisions`.
    """
    base = view.base
    assert base is not None, "a snapshot is stood on"
    view.load_decisions(items, base.counter, base.rules)
    with view.reader().reading() as reading:
        assert reading.decisions is not None, "the table is conditional"
        found = decisions_digest(reading.decisions.items())
    if base.rows.plus(Digest(found.value)).hex != base.digest:
        raise Corrupted(
            f"the outcomes and ids of snapshot {base.snapshot}, {found.entries:,} of them, are not those that its "
            "digest counts; `logstore snapshot verify` looks which file is damaged"
        )


def unborn(directory: Path, number: int) -> Path:
    """Folder in which generation `number` of a partition is built."""
    return below(directory, f"{number}.new")


def older(directory: Path, number: int) -> list[Path]:
    """Folders of generations below `number`, and of attempts that came to nothing."""
    return [child for child in directory.iterdir() if child.is_dir() and _is_older(child.name, number)]


def remove(path: Path) -> None:
    """Remove a generation; the mark of an unsynced one goes last, so that half of it is never believed."""
    (path / "data.mdb").unlink(missing_ok=True)
    shutil.rmtree(path)
    durable.flush(path.parent)


def _is_older(name: str, number: int) -> bool:
    stem, _, kind = name.partition(".")
    return stem.isdigit() and int(stem) < number + (kind == "new") and kind in ("", "new")


def _chunks(reading: Reading, since: int, saw: Callable[[int], None]) -> Iterator[dict[bytes, bytes]]:
    least = since.to_bytes(8, "big")
    chunk: dict[bytes, bytes] = {}
    size_bytes = 0
    for number, (key, entry) in enumerate(reading.scan(), 1):
        if number % _CHUNK == 0:
            saw(_CHUNK)
        if entry[1:9] >= least:
            chunk[key] = entry
            size_bytes += len(key) + len(entry)
            if len(chunk) >= _CHUNK or size_bytes >= _CHUNK_BYTES:
                yield chunk
                chunk, size_bytes = {}, 0
    if chunk:
        yield chunk
