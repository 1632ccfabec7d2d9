"""`logstore node` and `logstore dev`: run a node, with or without a Kafka of its own."""

from pathlib import Path
from typing import Any

import click

from logstore.cli import show
from logstore.cli.running.detached import start
from logstore.cli.running.ending import ending_for_good
from logstore.cli.running.options import ALL, NODE, need_kafka, settings_of, with_options
from logstore.log.connect.sources import process_properties
from logstore.model.errors import UsageError
from logstore.node.node import Node
from logstore.process import logs
from logstore.process.private_files import own_files_only


@click.command()
@with_options(NODE)
def node(**flags: Any) -> None:
    """Run a node of a store: workers and readers, kept running, on a Kafka that is there. Ends at SIGTERM, in order.

    Prints one JSON line when it is ready. Exit status 4: started again it would end again, until a person has done what
    it says.
    """
    settings = settings_of(flags)
    need_kafka(settings, "a node")
    own_files_only()
    logs.set_up("node", form=settings.log_format, levels=settings.log_level)
    with ending_for_good():
        Node(settings).run(show.as_json)


@click.command()
@with_options(
    ALL,
    click.option("--detach", is_flag=True, help="Run it in the background: return when it is ready, `stop` ends it."),
    click.option("--log-file", hidden=True, type=click.Path(path_type=Path), help="Log there instead of to stderr."),
)
def dev(detach: bool, log_file: Path | None, **flags: Any) -> None:
    """Run a whole store on this machine.

    A real Kafka (unless --bootstrap names one), workers, readers. Ends at Ctrl-C, or by `logstore stop`, in order.

    Prints one JSON line when it is ready.
    """
    settings = settings_of(flags)
    if settings.bootstrap is None:
        _check_own_kafka()
    own_files_only()
    if detach:
        _ready(start(settings.data_dir, flags), "`logstore stop` ends it; the data stay.")
        return
    if settings.bootstrap is None:
        show.warn(f"starting Kafka and a node in {settings.data_dir} ...")
    logs.set_up("node", form=settings.log_format, levels=settings.log_level, file=log_file)
    ended_by = "Ctrl-C ends it; the data stay."
    with ending_for_good():
        Node(settings).run(lambda facts: show.as_json(facts) if log_file else _ready(facts, ended_by))


def _check_own_kafka() -> None:
    """Raise UsageError where properties speak of another Kafka than the embedded one, whose children would use them."""
    if stray := sorted(process_properties()):
        raise UsageError(
            f"Kafka's properties are given ({', '.join(stray)}), and no address: --bootstrap says which Kafka is "
            "meant; the one that `logstore dev` starts needs none, --secure makes its own"
        )


def _ready(facts: dict[str, Any], ended_by: str) -> None:
    show.as_json(facts)
    proof = f" LOGSTORE_KAFKA_CONFIG={facts['kafka_config']}" if facts["kafka_config"] else ""
    show.warn(
        f"ready. {ended_by} In another terminal:\n"
        f"    export LOGSTORE_BOOTSTRAP={facts['bootstrap']} LOGSTORE_URL={facts['http']}{proof}\n"
        "    logstore table create users\n"
        '    logstore put users ada "Ada Lovelace"\n'
        "    logstore get users ada"
    )
