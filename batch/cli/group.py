"""`logstore batch`: the group. Commands are loaded when they are used; each lives in a module of this package.

Exit status: 0 done (or: all agree), 1 it did not work (or: they differ), 2 the call is wrong.
"""

from importlib import import_module
from typing import Any

import click

MODULES = {
    "archive": "jobs", "compact": "jobs", "rebuild": "jobs", "restore": "restore", "diff": "diff",
    "audit": "audit", "trim": "trim", "schedule": "schedule",
}  # fmt: skip
HELP = {
    "archive": "Copy the log to Parquet: the master dataset.",
    "compact": "Make a snapshot: the one before and the log since.",
    "rebuild": "Make a snapshot from the beginning of the log.",
    "restore": "Make a new table of what one held at any point of its history.",
    "diff": "Compare the rows of two tables, or of one at two points.",
    "audit": "Compare log, snapshots and views.",
    "trim": "Delete what the log need not hold any more.",
    "schedule": "Show or set when snapshots are made by themselves.",
}


class Commands(click.Group):
    """A group that imports a command's module when the command is used: Spark is heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, D102 - click's signature
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, D102 - click's signature
        module = MODULES.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"batch.cli.{module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002, D102 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(HELP.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Resolve a command as click does, and name the commands there are when it is none of them."""
        if args and args[0] not in MODULES and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}; there are {', '.join(MODULES)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands)
def batch() -> None:
    """Archive, compact, restore, prove, trim: jobs over the whole log, with Spark.

    \b
    Examples:
      logstore batch archive flights
      logstore batch compact flights --wait 60         return when every node serves from the new snapshot
      logstore batch audit flights --explain
      logstore batch restore flights --at 2026-01-31T12:00:00Z --as flights_then
      logstore batch diff flights flights_then
      logstore batch schedule flights --every-mutations 1000000 --every-minutes 60
    """  # noqa: D301 - click's \b keeps the lines
