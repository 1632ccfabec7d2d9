"""`python -m logstore.serve`: one reader process. The supervisor starts several of them on one port."""

import os
from pathlib import Path

import click

from logstore.model.errors import LogStoreError
from logstore.process import logs
from logstore.process.private_files import own_files_only
from logstore.serve.process import run
from logstore.serve.settings import ReaderSettings


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="The node's data directory.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=7878, show_default=True, help="Port; all readers of a node share it.")
@click.option("--bootstrap", help="Kafka's host:port, for the change feed and for writes; nothing else needs it.")
@click.option("--workers", default=1, show_default=True, help="Workers of this node, whose feeds are followed.")
@click.option("--node", default="local", show_default=True, help="Id of this node.")
@click.option("--index", default=0, show_default=True, help="Which reader of the node this is.")
@click.option("--insecure", is_flag=True, help="Serve beyond this machine although there is no authentication.")
@click.option("--writes", is_flag=True, help="Take writes over HTTP.")
@click.option("--max-connections", default=8_192, show_default=True, help="More are answered 503.")
@click.option(
    "--max-waiters", default=10_000, show_default=True, help="Requests waiting for a token; more are answered 429."
)
@click.option(
    "--request-timeout", "request_timeout_s", default=10.0, show_default=True, help="Seconds for a request to arrive."
)
@click.option(
    "--idle-timeout", "idle_timeout_s", default=75.0, show_default=True, help="Seconds a connection may be idle."
)
@click.option(
    "--ready-lag", default=100_000, show_default=True, help="Records behind the log above which /readyz says no."
)
@click.option("--heartbeat-fd", type=int, help="The supervisor's pipe.")
@click.option("--say-ready", is_flag=True, help="Print one JSON line when reads can be answered here.")
@click.option("--slow-ms", default=1_000, show_default=True, help="Requests that take longer are logged.")
@click.option("--access-log", is_flag=True, help="Log every request; they all go the ordinary way then.")
def main(**options: object) -> None:
    """Serve the views of a node over HTTP. LOGSTORE_LOG_LEVEL and LOGSTORE_LOG_FORMAT say what is logged."""
    own_files_only()
    try:
        logs.set_up_child(f"reader-{options['index']}", os.environ)
        run(ReaderSettings(**options))  # type: ignore[arg-type] # click has checked the types
    except LogStoreError as error:
        raise SystemExit(f"logstore.serve: {error}") from None


if __name__ == "__main__":
    main()
