"""Plain only: jobs that cannot work on a conditional table yet, and say so before they do anything."""

from logstore.model.errors import Unsupported
from logstore.model.table import Table


def need_plain(table: Table, job: str) -> None:
    """Raise Unsupported where a conditional table is asked of a `job` that folds plain tables alone."""
    if table.conditional:
        raise Unsupported(
            f"`{job}` cannot read {table.name} yet, which is a conditional table: it folds puts and deletes alone; a "
            "later build does it, and log, archive and snapshots keep all it needs until then"
        )
