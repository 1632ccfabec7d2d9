"""Stream of the feed, as a subscriber takes it: its socket, and the changes that come out of it."""

import os
import socket
from pathlib import Path

import msgpack

from logstore.view.feed.changes import Change, decode_change


def connect(path: Path) -> socket.socket:
    """A non-blocking socket connected to the feed at `path`; raises OSError while nobody serves it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class FeedReader:
    """Decoder of the stream that a FeedServer sends; bring your own socket."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=1 << 28)

    def decode(self, data: bytes) -> list[Change]:
        """The changes that are complete now, without those of a later version's keys. Raises UnreadableRecord."""
        self._unpacker.feed(data)
        changes = [decode_change(raw) for raw in self._unpacker]
        return [change for change in changes if change is not None]
