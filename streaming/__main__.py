"""The worker process: `python -m streaming`. A node starts it; by hand it needs the same options."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
import orjson

from logstore.model.errors import AccessDenied, EpochChanged, LogStoreError, LogTruncated
from logstore.process import logs
from logstore.process.heartbeat import HOPELESS
from logstore.process.private_files import own_files_only
from logstore.view.environment import Sync
from streaming.control.control_plane import Me
from streaming.worker import Config, Worker, end


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--bootstrap", required=True, help="Kafka, host:port[,host:port].")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="The node's data directory.")
@click.option("--worker", default=0, show_default=True, help="Index of this worker in its node.")
@click.option("--workers", default=1, show_default=True, help="Workers of this node.")
@click.option("--node", required=True, help="Id of the node.")
@click.option("--url", required=True, help="Where the node's readers answer.")
@click.option(
    "--readers",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    help="Readers of this node; so many answer before a slot is live.",
)
@click.option("--group", default="default", show_default=True, help="Replica group.")
@click.option("--zone", default="", help="Label of the replica group's place.")
@click.option(
    "--sync",
    default="none",
    show_default=True,
    type=click.Choice(["none", "commit"]),
    help="When views are flushed to disk.",
)
@click.option(
    "--queued-kbytes", default=32_768, show_default=True, help="What is fetched ahead at most; this bounds the memory."
)
@click.option(
    "--fetch-mb-s",
    type=float,
    help="Megabytes a second that are copied from the storage at most; no limit if not given.",
)
@click.option("--heartbeat-fd", type=int, help="The supervisor's pipe.")
@click.option("--say-ready", is_flag=True, help="Print one JSON line when all slots of this worker are live.")
def main(
    bootstrap: str, data_dir: Path, worker: int, workers: int, node: str, url: str, readers: int, group: str,
    zone: str, sync: str,
    queued_kbytes: int, fetch_mb_s: float | None, heartbeat_fd: int | None, say_ready: bool,
) -> None:  # fmt: skip
    """Follow the log of this worker's slots into the views of the data directory."""
    signal.signal(signal.SIGTERM, end)  # the first process of a container would not hear it
    own_files_only()
    logs.set_up_child(f"worker-{worker}", os.environ)
    if not 0 <= worker < workers:
        raise click.UsageError(f"--worker is 0 to {workers - 1}")
    me = Me(node, worker, url, group, zone, readers)
    try:
        durability: Sync = "commit" if sync == "commit" else "none"
        status = Worker(Config(bootstrap, data_dir, me, durability, heartbeat_fd, queued_kbytes, fetch_mb_s)).run(
            _say if say_ready else None
        )
    except (EpochChanged, LogTruncated, AccessDenied) as error:
        click.echo(error, err=True)  # the supervisor takes the last line over
        status = HOPELESS
    except LogStoreError as error:
        logging.getLogger(__name__).error("%s", error)  # noqa: TRY400 - the message is for people
        status = 1
    sys.exit(status)


def _say(facts: dict[str, Any]) -> None:
    click.echo(orjson.dumps(facts))


if __name__ == "__main__":
    main()
