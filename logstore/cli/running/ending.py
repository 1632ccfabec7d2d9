"""Ending: how a process of a node ends that would end again if it were started again.

Exit status 4 then (`process.heartbeat`): systemd leaves it alone, until a person has done what the message says.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from logstore.model.errors import AccessDenied, Stopped
from logstore.process.heartbeat import HOPELESS


class EndsForGood(click.ClickException):
    """The error of a process that nobody should start again as things stand."""

    exit_code = HOPELESS


@contextmanager
def ending_for_good() -> Iterator[None]:
    """Errors that last, as EndsForGood: a log that is lost or another one, what Kafka denies."""
    try:
        yield
    except (Stopped, AccessDenied) as error:
        raise EndsForGood(str(error)) from error
