"""`logstore batch`: the group. Commands are loaded when they are used; each lives in a module of this package.

Exit status: 0 done (or: all agree), 1 it did not work (or: they differ), 2 the call is wrong.
"""

import click

from logstore.cli.lazy_group import LazyGroup, Sections

_JOBS = "batch.cli.jobs"
SECTIONS: Sections = {
    "Commands": {
        "archive": (_JOBS, "Copy the log to Parquet: the master dataset."),
        "compact": (_JOBS, "Make a snapshot: the one before and the log since."),
        "rebuild": (_JOBS, "Make a snapshot from the beginning of the log."),
        "restore": ("batch.cli.restore", "Make a new table of what one held at any point of its history."),
        "diff": ("batch.cli.diff", "Compare the rows of two tables, or of one at two points."),
        "audit": ("batch.cli.audit", "Compare log, snapshots and views."),
        "trim": ("batch.cli.trim", "Delete what the log need not hold any more."),
        "schedule": ("batch.cli.schedule", "Show or set when snapshots are made by themselves."),
    }
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def batch() -> None:
    """Archive, compact, restore, prove, trim: jobs over the whole log.

    \b
    Examples:
      logstore batch archive flights
      logstore batch compact flights --wait 60         return when every node serves from the new snapshot
      logstore batch audit flights --explain
      logstore batch restore flights --at 2026-01-31T12:00:00Z --as flights_then
      logstore batch diff flights flights_then
      logstore batch schedule flights --every-mutations 1000000 --every-minutes 60
    """  # noqa: D301 - click's \b keeps the lines
