"""Addresses of Kafka and of the read API: as they were given, or those of the node that runs on the data directory."""

from pathlib import Path
from typing import Any

from logstore.log.connect.cluster import Cluster
from logstore.log.connect.sources import process_bootstrap, publish
from logstore.model.errors import UsageError
from logstore.process.running_node import running_on
from logstore.settings import DEFAULT_HTTP, Settings


def given_bootstrap(settings: Settings) -> str | None:
    """Kafka's address as it was given, as such or among Kafka's properties. Raises UsageError."""
    return settings.bootstrap or process_bootstrap()


def need_bootstrap(settings: Settings) -> str:
    """Kafka's address, given or that of the node that runs on the data directory.

    Children of this process reach the same Kafka in the same way. Raises UsageError when there is neither.
    """
    if found := given_bootstrap(settings):
        return found
    running = _running(settings)
    if running is None:
        raise UsageError(
            "where is Kafka? Give --bootstrap HOST:PORT or set LOGSTORE_BOOTSTRAP; `logstore dev` starts a store with "
            "its own"
        )
    if config := running.get("kafka_config"):
        publish(Path(config))
    return Cluster.of(str(running["bootstrap"]))


def need_url(settings: Settings) -> str:
    """URL to read from: the given one, or the node's that runs on the data directory, or the default."""
    if settings.url:
        return settings.url
    running = _running(settings)
    return str(running["url"]) if running else DEFAULT_HTTP.url


def _running(settings: Settings) -> dict[str, Any] | None:
    """The node that runs on the data directory; none does for a user without a home."""
    data_dir = settings.find_data_dir()
    return None if data_dir is None else running_on(data_dir)
