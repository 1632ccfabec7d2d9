"""Java of the tests: the runtime that the product would find, told to compile quickly rather than well.

A broker or a Spark of the tests lives for minutes, and most of what it takes in them is the optimizing compiler: with
the first tier alone it needs two thirds of the processor's time to start, and less than that under load.
"""

import contextlib
import os
import shlex
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from logstore.broker.jars import cache_dir
from logstore.broker.java import find_java
from logstore.model.errors import SetupError

LAUNCHER = """#!/bin/sh
exec {java} -XX:TieredStopAtLevel=1 "$@"
"""


def use_quick_compiler() -> None:
    """Set JAVA_HOME to a folder with such a launcher, at the same place in every run: class archives are kept by it."""
    homes = cache_dir() / "tests-java"
    try:
        java = find_java().path
    except SetupError:
        return  # tests that need Java say what is missing
    if java.is_relative_to(homes):
        return  # of the tests that started these
    text = LAUNCHER.format(java=shlex.quote(str(java)))
    home = homes / xxh3_64_hexdigest(text.encode())
    with contextlib.suppress(FileExistsError):
        home.mkdir(parents=True, exist_ok=True)
        (home / "lib").symlink_to(java.resolve().parent.parent / "lib")  # where its own class archive is looked for
    _put(home / "bin" / "java", text)
    os.environ["JAVA_HOME"] = str(home)


def _put(launcher: Path, text: str) -> None:
    """Write the launcher, which other tests may use at this moment."""
    if not launcher.exists():
        launcher.parent.mkdir(parents=True, exist_ok=True)
        fresh = launcher.with_name(f"java-{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(launcher)
