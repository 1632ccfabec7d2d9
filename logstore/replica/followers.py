"""Followers: one for each data directory that this process reads, shared by all replicas of it.

The data directory is known by device and inode, so that two ways to write its path are one. A forked child has none of
its parent's threads and begins anew.
"""

import threading
from pathlib import Path

from logstore.log.after_fork import keep, renew_in_child
from logstore.model.errors import SetupError
from logstore.replica.follower import Follower

Place = tuple[int, int]


class Followers:
    """The followers of a process, each with the number of replicas that use it."""

    def __init__(self) -> None:
        self._lock, self._known = threading.Lock(), dict[Place, tuple[Follower, int]]()
        renew_in_child(self)

    def take(self, data_dir: Path) -> Follower:
        """The follower of a data directory, for one replica more. Raises SetupError."""
        try:
            found = data_dir.stat()
        except OSError as error:
            raise SetupError(f"there is no data directory {data_dir}: {error.strerror}") from error
        place = found.st_dev, found.st_ino
        with self._lock:
            follower, count = self._known.get(place, (None, 0))
            if follower is None:
                follower = Follower(data_dir)
            self._known[place] = follower, count + 1
        return follower

    def give_back(self, follower: Follower) -> None:
        """Close the follower behind the last replica that uses it."""
        with self._lock:
            for place, (known, count) in list(self._known.items()):
                if known is follower:
                    self._known[place] = known, count - 1
                    if count > 1:
                        return
                    del self._known[place]
        follower.close()

    def after_fork(self) -> None:
        """Begin anew in the child; see `log.after_fork`."""
        keep(self._known)
        self._lock, self._known = threading.Lock(), {}


FOLLOWERS = Followers()


def end_all() -> None:
    """Close what is still open when the process ends."""
    for follower, _ in list(FOLLOWERS._known.values()):
        follower.close()
