"""`logstore incr`, `append` and `outcome`, and what `put --if` and `delete --if` add: writes that the log decides."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from logstore.cli import options, show
from logstore.cli.table_names import table_names
from logstore.model.errors import LogStoreError, UsageError
from logstore.model.position import Position
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings

if TYPE_CHECKING:
    from logstore.client.conditional.outcome import Outcome
    from logstore.client.store import Store

F = TypeVar("F", bound=Callable[..., Any])
_NUMBERS = {"ignore_unknown_options": True}  # what begins with a dash may be a number

CONDITION = click.option(
    "--if",
    "condition",
    metavar="CONDITION",
    help="Only if the row is absent, present, version:OFFSET or value:VALUE; in tables created with --conditional.",
)


@click.command(context_settings=_NUMBERS)
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.argument("delta", type=int, default=1)
@options.KEY_ENCODING
@options.AS_JSON
def incr(settings: Settings, table: str, key: str, delta: int, key_encoding: str, as_json: bool) -> int:
    """Add DELTA (1) to a counter, which begins at 0, and print the number that it makes.

    `logstore get --counter` prints it without counting. Exit status 1 when the row is no counter, or the sum too large.
    """
    from logstore.cli.rows.counted import print_count, read_count  # noqa: PLC0415 - which takes what is here

    with decider(settings) as store:
        row_key = options.key_bytes(key, key_encoding)
        outcome = store.incr(table, row_key, delta)
        if not outcome.applied:
            return print_outcome(table, outcome, as_json=as_json)
        print_count(table, outcome, read_count(store, table, row_key, outcome), as_json=as_json)
        return 0


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.argument("suffix")
@options.KEY_ENCODING
@options.AS_JSON
def append(settings: Settings, table: str, key: str, suffix: str, key_encoding: str, as_json: bool) -> int:
    """Put SUFFIX behind the value of a row, or make the row of it."""
    with decider(settings) as store:
        outcome = store.append(table, options.key_bytes(key, key_encoding), options.key_bytes(suffix, "text"))
        return print_outcome(table, outcome, as_json=as_json)


@click.command()
@options.with_settings("url", "data_dir", "deadline_ms")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.argument("id")
@options.KEY_ENCODING
@options.AS_JSON
def outcome(settings: Settings, table: str, key: str, id: str, key_encoding: str, as_json: bool) -> int:  # noqa: A002 - as the argument is called
    """Tell what became of a conditional write by its ID, such as one that was unknown.

    Of a put or delete with --seen the token of its position stands for the ID. Exit status 1 unless it was applied.
    """
    from logstore.client.store import Store  # noqa: PLC0415 - help does without

    with Store(url=need_url(settings)) as store:
        found = store.outcome_of(
            table, options.key_bytes(key, key_encoding), _name(id), deadline_ms=settings.deadline_ms
        )  # fmt: skip
    if found is None:
        raise LogStoreError(
            f"no write of row {key!r} of table {table!r} has this id, as far as its dedup window reaches back: none was"
            " applied, or it was longer ago"
        )
    return print_outcome(table, found, as_json=as_json)


def _name(text: str) -> str | Position:
    """The id or the position of a write: a token has dashes, an id none."""
    return Position.parse(text) if "-" in text else text


def expected(condition: str) -> dict[str, Any]:
    """Keyword arguments of `put_if` for the text of a condition. Raises UsageError."""
    word, colon, rest = condition.partition(":")
    if word in ("absent", "present") and not colon:
        return {word: True}
    if word == "value" and colon:
        return {"value_is": options.key_bytes(rest, "text")}
    if word == "version" and rest.isascii() and rest.isdigit() and len(rest) < 20:
        return {"version": int(rest)}
    raise UsageError(f"--if wants absent, present, version:OFFSET or value:VALUE, not {condition[:80]!r}")


@contextmanager
def decider(settings: Settings) -> "Iterator[Store]":
    """A store for one write that the log decides: written there, and its outcome read from a node."""
    from logstore.client.store import Store  # noqa: PLC0415 - help does without

    with Store(need_bootstrap(settings), need_url(settings)) as store:
        yield store


def outcome_document(table: str, found: "Outcome") -> dict[str, Any]:
    """An outcome as an object."""
    facts = {**found._asdict(), "id": None if found.id is None else found.id.hex()}
    return {"table": table, **facts, "applied": found.applied}


def print_outcome(table: str, found: "Outcome", *, as_json: bool) -> int:
    """Print an outcome; returns the exit status: 0 when the write took effect."""
    if as_json:
        show.as_json(outcome_document(table, found))
    elif found.applied:
        click.echo(f"partition {found.partition}, offset {found.version}")
    else:
        show.warn(_why(found))
    return 0 if found.applied else 1


def _why(found: "Outcome") -> str:
    if found.reason is not None:
        return f"invalid, and nothing has changed: {found.reason}"
    there = "there is no such row" if found.version is None else f"the row has version {found.version}"
    return f"rejected, and nothing has changed: {there}"
