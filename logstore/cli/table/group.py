"""`logstore table`: the group. Commands are loaded when they are used."""

import click

from logstore.cli.lazy_group import LazyGroup, Sections

_COMMANDS = "logstore.cli.table.commands"
_SECTIONS: Sections = {
    "Commands": {
        "create": (_COMMANDS, "Make a table."),
        "list": (_COMMANDS, "List the tables."),
        "describe": (_COMMANDS, "Show a table's definition, and what is wrong with its topic."),
        "alter": (_COMMANDS, "Change a table's description, column families, next snapshots, or its topic."),
        "drop": ("logstore.cli.table.drop", "Drop a table: its topic, and every row in it, is deleted."),
        "promote": ("logstore.cli.table.promote", "Put a restored table in the place of the one it was restored from."),
        "repair": ("logstore.cli.table.repair", "Show what is missing in a partition's log, and have it given up."),
        "export": ("logstore.cli.table.backup", "Print every definition, for a back-up."),
        "import": ("logstore.cli.table.backup", "Write definitions again that `export` has printed."),
    }
}


@click.group(cls=LazyGroup, sections=_SECTIONS)
def table() -> None:
    """Create, list, describe, alter, drop, repair and promote tables."""
