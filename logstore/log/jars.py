"""Jars: Kafka's own, fetched once, checked, kept.

    <cache>/kafka-4.1.1/*.jar            exactly the files of kafka_jars.sha256 beside this module
                       /verified.json    file -> [size, mtime in ns] when the checksums were last computed
           /kafka-4.1.1.lock             held (flock) by the process that checks or fetches
           /staging-*                    a fetch under way, renamed into place when it is complete and right
           /ivy                          Ivy's downloads, kept only while a fetch is incomplete

A warm start compares sizes and times with `verified.json` and reads no jar. Whatever differs from it is checksummed, and fetched
again when it is damaged. Fetching is done by the Ivy that pyspark carries, with Ivy's default settings (Maven Central), or with
the file named by LOGSTORE_IVY_SETTINGS where a mirror must be used.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import platformdirs
from rich.console import Console

from logstore.log.java import find_java
from logstore.model.errors import SetupError

VERSION = "4.1.1"
FETCH_TIMEOUT_S = 900
LOCK_TIMEOUT_S = FETCH_TIMEOUT_S + 60
STAMP = "verified.json"
PATTERN = "[artifact]-[revision](-[classifier]).[ext]"

# What the distribution's libs folder has beside the broker itself is tools; without the slf4j binding nothing would be logged.
MODULE = f"""<ivy-module version="2.0">
  <info organisation="logstore" module="kafka"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
    <dependency org="org.apache.kafka" name="kafka_2.13" rev="{VERSION}" conf="default->default"/>
    <dependency org="org.apache.logging.log4j" name="log4j-slf4j-impl" rev="2.24.3" conf="default->default"/>
  </dependencies>
</ivy-module>
"""

Checksums = dict[str, str]  # file name -> SHA-256 in hex
Fetch = Callable[[Path, Path], None]  # (folder to fill, Ivy's cache)


def cache_dir() -> Path:
    """`$LOGSTORE_CACHE`, else the user's cache directory."""
    return Path(os.environ.get("LOGSTORE_CACHE") or platformdirs.user_cache_path("logstore"))


def checksums() -> Checksums:
    """The pinned files, from kafka_jars.sha256 (the format of sha256sum)."""
    lines = Path(__file__).with_name("kafka_jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in map(str.split, lines)}


def kafka_jars() -> Path:
    """The folder of the jars, fetched if need be (half a minute, 43 MB). Raises SetupError when they cannot be had."""
    return ensure(cache_dir(), checksums(), fetch_with_ivy)


def ensure(cache: Path, expected: Checksums, fetch: Fetch) -> Path:
    """The folder below `cache` that holds the `expected` files; one process fetches, the others wait for it.

    Raises SetupError when `fetch` does, when what it brought is wrong twice, or when the other process takes too long.
    """
    folder = cache / f"kafka-{VERSION}"
    if _stamped(folder, expected):
        return folder
    with _locked(cache / f"kafka-{VERSION}.lock"):
        if not _stamped(folder, expected):
            if folder.exists() and not damaged(folder, expected):
                _stamp(folder, expected)
            else:
                _install(cache, folder, expected, fetch)
    return folder


def damaged(folder: Path, expected: Checksums) -> list[str]:
    """The files of `folder` that are missing or whose checksum differs."""
    return [name for name, digest in expected.items() if _sha256(folder / name) != digest]


def _install(cache: Path, folder: Path, expected: Checksums, fetch: Fetch) -> None:
    """1. fetch into a staging folder; 2. check (a second attempt starts without Ivy's cache); 3. rename into place."""
    for ivy_cache in (cache / "ivy", cache / "ivy-again"):
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=cache))
        try:
            fetch(staging, ivy_cache)  # 1
            wrong = damaged(staging, expected)  # 2
            if not wrong:
                _stamp(staging, expected)
                _swap(staging, folder)  # 3
                return
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if (cache / "ivy-again").exists() or folder.exists():
                shutil.rmtree(cache / "ivy-again", ignore_errors=True)
        shutil.rmtree(ivy_cache, ignore_errors=True)
    raise SetupError(f"Kafka's jars do not have the expected checksums ({', '.join(wrong[:3])}): is something altering downloads?")


