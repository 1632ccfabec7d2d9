"""Descriptors: the number of files and connections a process may have open.

A worker has some three a partition, a reader one a connection.
"""

import logging
import resource

log = logging.getLogger(__name__)


def raise_limit() -> None:
    """Raise the limit to as many as the system allows this process.

    Its soft limit becomes the hard one. Where that is refused it stays, which is logged.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # a hard limit above the system's own (fs.nr_open)
        log.warning("this process may have %d files open, and no more: %s", soft, error)
