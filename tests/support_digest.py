"""The digester, as a worker runs it."""

from collections.abc import Iterator
from contextlib import contextmanager

from support_wait import until

from streaming.digest.client import DigestClient


@contextmanager
def running_digester() -> Iterator[DigestClient]:
    client = DigestClient()
    client.start()
    until("the digester runs", lambda: client.pid)
    try:
        yield client
    finally:
        client.close()
