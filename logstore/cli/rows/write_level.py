"""The option --level: what has a write when its command returns."""

import click

from logstore.client.write.level import WRITE_LEVELS

LEVEL = click.option(
    "--level",
    type=click.Choice(WRITE_LEVELS),
    help="What has it on return: all in-sync replicas, one, or all and a reader.  [default: all; with --seen, and in "
    "wide tables, applied]",
)
