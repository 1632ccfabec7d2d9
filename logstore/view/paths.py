"""Paths of a node's data directory, and the lock of the one process that may write a partition's views.

<data>/views/<table>/<epoch>/<partition>/<generation>/data.mdb    the LMDB environment of one view
                                                     /unsynced    there while the environment was written without sync:
                                                                  the machine's boot id at that time
                                        /<generation>.new/        a generation that is being built
                                        /owner                    locked (flock) by the one process that writes
                                        /reached                  there once its view has been at the end of the log
                                        /digests.json             digests at the newest cuts (`digest.digest_file`)
<data>/snapshots/<table>/<epoch>/<partition>/<name>/              a RocksDB directory over a snapshot's files
                                            /<name>.files/        those files as they were fetched, and the manifest
<data>/discards/<epoch>-<partition>                               asked for by `logstore view discard`
<data>/workers/<index>.json                                       its served state, for a reader that starts first
<data>/positions/<worker>.json                                    positions that outlive the views (`positions`)
<data>/run/worker-<index>.sock                                    the worker's feed
<data>/run/node.json                                              process ids
"""

import fcntl
import os
from pathlib import Path

from logstore.model.errors import Overloaded
from logstore.model.safe_path import below
from logstore.process.durable import flush
from logstore.view.preallocate import room_for

_REACHED = "reached"
DIGESTS = "digests.json"  # beside the generations of a partition
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def epoch_dir(data_dir: Path, table: str, epoch: str) -> Path:
    """The folder of one table's partitions, as long as its topic is the same."""
    return below(data_dir, "views", table, epoch)


def partition_dir(data_dir: Path, table: str, epoch: str, partition: int) -> Path:
    """The folder of one partition's generations."""
    return below(epoch_dir(data_dir, table, epoch), str(partition))


def positions_dir(data_dir: Path) -> Path:
    """The folder of what each worker has followed, see `logstore.view.positions`."""
    return data_dir / "positions"


def snapshots_dir(data_dir: Path, table: str, epoch: str) -> Path:
    """The folder of one table's local snapshots, a folder of each partition in it."""
    return below(data_dir, "snapshots", table, epoch)


def snapshot_dir(data_dir: Path, table: str, epoch: str, partition: int) -> Path:
    """The folder of one partition's local snapshots."""
    return below(snapshots_dir(data_dir, table, epoch), str(partition))


def discards_dir(data_dir: Path) -> Path:
    """The folder of requests to throw views away."""
    return data_dir / "discards"


def discard_path(data_dir: Path, epoch: str, partition: int) -> Path:
    """The request to throw away the view of one partition."""
    return below(discards_dir(data_dir), f"{epoch}-{partition}")


def default_storage(data_dir: Path) -> str:
    """URL of archive and snapshots when none was given: below the data directory, for one machine only."""
    return f"file://{data_dir.absolute() / 'storage'}"


def feed_path(data_dir: Path, worker: int) -> Path:
    """The socket of a worker's feed."""
    return data_dir / "run" / f"worker-{worker}.sock"


def served_path(data_dir: Path, worker: int) -> Path:
    """File of a worker's served state."""
    return data_dir / "workers" / f"{worker}.json"


def boot_id() -> str:
    """An id that changes with every boot of the machine."""
    return BOOT_ID.read_text().strip()


class Owner:
    """The exclusive right to write one partition's views, held until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        """Lock the partition's folder.

        Raises Overloaded (retriable) while another process holds it or removes the folder, DiskFull when there is no
        room for one.
        """
        try:
            with room_for(directory):
                directory.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(directory / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (FileNotFoundError, FileExistsError) as error:  # also `mkdir`, of a folder that goes while it looks
            if directory.is_file():
                raise
            raise _removed(directory) from error
        try:
            self._take(directory)
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, directory: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(directory / "owner")
        except BlockingIOError as error:
            raise Overloaded(f"another process still writes {directory}") from error
        except FileNotFoundError as error:
            raise _removed(directory) from error
        if not os.path.samestat(
            there, os.fstat(self._fd)
        ):  # the folder was removed and made again between open and lock
            raise _removed(directory)

    def release(self) -> None:
        """Give the right up."""
        os.close(self._fd)


def _removed(directory: Path) -> Overloaded:
    return Overloaded(f"another process removes {directory}")


def has_reached(directory: Path) -> bool:
    """True once the view in a partition's folder, or the one it was made of, has been at the end of the log."""
    return (directory / _REACHED).exists()


def mark_reached(directory: Path, *, reached: bool) -> None:
    """Note that the view has been at the end of the log, or that it begins anew and has not. Raises OSError."""
    if reached:
        (directory / _REACHED).touch()
    else:
        (directory / _REACHED).unlink(missing_ok=True)
        flush(directory)


def newest_generation(directory: Path) -> int:
    """The newest generation in a partition's folder; 0 when there is none."""
    return max((int(child.name) for child in directory.iterdir() if child.name.isdigit()), default=0)
