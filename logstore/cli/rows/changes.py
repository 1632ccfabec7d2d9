"""`logstore changes`: what became of a table's rows, a line each, until it is ended."""

import sys

import click
import orjson

from logstore.cli import options, show
from logstore.cli.table_names import table_names
from logstore.client.changes.changes import ChangeEvent
from logstore.client.store import Store
from logstore.node.addresses import need_url
from logstore.settings import Settings


@click.command()
@options.with_settings("url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what changes, until it is ended.")
@click.option("--prefix", help="Only rows whose key begins with this.")
@click.option(
    "--from", "since", default="beginning", show_default=True, metavar="beginning|now|TOKEN|TIME",
    help="Where it begins; an id that --json has printed goes on behind that event.",
)  # fmt: skip
@options.KEY_ENCODING
@options.AS_JSON
def changes(
    settings: Settings, table: str, follow: bool, prefix: str | None, since: str, key_encoding: str, as_json: bool
) -> None:  # fmt: skip
    """Print the changes of a table's rows: event, tab, key, tab, value; with --json one JSON object a line.

    Of a row with values side by side all of them follow, a tab between them.

    From the beginning these are the rows there are, and then what changes. A node that is away for a while is waited
    for. Events come at least once; of a row the highest version counts.
    """
    bound = None if prefix is None else options.key_bytes(prefix, key_encoding)
    with Store(url=need_url(settings)) as store:
        events = store.changes(table, since=since, prefix=bound, follow=follow)
        for event in events:
            sys.stdout.buffer.write(_json(event, events.id) if as_json else _line(event, key_encoding))
            sys.stdout.buffer.flush()


def _json(event: ChangeEvent, resume: str) -> bytes:
    document = {
        "event": event.event, "key": show.field(event.key), "value": None, "version": event.version,
        "partition": event.partition, "timestamp": event.timestamp_ms, "id": resume,
    }  # fmt: skip
    if event.value is not None:
        document["value"] = show.field(event.value)
    if event.siblings:
        del document["value"]
        document["siblings"] = [{"version": one.version, "value": show.field(one.value)} for one in event.siblings]
    if event.event == "reset":
        document = {"event": event.event, "epoch": event.epoch, "id": resume}
    return orjson.dumps(document) + b"\n"


def _line(event: ChangeEvent, key_encoding: str) -> bytes:
    if event.event == "reset":
        return b"reset\n"
    key = options.key_text(event.key, key_encoding)
    values = [one.value for one in event.siblings] if event.value is None else [event.value]
    return b"%b\t%b\n" % (event.event.encode(), b"\t".join([key, *values]))
