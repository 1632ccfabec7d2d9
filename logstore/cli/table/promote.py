"""`logstore table promote`: a restored table takes the place of the table it was restored from."""

import click

from logstore.cli import options, show
from logstore.cli.table import definition
from logstore.cli.table_names import table_names
from logstore.log.tables import forks
from logstore.log.tables.registry import Registry
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings


@click.command()
@options.with_settings("bootstrap", "data_dir", "timeout_s")
@click.argument("fork", shell_complete=table_names)
@click.option("--over", required=True, metavar="TABLE", help="The table that gets the rows of FORK.")
@click.option(
    "--discard-newer", is_flag=True, help="Although TABLE was written to after the position that FORK was restored to."
)
@click.option(
    "--back", is_flag=True, help="Undo the promotion, whatever was written to TABLE since: that is in FORK then."
)
@options.AS_JSON
def promote(settings: Settings, fork: str, over: str, discard_newer: bool, back: bool, as_json: bool) -> None:
    """Put a restored table in the place of the one it was restored from.

    The two exchange their logs: TABLE holds what FORK held, and FORK, which takes no more writes, what TABLE held.
    Nothing is deleted.
    """
    registry = Registry(need_bootstrap(settings))
    promoted, replaced, again = forks.promote(registry, fork, over, discard_newer=discard_newer, back=back)
    definition.holds(registry, promoted, settings.timeout_s, new=True)
    if as_json:
        documents = {
            "promoted": definition.document(promoted.table),
            "replaced": definition.document(replaced.table),
            "again": again,
        }
        show.as_json(documents)
        return
    if again:
        show.warn(
            f"that was done before: nothing was changed; `logstore table promote {fork} --over {over} --back` undoes it"
        )
    click.echo(f"table {over}: holds what {fork} held")
    show.warn(f"{fork} holds what {over} held, and takes no more writes; `logstore table drop {fork} --yes` deletes it")
