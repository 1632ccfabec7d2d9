"""Shared reader: a view that several threads of this process read, while others take it, drop it, or fork.

It is closed when nobody holds it any more. The map reaches further than the file, so that a view that grows is seldom
met with a map that is too short; when it is, the map is taken over while no thread reads.

LMDB knows readers by their process, so an environment must not cross a fork: all are closed before it, on both sides
the first reading opens its view again. Where a reading is open at that moment the parent goes on with its environments,
and the child cannot open the same ones.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import lmdb

from logstore.model.errors import NotYet
from logstore.view import damage, layout
from logstore.view.reader import Reading, ViewReader, open_to_read
from logstore.view.shared.gate import GATE

ROOM = 4  # times the file's length that the map reaches
_UNKNOWN = -1, b""


class _NotOpen(lmdb.Error):
    """The environment was closed before a fork."""


class _Closed:
    """An environment that is not open."""

    def begin(self, **_: object) -> NoReturn:
        """Refuse to begin a transaction."""
        raise _NotOpen("closed before a fork")

    def close(self) -> None:
        """Do nothing: it is closed."""


class SharedReader(ViewReader):
    """A view opened for reading by any thread. `open` gives the one that there is by now."""

    def __init__(self, env: Any, path: Path) -> None:
        """Read the environment at `path`; callers use `open`."""
        super().__init__(env, path)
        self._known = _UNKNOWN  # the commit that was read last, and its state
        self._begun: list[None] = []  # an item for each transaction of `reading` that is open
        self._place = _place(path)

    @classmethod
    def open(cls, path: Path) -> "SharedReader":
        """The view at `path`, opened unless it is open in this process. Raises as `ViewReader.open`."""
        with GATE.passed(), _opened.lock:
            known = _opened.at(path)
            if known is not None:
                return known
            with damage.translating(path):
                env = _environment(path)
                try:
                    made = cls(env, path)
                except BaseException:
                    env.close()
                    raise
            _opened.readers[made._place] = made
            return made

    def point(self, row_key: bytes) -> tuple[bytes, bytes | None]:
        """State and entry (or None) of one commit, both encoded; the state is read once for each commit.

        Requires: the row key is not empty. Raises as `reading`.
        """
        if len(row_key) > layout.SHORT_BYTES:
            with self.reading() as reading:
                return reading.raw_state, reading.get(row_key)
        me = get_ident()
        GATE.come(me)
        if GATE.closed:
            GATE.wait(me)
        try:
            with self._env.begin() as txn:
                commit, state = self._known
                if txn.id() != commit:
                    state = txn.get(layout.STATE, b"", self._meta)
                    self._known = txn.id(), state
                return state, txn.get(row_key, None, self._entries)
        except lmdb.Error as error:
            failed = error
        finally:
            GATE.go(me)
            if GATE.closed:
                GATE.left()
        self._mend(failed)
        return self.point(row_key)

    @contextmanager
    def reading(self, *, buffers: bool = False) -> Iterator[Reading]:
        """Several reads of one committed state, as of `ViewReader`; `buffers`: what is read lies in the map itself."""
        me, txn = self._enter(buffers=buffers)
        try:
            yield self._reading_of(txn)
        finally:
            txn.abort()
            self._begun.pop()
            GATE.leave(me)

    def is_open(self) -> bool:
        """True unless it was closed and nobody has read it since."""
        return not isinstance(self._env, _Closed)

    def close(self) -> None:
        """Close the environment, until the next reading. Requires: nobody reads."""
        env, self._env = self._env, _Closed()
        env.close()

    def _enter(self, *, buffers: bool) -> tuple[int, Any]:
        """A transaction inside the gate, and what to leave that with. Raises as `reading`."""
        while True:
            me = GATE.enter()
            try:
                txn = self._env.begin(buffers=buffers)
                self._begun.append(None)
                return me, txn
            except lmdb.Error as error:
                GATE.leave(me)
                failed = error
            self._mend(failed)

    def _mend(self, error: lmdb.Error) -> None:
        """Do what lets a reading begin again. Raises what LMDB's error is to the store."""
        if isinstance(error, lmdb.MapResizedError):
            self._take_map()
        elif isinstance(error, _NotOpen):
            self._reopen()
        else:
            raise damage.translated(self._path, error) from error

    def _take_map(self) -> None:
        """Take over a map that its writer has grown. Raises NotYet while somebody reads, this thread too."""
        with GATE.alone() as alone:
            if not alone or self._begun:
                raise NotYet(f"the view {self._path} has grown beyond its map, and is being read; try again")
            with damage.translating(self._path):
                self._env.set_mapsize(0)

    def _reopen(self) -> None:
        with GATE.passed(), _opened.lock, damage.translating(self._path):
            if self.is_open():
                return
            if _opened.at(self._path) is not self:
                raise NotYet(f"another view lies at {self._path} by now; try again")
            made = vars(ViewReader(_environment(self._path), self._path))
            self._known, env = _UNKNOWN, made.pop("_env")
            vars(self).update(made)  # databases
            self._env = env  # last: whoever reads begins with it


def close_idle(readers: Iterable[SharedReader]) -> None:
    """Close views that nobody reads now; whoever still holds one opens it again by reading it."""
    with GATE.alone() as alone:
        for reader in readers:
            if alone and not reader._begun:
                reader.close()


class _Opened:
    """The views that are open in this process, by device and inode of their files."""

    def __init__(self) -> None:
        self.readers: WeakValueDictionary[tuple[int, int], SharedReader] = WeakValueDictionary()
        self.lock = threading.Lock()
        self._forking = threading.local()
        self._inherited: list[SharedReader] = []  # never closed here: the parent reads them

    def at(self, path: Path) -> SharedReader | None:
        """The reader of what lies at `path` now.

        One that is closed holds its file no more: when that is deleted, another view may bear its inode.
        """
        try:
            known = self.readers.get(_place(path))
            return known if known is None or known.is_open() or _place(known._path) == _place(path) else None
        except FileNotFoundError:
            return None

    def before_fork(self) -> None:
        """Close all, unless one is being read."""
        self._forking.stack, self._forking.held = ExitStack(), ()
        readers = list(self.readers.values())
        alone = self._forking.stack.enter_context(GATE.alone())
        if not alone or any(reader._begun for reader in readers):
            self._forking.held = readers
            return
        for reader in readers:
            reader.close()

    def after_in_parent(self) -> None:
        """Let everybody read again."""
        self._forking.stack.close()

    def after_in_child(self) -> None:
        """Begin anew; what could not be closed is left alone."""
        self._inherited += self._forking.held
        self.readers, self.lock = WeakValueDictionary(), threading.Lock()
        GATE.renew()


def _environment(path: Path) -> Any:
    try:
        return open_to_read(path, ROOM)
    except lmdb.MemoryError:  # address space is limited here
        return open_to_read(path)


def _place(path: Path) -> tuple[int, int]:
    found = (path / "data.mdb").stat()
    return found.st_dev, found.st_ino


_opened = _Opened()
os.register_at_fork(
    before=_opened.before_fork, after_in_parent=_opened.after_in_parent, after_in_child=_opened.after_in_child
)
