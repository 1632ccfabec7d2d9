"""Followers: one for each data directory that this process reads, shared by all replicas of it.

Two ways to write the path of a data directory are one. A forked child has none of its parent's threads and begins anew.
"""

import threading
from pathlib import Path

from logstore.log.after_fork import keep, renew_in_child
from logstore.model.errors import SetupError
from logstore.replica.follower import Follower


class Followers:
    """The followers of a process, each with the number of replicas that use it."""

    def __init__(self) -> None:
        self._lock, self._known = threading.Lock(), dict[Follower, int]()
        renew_in_child(self)

    def take(self, data_dir: Path) -> Follower:
        """The follower of a data directory, for one replica more. Raises SetupError."""
        try:
            data_dir.stat()
        except OSError as error:
            raise SetupError(f"there is no data directory {data_dir}: {error.strerror}") from error
        with self._lock:
            follower = next((known for known in self._known if _lead_to_one(known.data_dir, data_dir)), None)
            if follower is None:
                follower = Follower(data_dir)
            self._known[follower] = self._known.get(follower, 0) + 1
        return follower

    def give_back(self, follower: Follower) -> None:
        """Close the follower behind the last replica that uses it."""
        with self._lock:
            count = self._known.pop(follower, 1)  # that of a parent process is not known here
            if count > 1:
                self._known[follower] = count - 1
                return
        follower.close()

    def after_fork(self) -> None:
        """Begin anew in the child; see `log.after_fork`."""
        keep(self._known)
        self._lock, self._known = threading.Lock(), {}


def _lead_to_one(first: Path, second: Path) -> bool:
    """True when both paths lead to one folder now; one that is deleted may have left its inode to another."""
    try:
        return first.samefile(second)
    except OSError:
        return False


FOLLOWERS = Followers()


def end_all() -> None:
    """Close what is still open when the process ends."""
    for follower in list(FOLLOWERS._known):
        follower.close()
