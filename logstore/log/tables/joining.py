"""Joining: what two authors change of one definition at the same time holds together.

The registry keeps the newest record of a table alone, so a definition that was written without knowledge of another one
replaces it. Its author finds that out and writes once more: what it changed itself, and what the other one changed of
what both had seen. The order is that of the last records: a field that both changed has the value of the later author.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from logstore.log.tables.change import Change
from logstore.log.tables.registry import Registry
from logstore.model.errors import Conflict, NoSuchTable
from logstore.model.rules.rules_revision import joined, settled
from logstore.model.table import Table

ATTEMPTS = 10  # of one change, while others change the table at the same time
_PAUSE_S = 0.05
_NEVER = frozenset({"name", "revision", "rules", "families"})  # the rules of families have a join of their own


def amend(registry: Registry, table: Table, asked: Mapping[str, Any], warnings: list[str]) -> Change:
    """Give fields of a definition other values, and leave to others what they change meanwhile.

    Raises NoSuchTable, Conflict, LogUnreachable.
    """
    written = write_joined(registry, table, replace(table, **asked), asked)
    return Change(written, written.revision + 1, warnings)


def write_joined(registry: Registry, seen: Table, mine: Table, asked: Mapping[str, Any]) -> Table:
    """Write `mine`, which was made of `seen`; returns the definition that holds, joined with those that came between.

    `asked`: the fields that it changes, but for the rules of families. Raises NoSuchTable where it was dropped or made
    again meanwhile, Conflict, LogUnreachable.
    """
    for attempt in range(ATTEMPTS):
        written, other = registry.write_over(mine)
        if other is None:
            return written
        if other.dropped or other.epoch != mine.epoch:
            registry.write_over(replace(other, revision=written.revision))
            raise NoSuchTable(mine.name)
        mine = _join(replace(mine, rules=written.rules, revision=written.revision), seen, other, asked)
        time.sleep(random.uniform(0, _PAUSE_S) * attempt)  # authors that go in step replace each other for ever
        newest = registry.table(mine.name)
        if newest.revision > written.revision and newest.epoch == mine.epoch:  # or the next round finds out
            mine = _join(replace(mine, revision=newest.revision), seen, newest, asked)
            if mine == newest:  # who wrote it has joined ours, too
                return newest
    raise too_many(mine)


def too_many(table: Table) -> Conflict:
    """The error of a change that others have replaced again and again."""
    return Conflict(f"table {table.name}: others change its definition all the time; run it again")


def _join(mine: Table, seen: Table, other: Table, asked: Mapping[str, Any]) -> Table:
    """The definition that we want, with what `other` has changed since `seen`.

    A field that has the value it had then is none that was changed: `other` may not know who changed it.
    """
    names = [one.name for one in fields(Table) if one.name not in _NEVER]
    theirs = {name: getattr(other, name) for name in names if getattr(other, name) != getattr(seen, name)}
    found = replace(mine, **{**theirs, **asked})
    if not (mine.rules or other.rules):
        return found
    revisions = joined(mine.revisions, other.revisions)
    return replace(found, rules=revisions, families=settled(revisions))
