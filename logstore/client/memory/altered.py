"""Altered tables of the store in memory: column families change in a control record of each partition."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgpack

from logstore.client.memory.partition import MemoryPartition, MemoryRecord
from logstore.model.folding.mutation import RULES
from logstore.model.wide.altered_families import Given, altered_families, begun


def alter(
    parts: list[MemoryPartition], added: Given, changed: Mapping[str, Mapping[str, Any]], timestamp_ms: int
) -> None:
    """Add column families to a table, and change rules of others. Raises NotWide, BadDefinition."""
    table = parts[0].table
    families = altered_families(table, added, changed)
    if families == table.families:
        return
    ends = {part.number: part.next_offset for part in parts}
    *before, revision = begun(table, families, ends).rules
    revision = replace(revision, revision=before[-1].revision + 1).at(ends)
    altered = replace(table, families=families, rules=(*before, revision))
    record = MemoryRecord(None, msgpack.packb(revision.payload()), [("ls.op", RULES.encode())], timestamp_ms)
    for part in parts:
        part.change_rules(record, revision.revision, altered)
