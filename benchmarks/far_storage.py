"""Far storage: a disk that answers like an object store some way off: every operation waits, and nothing is near."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logstore.snapshot.storage import Storage


class CountingStorage(Storage):
    """A storage that counts the operations of this process; those of tasks are their own."""

    def __init__(self, url: str) -> None:
        self.asked = 0
        super().__init__(url)

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.url,)

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        self.asked += 1
        with super()._translating(path):
            yield


class FarStorage(CountingStorage):
    """One of which each operation takes WAIT_S more, here and in tasks, and whose files are fetched to be read."""

    WAIT_S = 0.03

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return FarStorage, (self.url,)

    def local(self, path: str) -> Path | None:  # noqa: ARG002 - it is no disk, whatever is asked for
        """Nothing, as of an object store."""
        return None

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        time.sleep(self.WAIT_S)
        with super()._translating(path):
            yield
