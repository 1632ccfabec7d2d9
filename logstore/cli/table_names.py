"""Names of tables for a shell's completion, asked of a node, or of Kafka. Nothing is said where nobody answers."""

import threading
from typing import Any

import click

from logstore import settings
from logstore.settings import Settings

DEADLINE_S = 2.0  # a key was pressed, and somebody waits
PAGE_S = 1.0
_OPTIONS = ("bootstrap", "kafka_config", "url", "data_dir")


def table_names(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The tables whose name begins with `begun`, as the node or the Kafka that the words so far mean has them."""
    found: list[str] = []
    asking = threading.Thread(target=_ask, args=(dict(context.params), found), daemon=True)
    asking.start()
    asking.join(DEADLINE_S)
    return sorted(name for name in found if name.startswith(begun))


def _ask(given: dict[str, Any], found: list[str]) -> None:
    for ask in (_of_node, _of_kafka):
        try:
            found += ask(settings.load({name: given.get(name) for name in _OPTIONS}))
            return
        except Exception:  # a shell would put a complaint into the line that is being typed
            continue


def _of_node(chosen: Settings) -> list[str]:
    from logstore.client.transport.node_pages import NodePages  # noqa: PLC0415 - only a shell asks
    from logstore.node.addresses import need_url  # noqa: PLC0415 - only a shell asks

    with NodePages(PAGE_S) as pages:
        return [str(table["name"]) for table in pages.get(need_url(chosen), "/v1/tables").document["tables"]]


def _of_kafka(chosen: Settings) -> list[str]:
    from logstore.log.tables.registry import Registry  # noqa: PLC0415 - only a shell asks
    from logstore.node.addresses import need_bootstrap  # noqa: PLC0415 - only a shell asks

    return list(Registry(need_bootstrap(chosen)).tables())
