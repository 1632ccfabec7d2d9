"""Options of what runs: nodes, and workers and readers of their own. Each is a setting of the same name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from logstore.cli.options import KAFKA_CONFIG
from logstore.log.connect.sources import publish
from logstore.model.errors import UsageError
from logstore.node.addresses import given_bootstrap
from logstore.settings import Settings, load

Decorator = Callable[[Any], Any]

_OPTIONS: dict[str, Decorator] = {
    "bootstrap": click.option("--bootstrap", metavar="HOST:PORT", help="Kafka."),
    "kafka_config": KAFKA_CONFIG,
    "data_dir": click.option(
        "--data-dir",
        metavar="DIR",
        help="Views, logs, embedded Kafka.  [default: logstore/dev in the user's data directory]",
    ),
    "http": click.option(
        "--http", metavar="HOST:PORT", help="Where readers listen; port 0: any free one.  [default: 127.0.0.1:8480]"
    ),
    "advertise": click.option(
        "--advertise", metavar="URL", help="Where other machines reach the readers.  [default: that of --http]"
    ),
    "workers": click.option("--workers", metavar="N", help="Processes that follow the log.  [default: 1]"),
    "readers": click.option("--readers", metavar="N", help="Processes that answer HTTP.  [default: 2]"),
    "storage": click.option(
        "--storage",
        metavar="URL",
        help="Where archive and snapshots lie (file://, s3://); kept in the store's definition.",
    ),
    "fetch_mb_s": click.option(
        "--fetch-mb-s",
        metavar="MB",
        help="Copied from the storage at most, each second and worker.  [default: 200]",
    ),
    "group": click.option(
        "--group", metavar="NAME", help="Replica group; each holds every partition.  [default: default]"
    ),
    "zone": click.option("--zone", metavar="NAME", help="Label of this node's place."),
    "sync": click.option(
        "--sync",
        metavar="none|commit",
        help="commit: views are flushed at every commit, for a power cut.  [default: none]",
    ),
    "slots": click.option(
        "--slots", metavar="N", help="Units of placement, at the store's first start.  [default: 16]"
    ),
    "log_format": click.option(
        "--log-format",
        metavar="auto|console|json",
        help="Of what this command says; auto: JSON lines, unless it is a terminal.  [default: auto]",
    ),
    "log_level": click.option(
        "--log-level",
        metavar="LEVEL",
        multiple=True,
        callback=lambda _context, _option, given: given or None,
        help="debug, info, warning, error; of one logger: streaming.lane=debug. May be repeated.  [default: info]",
    ),
    "slow_ms": click.option("--slow-ms", metavar="MS", help="Requests that take longer are logged.  [default: 1000]"),
    "access_log": click.option(
        "--access-log", is_flag=True, default=None, help="Log every request; reads are slower by it."
    ),
    "insecure": click.option(
        "--insecure", is_flag=True, default=None, help="Serve beyond loopback although there is no authentication."
    ),
    "writes": click.option(
        "--writes", is_flag=True, default=None, help="Readers take writes over HTTP (docs/http_writes.md)."
    ),
    "kafka_port": click.option(
        "--kafka-port",
        metavar="PORT",
        help="Port of the embedded Kafka; 0: any free one.  [default: that of the last start, else 9092 where it is "
        "free]",
    ),
    "secure": click.option(
        "--secure",
        is_flag=True,
        default=None,
        help="The embedded Kafka asks for passwords over TLS and keeps ACLs; fixed at its first start.",
    ),
    "kafka_heap_mb": click.option(
        "--kafka-heap-mb", metavar="MB", help="Java heap of the embedded Kafka.  [default: 512]"
    ),
}
_KAFKA = ("kafka_port", "secure", "kafka_heap_mb")
READER = (
    "bootstrap", "kafka_config", "data_dir", "http", "workers", "readers", "log_format", "log_level", "slow_ms",
    "access_log", "insecure", "writes",
)  # fmt: skip
ALL = tuple(_OPTIONS)
NODE = tuple(name for name in ALL if name not in _KAFKA)
WORKER = tuple(name for name in NODE if name not in ("slow_ms", "access_log", "insecure", "writes"))


def settings_of(flags: dict[str, Any]) -> Settings:
    """Settings of a command that has these flags; its children reach the same Kafka in the same way."""
    settings = load(flags)
    publish(settings.kafka_config)
    return replace(settings, bootstrap=given_bootstrap(settings))


def need_kafka(settings: Settings, who: str) -> str:
    """Kafka's address. Raises UsageError where none was given."""
    if settings.bootstrap is None:
        raise UsageError(
            f"{who} needs Kafka's address: --bootstrap HOST:PORT or LOGSTORE_BOOTSTRAP; `logstore dev` brings its own "
            "Kafka"
        )
    return settings.bootstrap


def with_options(names: tuple[str, ...], *more: Decorator) -> Decorator:
    """Add the options of these settings, and `more`, to a command."""

    def decorate(function: Any) -> Any:
        for option in reversed([*(_OPTIONS[name] for name in names), *more]):
            function = option(function)
        return function

    return decorate
