"""Addresses that nobody gave: where every command would look, `logstore.toml` first, then the node that runs here."""

from typing import Literal

from logstore.log.connect.cluster import Cluster
from logstore.log.connect.sources import process_bootstrap

Address = Literal["bootstrap", "url"]


def find(name: Address) -> str | None:
    """An address of the store that this process belongs to; None: nothing says which that is."""
    from logstore import settings  # noqa: PLC0415 - only where nothing is given
    from logstore.process.running_node import running_on  # noqa: PLC0415 - only who needs it waits for its import

    chosen = settings.load()
    given = {"bootstrap": chosen.bootstrap or process_bootstrap(), "url": chosen.url}
    if any(given.values()):
        return given[name]
    data_dir = chosen.find_data_dir()
    running = None if data_dir is None else running_on(data_dir)
    if running and name == "bootstrap":
        return Cluster.recorded(running)
    return str(running[name]) if running else None
