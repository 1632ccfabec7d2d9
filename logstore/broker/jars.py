"""Jars: Kafka's own, fetched once, checked, kept.

    <cache>/kafka-4.1.1/*.jar            exactly the files of kafka_jars.sha256 beside this module
                       /verified.json    file -> [size, mtime in ns] when the checksums were last computed
           /kafka-4.1.1.lock             held (flock) by the process that checks or fetches
           /staging-*                    a fetch under way, renamed into place when it is complete and right
           /ivy                          Ivy's downloads, kept only while a fetch is incomplete

A warm start compares sizes and times with `verified.json` and reads no jar. Whatever differs from it is checksummed,
and fetched again when it is damaged. Fetching is done by the Ivy that pyspark carries, with Ivy's default settings
(Maven Central), or with the file named by LOGSTORE_IVY_SETTINGS where a mirror must be used.
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

from logstore.broker.java import find_java
from logstore.model.errors import SetupError
from logstore.settings import own_folder

VERSION = "4.1.1"
FETCH_TIMEOUT_S = 900
PROGRESS_S = 1.0  # between two looks at how much has come
BYTES = 43_000_000
LOCK_TIMEOUT_S = FETCH_TIMEOUT_S + 60
STAMP = "verified.json"
PATTERN = "[artifact]-[revision](-[classifier]).[ext]"

# What the distribution's libs folder has beside the broker itself is tools; without the slf4j binding nothing would be
# logged.
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
    """Folder of downloads: `$LOGSTORE_CACHE`, else the user's cache. Raises SetupError for a user without a home."""
    named = os.environ.get("LOGSTORE_CACHE")
    return Path(named or own_folder(platformdirs.user_cache_path, "name a folder in LOGSTORE_CACHE")).absolute()


