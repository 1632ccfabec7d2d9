"""Worker feed: the records of one worker of this node, also those from before it went away."""

import logging
import time
from pathlib import Path

from logstore.view import paths
from logstore.view.feed.acknowledgement import MarkRecord
from logstore.view.feed.changes import Change
from logstore.view.feed.fields import UnreadableRecord
from logstore.view.feed.log_records import LogRecord
from logstore.view.feed.node_records import NodesRecord
from logstore.view.feed.table_records import ScheduleKey, ScheduleRecord, TablesRecord
from logstore.view.feed.view_records import ViewKey, ViewRecord
from logstore.view.served import Served

GRACE_S = 5.0  # a returned worker opens its views within this time

log = logging.getLogger(__name__)


class WorkerFeed:
    """The dictionary of one worker: definitions, nodes, log and mark as last told, and the views that it serves."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.connected = False
        self.heard = False  # its feed has named the tables since this reader started
        self.tables: TablesRecord | None = None
        self.nodes: NodesRecord | None = None
        self.log: LogRecord | None = None
        self.mark: MarkRecord | None = None
        self.views: dict[ViewKey, ViewRecord] = {}
        self.schedules: dict[ScheduleKey, ScheduleRecord] = {}  # of the worker that leads; none while it is away
        self.updated: set[ViewKey] = set()  # views with a new record since the catalog last looked
        self._former: dict[ViewKey, ViewRecord] = {}
        self._speaking_since: float | None = None

    def begin(self) -> None:
        """The feed is there (again): its records of views are remembered until there are new ones."""
        self._former = {**self._former, **self.views}
        self.views, self.connected, self._speaking_since = {}, True, None
        self.schedules = {}

    def end(self) -> None:
        """The feed broke off: its last records stay known."""
        self.connected = False
        self.schedules = {}

    def hear(self, change: Change) -> bool:
        """Take one change in; True when tables, nodes or views may have changed by it."""
        match change:
            case (ViewKey() as key, (ViewRecord() | None) as view):
                self._hear_view(key, view)
            case (_, TablesRecord() as tables):
                self.tables, self.heard = tables, True
            case (_, NodesRecord() as nodes):
                self.nodes = nodes
            case (_, LogRecord() as kafka):
                self.log = kafka
            case (_, MarkRecord() as mark):
                self.mark = mark
            case (ScheduleKey() as scheduled, (ScheduleRecord() | None) as runs):
                self._hear_schedule(scheduled, runs)
                return False
            case _:
                return False
        return True

    def _hear_schedule(self, key: ScheduleKey, record: ScheduleRecord | None) -> None:
        if record is None:
            self.schedules.pop(key, None)
        else:
            self.schedules[key] = record

    def _hear_view(self, key: ViewKey, record: ViewRecord | None) -> None:
        self._speaking_since = self._speaking_since or time.monotonic()
        self._former.pop(key, None)
        self.updated.add(key)
        if record is None:
            self.views.pop(key, None)
        else:
            self.views[key] = record

    def remembered(self, elsewhere: frozenset[int]) -> dict[ViewKey, ViewRecord]:
        """The views it served before it went away and has not published since.

        Forgotten GRACE_S after it began to name views again; not counted where another node serves the slot by now
        (`elsewhere`).
        """
        if self.connected and self._speaking_since is not None and time.monotonic() - self._speaking_since > GRACE_S:
            self._former = {}
        former = self._former if self.connected else {**self._former, **self.views}
        return {key: record for key, record in former.items() if record.slot not in elsewhere}

    def recall(self, data_dir: Path) -> bool:
        """Take over what the worker left on disk for a reader that starts without it; True when there was something."""
        try:
            left = Served.decode(paths.served_path(data_dir, self.worker).read_bytes())
        except FileNotFoundError:  # it has never served anything
            return False
        except UnreadableRecord as error:  # torn by a crash: the feed tells it all once it is there
            log.warning("what worker %d left on disk cannot be read: %s", self.worker, error)
            return False
        self.tables, self.nodes, self.views = left.tables, left.nodes, dict(left.views)
        return True
