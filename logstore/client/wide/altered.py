"""Altered column families: checks of what a caller asks for, before anything is asked of a store."""

from collections.abc import Mapping
from typing import Any

from logstore.client.checks import check_kind
from logstore.model.errors import UsageError
from logstore.model.rules.rules_revision import Families
from logstore.model.table import families_of
from logstore.model.wide.altered_families import Given


def check_altered(added: Given, changed: Mapping[str, Mapping[str, Any]] | None, *, nothing: bool = True) -> Families:
    """The families to add. Raises UsageError, BadDefinition; `nothing`: also where nothing is to change."""
    check_kind("families", changed, Mapping, "a mapping of column families to their rules")
    new = families_of(added)
    if nothing and not (new or changed):
        raise UsageError(
            "nothing to change: give add_families or families; Admin.alter also takes description, topic_config, "
            "allow_control_records and snapshots"
        )
    return new
