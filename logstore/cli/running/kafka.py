"""`logstore kafka`: an embedded broker that runs in the background."""

from pathlib import Path
from typing import Any

import click
import orjson
import platformdirs

from logstore.broker.embedded import EmbeddedKafka, RunningBroker, attach, halt, running
from logstore.process.private_files import own_files_only
from logstore.settings import own_folder

DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: own_folder(platformdirs.user_data_path, "give --data-dir") / "kafka",
    show_default="logstore/kafka in the user's data directory",
    help="Where the broker keeps its data.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def kafka() -> None:
    """Run a real Apache Kafka broker in the background, for development."""


@kafka.command()
@DATA_DIR
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port on 127.0.0.1; 0: any free one.  [default: that of the last start, else 9092 where it is free]",
)
@click.option(
    "--heap-mb",
    type=click.IntRange(128),
    default=512,
    show_default=True,
    help="Java heap; the process takes about 200 MB more.",
)
@click.option("--secure", is_flag=True, help="Ask for passwords over TLS, and keep ACLs; fixed at the first start.")
@AS_JSON
def start(data_dir: Path, port: int | None, heap_mb: int, secure: bool, as_json: bool) -> None:
    """Start the broker, and return when it answers; does nothing when it runs already."""
    own_files_only()
    found = attach(data_dir)
    if found is None:
        EmbeddedKafka(data_dir, port=port, heap_mb=heap_mb, detached=True, secure=secure).start()
        found = attach(data_dir)
    elif port and not found.bootstrap.endswith(f":{port}"):
        raise click.UsageError(
            f"the broker runs already, on {found.bootstrap}; `logstore kafka stop` it before it can have another port"
        )
    _show(found, data_dir, as_json)


@kafka.command()
@DATA_DIR
def stop(data_dir: Path) -> None:
    """Stop the broker; does nothing when it does not run. The data stay."""
    found = halt(data_dir)
    click.echo(f"stopped the broker with the process id {found.pid}" if found else f"no broker runs on {data_dir}")


@kafka.command()
@DATA_DIR
@AS_JSON
@click.pass_context
def status(context: click.Context, data_dir: Path, as_json: bool) -> None:
    """Say where the broker answers; exit status 1 when it does not run."""
    found = running(data_dir)
    _show(found, data_dir, as_json)
    context.exit(0 if found else 1)


def _show(found: RunningBroker | None, data_dir: Path, as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = found._asdict() if found else {"data_dir": str(data_dir.absolute())}
        click.echo(orjson.dumps({"running": found is not None} | facts))
    elif found:
        click.echo(
            f"Apache Kafka {found.version} answers on {found.bootstrap} (process id {found.pid}, data in "
            f"{found.data_dir})"
        )
        if found.kafka_config:
            click.echo(f"clients prove who they are with --kafka-config {found.kafka_config}")
    else:
        click.echo(f"no broker runs on {data_dir}; `logstore kafka start` starts one")
