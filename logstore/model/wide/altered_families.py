"""Altered families: what becomes of a wide table's column families when some are added or changed."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from logstore.model.errors import BadDefinition, NotWide, UsageError
from logstore.model.rules.rules_revision import MAX_REVISIONS, Families, RulesRevision
from logstore.model.table import Table, check_model, families_of

Given = Mapping[str, Mapping[str, Any]] | Iterable[str]  # names with their rules, or names alone


def altered_families(table: Table, added: Given, changed: Mapping[str, Mapping[str, Any]]) -> Families:
    """The families with these added, and these rules of others changed; those that are not named stay.

    A family that is there with the same rules is not added again. Raises NotWide, BadDefinition, UsageError.
    """
    new, now = families_of(added), table.families
    _check_may(table, changed)
    for name in new.keys() & now.keys():
        if new[name] != now[name]:
            raise BadDefinition(
                f"table {table.name} has the column family {name} already, with {_text(now[name])}; "
                f"`logstore table alter {table.name} --family {name}:versions=N` changes them"
            )
    families = families_of({**now, **new, **{name: {**now[name], **said} for name, said in changed.items()}})
    check_model(replace(table, families=families, rules=()))
    return families


def _text(rules: Mapping[str, Any]) -> str:
    """Rules of a family in the words of a definition."""
    return ", ".join(f"{name}={rules[name]}" for name in sorted(rules)) or "one version and no TTL"


def begun(table: Table, families: Families, ends: Mapping[int, int]) -> Table:
    """The definition that begins a revision with these families; `ends` of the logs before. Raises BadDefinition."""
    if len(table.revisions) >= MAX_REVISIONS:
        raise BadDefinition(
            f"table {table.name} has had {MAX_REVISIONS} revisions of its column families, which is as many as a "
            "definition holds; make a new table with the families as they are to be, and copy the rows"
        )
    since = tuple(ends[partition] for partition in range(table.partitions))
    revision = RulesRevision(-1, families, (None,) * table.partitions, since)
    return replace(table, rules=(*table.revisions, revision))


def _check_may(table: Table, changed: Mapping[str, Mapping[str, Any]]) -> None:
    if not table.wide:
        raise NotWide(table.name)
    if not table.allow_control_records:
        raise UsageError(
            f"table {table.name} takes no control records, by which its column families change; `logstore table alter "
            f"{table.name} --allow-control-records` lets it"
        )
    for name, said in changed.items():
        if said is None:
            raise BadDefinition(REMOVED.format(table=table.name, family=name))
        if not isinstance(said, Mapping):
            raise BadDefinition(f"the rules of a column family are such as {{'versions': 3}}, not {said!r:.100}")
        if name not in table.families:
            raise BadDefinition(
                f"table {table.name} has no column family {name!r:.80}; it has "
                f"{', '.join(sorted(table.families)) or 'none'}; --add-family adds one"
            )


REMOVED = (
    "column family {family} of table {table} stays: the log holds records that name it, and what they mean is not to "
    "change; `logstore edit {table} KEY --del-family {family}` deletes its cells of a row"
)