def checksums() -> Checksums:
    """The pinned files, from kafka_jars.sha256 (the format of sha256sum)."""
    lines = Path(__file__).with_name("kafka_jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in map(str.split, lines)}


def kafka_jars() -> Path:
    """The folder of the jars, fetched if need be (half a minute, 43 MB). Raises SetupError when they cannot be had."""
    cache = cache_dir()
    if os.pathsep in str(cache):
        raise SetupError(
            f"Java can use no jars below {cache}: the path has a {os.pathsep}; name another LOGSTORE_CACHE"
        )
    return ensure(cache, checksums(), fetch_with_ivy)


def ensure(cache: Path, expected: Checksums, fetch: Fetch) -> Path:
    """The folder below `cache` that holds the `expected` files; one process fetches, the others wait for it.

    Raises SetupError when `fetch` does, when what it brought is wrong twice, or when the other process takes too long.
    """
    folder = cache / f"kafka-{VERSION}"
    if _stamped(folder, expected):
        return folder
    try:
        with _locked(cache / f"kafka-{VERSION}.lock"):
            if not _stamped(folder, expected):
                _make_right(folder, expected, fetch)
    except OSError as error:
        raise SetupError(
            f"cannot keep Kafka's jars in {cache}: {error}; name another folder in LOGSTORE_CACHE"
        ) from error
    return folder


def _make_right(folder: Path, expected: Checksums, fetch: Fetch) -> None:
    if damaged(folder, expected):
        _install(folder, expected, fetch)
    else:
        _stamp(folder, expected)


def damaged(folder: Path, expected: Checksums) -> list[str]:
    """The names of `folder` that are missing, differ from their checksum, or do not belong there."""
    wrong = [name for name, digest in expected.items() if _sha256(folder / name) != digest]
    return wrong + sorted(path.name for path in folder.glob("*.jar") if path.name not in expected)


def fetch_with_ivy(folder: Path, ivy_cache: Path) -> None:
    """Resolve Kafka with pyspark's Ivy and copy the jars to `folder`.

    Raises SetupError when that fails or takes too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ivy_cache.mkdir(parents=True, exist_ok=True)
    module = ivy_cache / "ivy.xml"
    module.write_text(MODULE)
    settings = os.environ.get("LOGSTORE_IVY_SETTINGS")
    argv: list[str | Path] = [
        find_java().path,
        f"-Divy.default.ivy.user.dir={ivy_cache}",  # a user without a name has no home, for Java
        "-jar",
        _ivy_jar(),
        *(["-settings", settings] if settings else []),
        "-cache",
        ivy_cache,
        "-ivy",
        module,
    ]
    with _progress(f"Fetching Apache Kafka {VERSION} (43 MB, once) ...") as say:
        status, output = run_showing([*argv, "-confs", "default", "-retrieve", folder / PATTERN], ivy_cache, say)
    if status != 0:
        raise SetupError(_unreachable(_reason(output)))


def run_showing(argv: list[str | Path], folder: Path, say: Callable[[int], None]) -> tuple[int, str]:
    """Exit status and output of a command that fills `folder` with jars; `say` is told how many bytes there are.

    Raises SetupError when it takes too long.
    """
    deadline = time.monotonic() + FETCH_TIMEOUT_S
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=PROGRESS_S)
                return process.returncode, output
            except subprocess.TimeoutExpired as error:
                if time.monotonic() > deadline:
                    process.kill()
                    raise SetupError(_unreachable(f"no answer within {FETCH_TIMEOUT_S} s")) from error
                say(_bytes_below(folder))


def _bytes_below(folder: Path) -> int:
    """Bytes of the jars that are there, and of those that are under way."""
    total = 0
    for path in folder.rglob("*.jar*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            total += path.stat().st_size
    return total


def _unreachable(reason: str) -> str:
    return (
        f"cannot fetch Kafka's jars: {reason}. Connect this machine once, or copy {cache_dir() / f'kafka-{VERSION}'} "
        "from one that has it, "
        "or name an Ivy settings file with your mirror in LOGSTORE_IVY_SETTINGS, or use a broker of your own "
        "(--bootstrap)"
    )


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if "error" in line.lower() and not line.startswith(":::: ERRORS")]
    return (errors or lines or ["Ivy said nothing"])[0]


def _ivy_jar() -> Path:
    """Found without importing pyspark, which takes a second and is another layer's."""
    spec = find_spec("pyspark")
    for location in (spec and spec.submodule_search_locations) or ():
        for jar in sorted(Path(location, "jars").glob("ivy-*.jar")):
            return jar
    raise SetupError(
        "pyspark, whose Ivy fetches Kafka's jars, is not installed: pip install 'logstore-kv[batch]', or use a broker "
        "of your own (--bootstrap)"
    )


def _install(folder: Path, expected: Checksums, fetch: Fetch) -> None:
    """1. Fetch into a staging folder; 2. check, and try once more without Ivy's downloads; 3. rename into place."""
    cache = folder.parent
    for left_over in cache.glob("staging-*"):
        shutil.rmtree(left_over)
    wrong: list[str] = []
    for _attempt in range(2):
        with tempfile.TemporaryDirectory(prefix="staging-", dir=cache) as staging:
            fetched = Path(staging, "jars")
            fetch(fetched, cache / "ivy")  # 1
            wrong = damaged(fetched, expected)  # 2
            shutil.rmtree(cache / "ivy", ignore_errors=True)
            if not wrong:
                _stamp(fetched, expected)
                if folder.exists():
                    folder.rename(Path(staging, "damaged"))
                fetched.rename(folder)  # 3
                return
    raise SetupError(
        f"Kafka's jars, as fetched, are not the pinned ones ({', '.join(wrong[:3])}, ...): is something altering "
        "downloads?"
    )


def _facts(folder: Path, expected: Checksums) -> dict[str, list[int]]:
    """Sizes and times of the jars, known without reading them."""
    stats = {path.name: path.stat() for path in folder.glob("*.jar")}
    return (
        {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()} if set(stats) == set(expected) else {}
    )


def _stamp(folder: Path, expected: Checksums) -> None:
    part = folder / f"{STAMP}.part"
    part.write_text(json.dumps({"expected": expected, "facts": _facts(folder, expected)}))
    part.replace(folder / STAMP)


def _stamped(folder: Path, expected: Checksums) -> bool:
    try:
        stamp = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):  # absent or torn: the checksums decide
        return False
    return bool(stamp == {"expected": expected, "facts": _facts(folder, expected)})


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with path.open("a") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise SetupError(
                    f"another process has been fetching Kafka's jars for {LOCK_TIMEOUT_S} s (lock: {path}); end it and "
                    "try again"
                )
            time.sleep(0.1)
        yield


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _progress(text: str) -> Iterator[Callable[[int], None]]:
    """Yields what shows how many bytes have come: in place on a terminal, else as a line for every tenth more."""
    console, said = Console(stderr=True), 0

    def line(so_far: int) -> None:
        nonlocal said
        if so_far > said + BYTES // 10:
            said = so_far
            console.print(f"{so_far / 1e6:.0f} MB have come", highlight=False, soft_wrap=True)

    if console.is_terminal:
        with console.status(text) as status:
            yield lambda so_far: status.update(f"{text} {so_far / 1e6:.0f} MB have come")
    else:
        console.print(text, highlight=False, soft_wrap=True)
        yield line
