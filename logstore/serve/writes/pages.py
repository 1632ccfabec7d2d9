"""Pages of writes, put together."""

from typing import NamedTuple, Self

from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.state.catalog import Catalog
from logstore.serve.writes.batch_write import BatchWrite
from logstore.serve.writes.gateway import Gateway
from logstore.serve.writes.log_writer import LogWriter
from logstore.serve.writes.row_write import RowWrite
from logstore.serve.writes.writes_in_flight import WritesInFlight


class WritePages(NamedTuple):
    """The pages of writes, and the gateway behind them."""

    row: RowWrite
    batch: BatchWrite
    gateway: Gateway

    @classmethod
    def made(cls, bootstrap: str, catalog: Catalog, wait: ConsistencyWait, fan_out: FanOut) -> Self:
        """Make the pages of a reader; nothing is connected before the first write."""
        flight = WritesInFlight()
        writer, of_leaders = LogWriter(bootstrap, flight), LogWriter(bootstrap, flight, acks="1")
        gateway = Gateway(catalog, wait, fan_out, writer, of_leaders, flight)
        return cls(RowWrite(wait, gateway, flight), BatchWrite(wait, gateway, flight), gateway)
