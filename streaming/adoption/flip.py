"""Flip: steps of an adopter that the lane does to one partition, between two batches (`mailbox.Mailbox`).

keep      begin to keep what is applied, for `flip`
flip      go on with the generation that was built: add what was kept, give it its number, let the old one go
begin     go on with a new, empty generation over a snapshot whose cut lies ahead: the log between is gone
rebase    the view's base is here again
discard   throw the view away, and what is known of it: it begins again as one that was never here
"""

import time
from collections.abc import Callable
from pathlib import Path

from logstore.model.errors import Overloaded
from logstore.model.safe_path import below
from logstore.process import logs
from logstore.view import generation
from logstore.view.view import View
from streaming.digest import digest_file
from streaming.lane.change_buffer import LIMIT_BYTES, ChangeBuffer
from streaming.lane.disk.opened_view import Bootstrap, begin_view, identity_of
from streaming.lane.partition import FollowedPartition

log = logs.get(__name__)

Step = Callable[[FollowedPartition], None]


def start_buffer(followed: FollowedPartition) -> None:
    """Keep what is applied from now on."""
    followed.change_buffer = ChangeBuffer()


def drop_buffer(followed: FollowedPartition) -> None:
    """Keep the change buffer no longer: the attempt came to nothing."""
    followed.change_buffer = None


def flip(snapshots: Path) -> Step:
    """Take over `<number + 1>.new`. Raises Overloaded when more was applied meanwhile than could be kept, DiskFull."""

    def step(followed: FollowedPartition) -> None:
        begun_s = time.monotonic()
        change_buffer, followed.change_buffer = followed.change_buffer, None
        if change_buffer is None or change_buffer.over:
            raise Overloaded(
                f"more than {LIMIT_BYTES >> 20} MiB were written while the next generation was built; it is tried again"
            )
        directory, number = _next(followed)
        view = View(generation.unborn(directory, number), identity_of(followed.target), sync=followed.sync)
        try:
            state = followed.view.state
            view.apply(change_buffer.since(view.next_offset, state), state.leader_epoch, state.stop, state.last)
            view.move(below(directory, str(number)))
        except BaseException:
            view.close(flush=False)
            raise
        log.info(
            "the generation was flipped", table=followed.target.table.name, partition=followed.target.partition,
            generation=number, applied=view.next_offset, ms=round((time.monotonic() - begun_s) * 1000, 1),
        )  # fmt: skip
        followed.replace(view, snapshots).close(
            flush=False
        )  # flushing what is removed soon would only hold the lane up

    return step


def begin(bootstrap: Bootstrap, snapshots: Path) -> Step:
    """Replace a view that the log does not reach any more. Requires: its cut is above the view's position."""

    def step(followed: FollowedPartition) -> None:
        directory, number = _next(followed)
        view = begin_view(below(directory, str(number)), followed.target, bootstrap, followed.sync)
        followed.replace(view, snapshots).close(flush=False)

    return step


def rebase(snapshots: Path) -> Step:
    """Look for the view's base again."""
    return lambda followed: followed.find_base(snapshots)


def discard(why: str) -> Step:
    """Throw the view away, with its digests: they are those of what it held."""

    def step(followed: FollowedPartition) -> None:
        for old in generation.older(followed.directory, int(followed.view.path.name)):
            generation.remove(old)
        digest_file.path_in(followed.directory).unlink(missing_ok=True)
        followed.discarded = why

    return step


def _next(followed: FollowedPartition) -> tuple[Path, int]:
    path = followed.view.path
    return path.parent, int(path.name) + 1
