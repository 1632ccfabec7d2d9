"""Sockets as the kernel of this machine has them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ESTABLISHED = "01"  # of /proc/net/tcp


class OtherEnd(NamedTuple):
    """The other end of a connection to an address of this machine."""

    is_open: bool
    unsent_bytes: int  # that the kernel holds and cannot send


def other_ends(port: int) -> Iterator[OtherEnd]:
    """The other ends of the connections of a local port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state, queues, *_ = line.split()
        if int(remote.rpartition(":")[2], 16) == port:
            yield OtherEnd(state == _ESTABLISHED, int(queues.partition(":")[0], 16))
