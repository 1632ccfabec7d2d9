"""`logstore node` and `logstore dev`: run a node, with or without a Kafka of its own."""

from typing import Any

import click

from logstore.cli import show
from logstore.cli.running.options import NODE, need_kafka, settings_of, with_options
from logstore.log.connect.sources import process_properties
from logstore.model.errors import UsageError
from logstore.node.node import Node
from logstore.process import logs
from logstore.process.private_files import own_files_only


@click.command()
@with_options(NODE)
def node(**flags: Any) -> None:
    """Run a node of a store: workers and readers, kept running, on a Kafka that is there. Ends at SIGTERM, in order.

    Prints one JSON line when it is ready.
    """
    settings = settings_of(flags)
    need_kafka(settings, "a node")
    own_files_only()
    logs.set_up("node", form=settings.log_format, levels=settings.log_level)
    Node(settings).run(show.as_json)


@click.command()
@with_options(
    NODE,
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
    settings = settings_of(flags)
    if settings.bootstrap is None:
        _check_own_kafka()
        show.warn(f"starting Kafka and a node in {settings.data_dir} ...")
    own_files_only()
    logs.set_up("node", form=settings.log_format, levels=settings.log_level)
    Node(settings).run(_ready)


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
