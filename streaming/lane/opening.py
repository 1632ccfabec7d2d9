"""Opening: a view is opened, or begun, or the reason why not is shown."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import Corrupted, DiskFull, LogStoreError, NoSuchSnapshot, NotYet, Overloaded
from logstore.view import paths
from logstore.view.environment import Sync
from logstore.view.positions import AppliedPositions, position_name
from streaming.lane.disk.opened_view import Bootstrap, BootstrapPending
from streaming.lane.partition import FollowedPartition, Phase
from streaming.lane.status import LaneStatus
from streaming.lane.target import Target

RETRY_S = 0.5


class OpenLater(NamedTuple):
    """Opening is put off. `again_s`: when to try again; `phase`: None while nothing is known."""

    again_s: float
    phase: Phase | None = None


class ViewOpening:
    """Opening of one lane's views. `bootstrapper` says with what a new view begins."""

    def __init__(
        self, data_dir: Path, sync: Sync, bootstrapper: Callable[[Target], Bootstrap], status: LaneStatus
    ) -> None:
        self._data_dir, self._sync, self._bootstrapper, self._status = data_dir, sync, bootstrapper, status
        self._outlived = AppliedPositions(data_dir)

    def open(self, target: Target) -> FollowedPartition | OpenLater:
        """The partition, ready to be followed."""
        if target.hold is not None and not self._has_view(target):
            return self._held(target, target.hold)  # before it is begun, with nothing to answer from
        try:
            outlived = self._outlived.of(position_name(target.table.name, *target.key))
            return FollowedPartition(
                target, self._data_dir, sync=self._sync, bootstrapper=self._bootstrapper, outlived=outlived
            )
        except BootstrapPending as error:
            return OpenLater(error.again_s)
        except Overloaded:  # another worker of this node still has it
            return OpenLater(RETRY_S)
        except DiskFull as error:
            self._status.unopened(target, self._data_dir, str(error))
            return OpenLater(RETRY_S)
        except NotYet as error:  # the storage does not answer: other tables do not wait for it
            return self._held(target, str(error))
        except NoSuchSnapshot as error:
            self._status.stopped(target, str(error))
            return OpenLater(RETRY_S, "stopped")
        except Corrupted as error:  # of what it would begin with: a view that is damaged is begun again
            self._status.stopped(target, str(error))
            return OpenLater(RETRY_S, "stopped")
        except OSError as error:  # no descriptor left, a folder that cannot be made: of this partition alone
            return self._held(target, f"the view cannot be opened: {error}; it is tried again")
        except LogStoreError as error:  # its topic is gone, or is not what it should be: of this table alone
            return self._held(target, str(error))

    def _has_view(self, target: Target) -> bool:
        directory = paths.partition_dir(self._data_dir, target.table.name, *target.key)
        return directory.exists() and paths.newest_generation(directory) > 0

    def _held(self, target: Target, why: str) -> OpenLater:
        """Say why the partition does not begin; what is known of its topic comes first."""
        known = target.hold if target.problem is None else target.problem.detail
        if known is not None:
            self._status.stopped(target, known)
            return OpenLater(RETRY_S, "stopped")
        self._status.unopened(target, self._data_dir, why)
        return OpenLater(RETRY_S, "catching-up")
