"""Addresses of Kafka and of the read API: as they were given, or those of the node that runs on the data directory."""

from logstore.model.errors import UsageError
from logstore.process.running_node import running_on
from logstore.settings import DEFAULT_HTTP, Settings


def need_bootstrap(settings: Settings) -> str:
    """Kafka's address, given or that of the node that runs on the data directory.

    Raises UsageError when there is neither.
    """
    if settings.bootstrap:
        return settings.bootstrap
    running = running_on(settings.data_dir)
    if running is None:
        raise UsageError(
            "where is Kafka? Give --bootstrap HOST:PORT or set LOGSTORE_BOOTSTRAP; `logstore dev` starts a store with "
            "its own"
        )
    return str(running["bootstrap"])


def need_url(settings: Settings) -> str:
    """URL to read from: the given one, or the node's that runs on the data directory, or the default."""
    if settings.url:
        return settings.url
    running = running_on(settings.data_dir)
    return str(running["url"]) if running else DEFAULT_HTTP.url
