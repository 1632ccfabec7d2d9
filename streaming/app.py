"""The Faust application: group membership and slot assignment. It carries no data; see `lane` for that.

Faust subscribes to `logstore.slots` (S partitions without records); the partitions it assigns are the slots of this
worker. Its group offsets, changelogs and tables are not used: positions live in the views.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faust
from faust.tables import TableManager
from faust.worker import Worker as FaustWorker

from logstore.model.slots import spread
from logstore.model.table import SLOTS_TOPIC
from logstore.process import logs
from streaming.credentials import credentials

log = logs.get(__name__)

SESSION_S = 6.0  # how long a killed worker keeps its slots
HEARTBEAT_S = 1.0


class NoTables(TableManager):
    """Faust waits a second at the start for tables that agents may still register.

    This app has none, and joins its group at once.
    """

    async def on_start(self) -> None:
        """Start without that wait (faust-streaming 0.15.3, `tables/manager.py`)."""
        await self._update_channels()
        await self.recovery.start()


class PlainWorker(FaustWorker):
    """Faust's runner, without its set-up of the root logger, its terminal codes and its spinner."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, redirect_stdouts=False, quiet=True, **more)
        self.spinner = None

    def _setup_logging(self) -> None:
        """Leave logging as it is (mode-streaming 0.7.1, `worker.py`): `logstore.process.logs` has set it up."""


def make_app(group: str, bootstrap: str, data_dir: Path, slots: int, on_slots: Callable[[Iterable[int]], None]) -> Any:
    """An app that tells `on_slots` every assignment, from its event loop; `slots` is their number in the store."""
    slot_at = spread(slots)
    asyncio.set_event_loop(asyncio.new_event_loop())  # Faust asks for it, and Python 3.12 makes none without a warning
    app = faust.App(
        group,
        broker=[f"kafka://{address}" for address in bootstrap.split(",")],
        broker_credentials=credentials(bootstrap),
        datadir=str(data_dir),
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_request_timeout=20.0,
        stream_recovery_delay=0.0,
        TableManager=NoTables,
        Worker=PlainWorker,
    )
    app.topics.add(app.topic(SLOTS_TOPIC, key_serializer="raw", value_serializer="raw"))

    async def on_assigned(_: Any, assigned: Iterable[Any], **__: Any) -> None:
        mine = sorted(slot_at[where.partition] for where in assigned if where.topic == SLOTS_TOPIC)
        log.debug("Faust has assigned slots", slots=mine)
        on_slots(mine)

    connect: Any = app.on_partitions_assigned.connect  # its type wants a named `signal`, its calls do not
    connect(on_assigned, weak=False)
    return app
