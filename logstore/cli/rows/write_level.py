"""The option --level: what has a write when its command returns."""

from collections.abc import Callable
from typing import Any

import click

from logstore.client.write.level import WRITE_LEVELS


def level_option(decided: str) -> Callable[[Any], Any]:
    """The option --level of a command; `decided`: for which of its writes `applied` is the default."""
    return click.option(
        "--level",
        type=click.Choice(WRITE_LEVELS),
        help="What has it on return: all in-sync replicas, one, or all and a reader."
        f"  [default: all; {decided}, applied]",
    )
