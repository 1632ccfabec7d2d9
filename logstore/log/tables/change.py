"""Change of a table's definition, as it was written to the registry."""

from dataclasses import replace
from typing import NamedTuple

from logstore.log.tables.registry import Registry
from logstore.model.table import Table


class Change(NamedTuple):
    """A definition as written; `revision` is what serves it: the next offset of `logstore.tables`."""

    table: Table
    revision: int
    warnings: list[str]


def write(registry: Registry, table: Table, warnings: list[str]) -> Change:
    """Write a definition; raises as `Registry.write`."""
    offset = registry.write(table)
    return Change(replace(table, revision=offset), offset + 1, warnings)
