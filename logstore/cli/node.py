"""`logstore node` and `logstore dev`: run a node, with or without a Kafka of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from logstore.cli import show
from logstore.cli.options import KAFKA_CONFIG
from logstore.log.connect.sources import process_properties, publish
from logstore.model.errors import UsageError
from logstore.node.addresses import given_bootstrap
from logstore.node.node import Node
from logstore.process import logs
from logstore.process.private_files import own_files_only
from logstore.settings import Settings, load

_Decorator = Callable[[Any], Any]


def _options(*more: _Decorator) -> _Decorator:
    shared: list[_Decorator] = [
        click.option("--bootstrap", metavar="HOST:PORT", help="Kafka."),
        KAFKA_CONFIG,
        click.option(
            "--data-dir",
            metavar="DIR",
            help="Views, logs, embedded Kafka.  [default: logstore/dev in the user's data directory]",
        ),
        click.option(
            "--http", metavar="HOST:PORT", help="Where readers listen; port 0: any free one.  [default: 127.0.0.1:8480]"
        ),
        click.option(
            "--advertise", metavar="URL", help="Where other machines reach the readers.  [default: that of --http]"
        ),
        click.option("--workers", metavar="N", help="Processes that follow the log.  [default: 1]"),
        click.option("--readers", metavar="N", help="Processes that answer HTTP.  [default: 2]"),
        click.option(
            "--storage",
            metavar="URL",
            help="Where archive and snapshots lie (file://, s3://); kept in the store's definition.",
        ),
        click.option(
            "--fetch-mb-s",
            metavar="MB",
            help="Copied from the storage at most, each second and worker.  [default: 200]",
        ),
        click.option("--group", metavar="NAME", help="Replica group; each holds every partition.  [default: default]"),
        click.option("--zone", metavar="NAME", help="Label of this node's place."),
        click.option(
            "--sync",
            metavar="none|commit",
            help="commit: views are flushed at every commit, for a power cut.  [default: none]",
        ),
        click.option("--slots", metavar="N", help="Units of placement, at the store's first start.  [default: 16]"),
        click.option(
            "--log-format",
            metavar="auto|console|json",
            help="Of what this command says; auto: JSON lines, unless it is a terminal.  [default: auto]",
        ),
        click.option(
            "--log-level",
            metavar="LEVEL",
            multiple=True,
            callback=lambda _context, _option, given: given or None,
            help="debug, info, warning, error; of one logger: streaming.lane=debug. May be repeated.  [default: info]",
        ),
        click.option("--slow-ms", metavar="MS", help="Requests that take longer are logged.  [default: 1000]"),
        click.option("--access-log", is_flag=True, default=None, help="Log every request; reads are slower by it."),
        click.option(
            "--insecure", is_flag=True, default=None, help="Serve beyond loopback although there is no authentication."
        ),
    ]

    def decorate(function: Any) -> Any:
        for option in reversed([*shared, *more]):
            function = option(function)
        return function

    return decorate


@click.command()
@_options()
def node(**flags: Any) -> None:
    """Run a node of a store: workers and readers, kept running, on a Kafka that is there. Ends at SIGTERM, in order.

    Prints one JSON line when it is ready.
    """
    settings = _settings(flags)
    if settings.bootstrap is None:
        raise UsageError(
            "a node needs Kafka's address: --bootstrap HOST:PORT or LOGSTORE_BOOTSTRAP; `logstore dev` brings its own "
            "Kafka"
        )
    own_files_only()
    _log_as(settings)
    Node(settings).run(show.as_json)


@click.command()
@_options(
    click.option(
        "--kafka-port",
        metavar="PORT",
        help="Port of the embedded Kafka; 0: any free one.  [default: that of the last start, else 9092 where it is "
        "free]",
    ),
    click.option(
        "--secure",
        is_flag=True,
        default=None,
        help="The embedded Kafka asks for passwords over TLS and keeps ACLs; fixed at its first start.",
    ),
    click.option("--kafka-heap-mb", metavar="MB", help="Java heap of the embedded Kafka.  [default: 512]"),
)
def dev(**flags: Any) -> None:
    """Run a whole store on this machine.

    A real Kafka (unless --bootstrap names one), workers, readers. Ends at Ctrl-C, in order.

    Prints one JSON line when it is ready.
    """
    settings = _settings(flags)
    if settings.bootstrap is None:
        _check_own_kafka()
        show.warn(f"starting Kafka and a node in {settings.data_dir} ...")
    own_files_only()
    _log_as(settings)
    Node(settings).run(_ready)


def _log_as(settings: Settings) -> None:
    logs.set_up("node", form=settings.log_format, levels=settings.log_level)


def _settings(flags: dict[str, Any]) -> Settings:
    settings = load(flags)
    publish(settings.kafka_config)
    return replace(settings, bootstrap=given_bootstrap(settings))


def _check_own_kafka() -> None:
    """Raise UsageError where properties speak of another Kafka than the embedded one, whose children would use them."""
    if stray := sorted(process_properties()):
        raise UsageError(
            f"Kafka's properties are given ({', '.join(stray)}), and no address: --bootstrap says which Kafka is "
            "meant; the one that `logstore dev` starts needs none, --secure makes its own"
        )


def _ready(facts: dict[str, Any]) -> None:
    show.as_json(facts)
    proof = f" LOGSTORE_KAFKA_CONFIG={facts['kafka_config']}" if facts["kafka_config"] else ""
    show.warn(
        "ready. In another terminal:\n"
        f"    export LOGSTORE_BOOTSTRAP={facts['bootstrap']} LOGSTORE_URL={facts['http']}{proof}\n"
        "    logstore table create users\n"
        '    logstore put users ada "Ada Lovelace"\n'
        "    logstore get users ada\n"
        "Ctrl-C ends it; the data stay."
    )
