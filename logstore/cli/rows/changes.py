"""`logstore changes`: what became of a table's rows, a line each, until it is ended."""

import sys
from itertools import zip_longest
from typing import Any

import click
import orjson

from logstore.cli import options, show
from logstore.cli.rows.wide.cell_lines import cell_document
from logstore.cli.table_names import table_names
from logstore.client.changes.changes import ChangeEvent
from logstore.client.store import Store
from logstore.model.changes.before import CellBefore
from logstore.model.hard_rows.changes.cell_differences import column_name
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what changes, until it is ended.")
@click.option("--prefix", help="Only rows whose key begins with this.")
@click.option(
    "--from", "since", default="beginning", show_default=True, metavar="beginning|now|TOKEN|TIME",
    help="Where it begins; an id that --json has printed goes on behind that event.",
)  # fmt: skip
@click.option("--from-archive", is_flag=True, help="What the log holds no more is read from the archive first.")
@click.option("--before", is_flag=True, help="Of a wide table: what the cells that were written held before.")
@options.STORAGE
@options.KEY_ENCODING
@options.AS_JSON
def changes(
    settings: Settings, table: str, follow: bool, prefix: str | None, since: str, from_archive: bool,
    before: bool, storage: str | None, key_encoding: str, as_json: bool,
) -> None:  # fmt: skip
    """Print the changes of a table's rows: event, tab, key, tab, value; with --json one JSON object a line.

    Of a row with values side by side all of them follow, a tab between them; of a wide row its cells, column=value
    each; with --before -column=value is what a cell held that was written. When a row ends by itself --json tells
    (expires); the end itself is no event.

    From the beginning these are the rows there are, and then what changes. A node that is away for a while is waited
    for. Events come at least once; of a row the highest version counts.
    """
    bound = None if prefix is None else options.key_bytes(prefix, key_encoding)
    place, bootstrap = storage or settings.storage, need_bootstrap(settings) if from_archive else None
    with Store(bootstrap, need_url(settings)) as store:
        events = store.changes(
            table, since=since, prefix=bound, follow=follow, from_archive=from_archive, before=before,
            storage=place if from_archive else None,
        )  # fmt: skip
        for event in events:
            sys.stdout.buffer.write(_json(event, events.id, before=before) if as_json else _line(event, key_encoding))
            sys.stdout.buffer.flush()


def _json(event: ChangeEvent, resume: str, *, before: bool) -> bytes:
    document = {
        "event": event.event, "key": show.field(event.key), "value": None, "version": event.version,
        "partition": event.partition, "timestamp": event.timestamp_ms, "id": resume,
    }  # fmt: skip
    if event.value is not None:
        document["value"] = show.field(event.value)
    document |= _ends(event.ends_ms[0] if event.ends_ms and event.value is not None else None)
    if event.siblings or event.cells:
        del document["value"]
        document |= {"siblings": _siblings(event)} if event.siblings else {"cells": _cells(event)}
    if before:
        document |= _before(event)
    if event.event == "reset":
        document = {"event": event.event, "epoch": event.epoch, "id": resume}
    return orjson.dumps(document) + b"\n"


def _before(event: ChangeEvent) -> dict[str, Any]:
    if not event.before:
        return {"before": None, "before_reason": event.before_reason}
    return {"before": [_cell_before(one) for one in event.before]}


def _cell_before(one: CellBefore) -> dict[str, Any]:
    if one.cell is None:
        return {"family": one.family, "qualifier": show.field(one.qualifier), "value": None, "reason": one.reason}
    return cell_document(one.cell)


def _siblings(event: ChangeEvent) -> list[dict[str, Any]]:
    pairs = zip_longest(event.siblings, event.ends_ms)
    return [{"version": one.version, "value": show.field(one.value), **_ends(end_ms)} for one, end_ms in pairs]


def _cells(event: ChangeEvent) -> list[dict[str, Any]]:
    return [{**cell_document(cell), **_ends(end_ms)} for cell, end_ms in zip_longest(event.cells, event.ends_ms)]


def _ends(end_ms: int | None) -> dict[str, int]:
    return {} if end_ms is None else {"expires": end_ms}


def _line(event: ChangeEvent, key_encoding: str) -> bytes:
    if event.event == "reset":
        return b"reset\n"
    key = options.key_text(event.key, key_encoding)
    values = [one.value for one in event.siblings] if event.value is None else [event.value]
    values += [b"%b=%b" % (column_name(cell[:2]).encode(), cell.value) for cell in event.cells]
    held = [one.cell for one in event.before if one.cell is not None]
    values += [b"-%b=%b" % (column_name(cell[:2]).encode(), cell.value) for cell in held]
    return b"%b\t%b\n" % (event.event.encode(), b"\t".join([key, *values]))
