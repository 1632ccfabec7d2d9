"""A port that nobody has, for what must be told its port beforehand."""

import random
import socket
from contextlib import closing

_taken: set[int] = set()


def free_port() -> int:
    """A port below the kernel's ephemeral range.

    No outgoing connection takes that of a server that is down, nor connects to itself.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        if port not in _taken:
            _taken.add(port)
            return port
