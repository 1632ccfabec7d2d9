"""`logstore count`: how many rows a table has."""

import click

from logstore.cli import options, show
from logstore.cli.rows.progress import rows_bar
from logstore.cli.table_names import table_names
from logstore.node.addresses import need_url
from logstore.settings import Settings

_SAY_EVERY = 1_000  # rows


@click.command()
@options.with_settings("url", "data_dir", "deadline_ms")
@click.argument("table", shell_complete=table_names)
@click.option("--prefix", help="Only keys that begin with this.")
@options.KEY_ENCODING
@click.option("--token", help="See at least what this token says.")
@options.AS_OF
@options.AS_JSON
def count(
    settings: Settings, table: str, prefix: str | None, key_encoding: str, token: str | None, as_of: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Count the rows of a table, by going through its keys."""
    from logstore.client.store import Store  # noqa: PLC0415 - help does without

    bound = None if prefix is None else options.key_bytes(prefix, key_encoding)
    rows = 0
    with Store(url=need_url(settings)) as store, rows_bar(table) as advance:
        for _row in store.scan(
            table, prefix=bound, keys_only=True, after=token, as_of=as_of, deadline_ms=settings.deadline_ms
        ):
            rows += 1
            if rows % _SAY_EVERY == 0:
                advance(rows)
    if as_json:
        show.as_json({"table": table, "rows": rows})
    else:
        click.echo(rows)
