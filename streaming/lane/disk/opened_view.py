"""Opened view: the generation of a partition that is gone on with, or one that begins from its bootstrap.

A generation that is not sound is removed: the log is the truth, a view is a fold of it and nothing else.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import Corrupted, Overloaded
from logstore.model.safe_path import below
from logstore.snapshot import decisions
from logstore.view import generation, paths
from logstore.view.environment import Sync, discard_if_torn
from logstore.view.layout import Base, Quarantine
from logstore.view.view import View, ViewIdentity
from streaming.lane.target import Target

log = logging.getLogger(__name__)


class Bootstrap(NamedTuple):
    """State with which a view that is not there yet begins.

    A snapshot, what was skipped below its cut, and its file of outcomes and ids if it has one; or nothing, at offset 0.
    """

    base: Base | None = None
    quarantine: Quarantine = Quarantine({}, [])
    decided: Path | None = None


class BootstrapPending(Overloaded):
    """Bootstrap is being found out; ask again after `again_s`."""

    def __init__(self, message: str, again_s: float) -> None:
        super().__init__(message)
        self.again_s = again_s


def identity_of(target: Target) -> ViewIdentity:
    """Identity of the target's view."""
    return ViewIdentity.of(target.table, target.partition)


def open_view(target: Target, data_dir: Path, sync: Sync, bootstrapper: Callable[[Target], Bootstrap]) -> View:
    """The view that an earlier run left, or a new one over what `bootstrapper` says.

    Requires: the partition's folder is owned. Raises DiskFull, NotYet, OSError, and as `bootstrapper` does.
    """
    _discard_if_requested(target, data_dir)
    return _left(target, data_dir, sync) or _begun(target, data_dir, sync, bootstrapper)


def _discard_if_requested(target: Target, data_dir: Path) -> None:
    """Do what `logstore view discard` asked for while nobody had the view open."""
    request = paths.discard_path(data_dir, *target.key)
    if request.exists():
        directory = paths.partition_dir(data_dir, target.table.name, target.table.epoch, target.partition)
        log.warning("%s: the views there are thrown away, as was asked for", directory)
        for child in [child for child in directory.iterdir() if child.is_dir()]:
            generation.remove(child)
        below(directory, paths.DIGESTS).unlink(missing_ok=True)
        request.unlink(missing_ok=True)


def _left(target: Target, data_dir: Path, sync: Sync) -> View | None:
    """The newest generation that is sound.

    Those that are not are removed. None: there is none. Raises DiskFull, NotYet, OSError.
    """
    while ((path := _sound_path(target, data_dir)) / "data.mdb").exists():
        try:
            return View(path, identity_of(target), sync=sync)
        except Corrupted as error:
            log.warning("%s; it is removed", error)
            generation.remove(path)
    return None


def _begun(target: Target, data_dir: Path, sync: Sync, bootstrapper: Callable[[Target], Bootstrap]) -> View:
    """A new view over its bootstrap. Raises DiskFull, NotYet, OSError and what `bootstrapper` raises."""
    begun, path = bootstrapper(target), view_path(target, data_dir)
    paths.mark_reached(path.parent, reached=False)
    if path.exists():  # what is left of one that was removed half-way, or lost its file
        generation.remove(path)
    return begin_view(path, target, begun, sync)


def begin_view(path: Path, target: Target, bootstrap: Bootstrap, sync: Sync) -> View:
    """A new view at `path`, which nobody sees before it is whole. Raises DiskFull, NotYet, OSError, Corrupted."""
    base, quarantine, decided = bootstrap

    def fill(view: View) -> None:
        if base is None or not target.table.conditional:
            return
        with ExitStack() as opened:
            generation.take_in(view, () if decided is None else opened.enter_context(decisions.stored(decided)))

    number, identity = int(path.name), identity_of(target)
    return generation.begin(path.parent, number, identity, base, quarantine, sync=sync, fill=fill)


def _sound_path(target: Target, data_dir: Path) -> Path:
    """The newest generation that no power cut has torn; where the next one begins when there is none."""
    while discard_if_torn(path := view_path(target, data_dir)):
        pass
    return path


def view_path(target: Target, data_dir: Path) -> Path:
    """Path of the target's view, which may not be there yet. Requires: the partition's folder is there."""
    directory = paths.partition_dir(data_dir, target.table.name, target.table.epoch, target.partition)
    return below(directory, str(max(1, paths.newest_generation(directory))))
