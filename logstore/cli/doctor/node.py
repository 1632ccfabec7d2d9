"""Node that `doctor` is pointed at: whether it answers and is well; its processes, disk and descriptors."""

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

import logstore
from logstore.cli import health
from logstore.cli.doctor.check import FAIL, OK, WARN, Check
from logstore.cli.status import gather
from logstore.client.transport.node_pages import NodePages, Page
from logstore.model.errors import LogStoreError

MOST_SKEW_S = 3.0  # its own word is in whole seconds
FAR_AHEAD_S = 60.0  # then readers end no rows by their clock
LOW_DISK, MANY_DESCRIPTORS = 0.1, 0.8  # as the alerts LogstoreDisk and LogstoreFiles
_TIMEOUT_S = 10.0
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Samples = dict[str, dict[str, float]]  # name -> process, or "" -> value


def examine(url: str) -> Iterator[Check]:
    """Checks of the node at `url`."""
    with NodePages(_TIMEOUT_S) as pages:
        try:
            version, ready = pages.answer(url, "/version"), pages.get(url, "/readyz")
            page = pages.answer(url, "/metrics").content.decode(errors="replace")
            theirs = str(orjson.loads(version.content)["version"])
        except (LogStoreError, ValueError, KeyError, TypeError) as error:
            why = str(error) if isinstance(error, LogStoreError) else f"{url} answers with what is no page of a node"
            yield Check(WARN, "node", why, "logstore dev, or logstore node --bootstrap ...")
            return
        yield _ready(url, ready)
        yield _version(url, theirs)
        yield clock(version.headers.get(b"date", b"").decode(errors="replace"), time.time())
        yield from figures(samples(page))
        yield from _store(pages, url)


def _ready(url: str, page: Page) -> Check:
    if page.status == 200:
        return Check(OK, "node", f"{url} is ready")
    why = page.document.get("detail", page.status) if isinstance(page.document, dict) else page.status
    return Check(WARN, "node", f"{url} is not ready: {why}", "logstore status --unhealthy")


def _version(url: str, theirs: str) -> Check:
    if theirs == logstore.__version__:
        return Check(OK, "node version", theirs)
    why = f"{url} is logstore {theirs}, this command {logstore.__version__}"
    return Check(WARN, "node version", why, f"pip install logstore-kv=={theirs}, or upgrade the node")


def clock(date: str, now_s: float) -> Check:
    """The node's clock, by the date of its answer, against this machine's."""
    try:
        skew_s = parsedate_to_datetime(date).timestamp() - now_s
    except (ValueError, TypeError):
        return Check(OK, "node clock", "it is not told")
    if abs(skew_s) <= MOST_SKEW_S:
        return Check(OK, "node clock", "it is this machine's, to the second")
    why = f"it is {abs(skew_s):,.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    return Check(WARN, "node clock", why, "timedatectl set-ntp true, on both machines")


def samples(page: str) -> Samples:
    """Values of a page of metrics, of the whole node or by process."""
    found: Samples = {}
    for name, labels, value in _SAMPLE.findall(page):
        process = dict(_LABEL.findall(labels)).get("process", "")
        found.setdefault(name, {})[process] = float(value)
    return found


def figures(found: Samples) -> Iterator[Check]:
    """Checks of its figures: processes, Kafka, disk, descriptors."""
    down = sorted(process for process, up in found.get("logstore_process_up", {}).items() if not up)
    if down:
        why = f"{', '.join(down)} told nothing for 15 s"
        yield Check(FAIL, "node processes", why, "see logs/ below its data directory; it is started again by itself")
    restarts = {name: int(count) for name, count in found.get("logstore_restarts_total", {}).items() if count}
    if restarts:
        words = ", ".join(f"{name} {count:,} times" for name, count in sorted(restarts.items()))
        why = f"started again since the node began: {words}"
        yield Check(
            WARN, "node processes", why, "see logs/ below its data directory: the node's log says why each ended"
        )
    if not down and not restarts:
        yield Check(OK, "node processes", f"{len(found.get('logstore_process_up', {})):,} are up")
    if found.get("logstore_kafka_reachable", {}).get("") == 0:
        yield Check(FAIL, "node's Kafka", "it does not answer the node's workers", "logstore doctor, on that machine")
    yield from _brokers_clock(found)
    yield from _room(found)
    yield from _descriptors(found)


def _brokers_clock(found: Samples) -> Iterator[Check]:
    ahead_s = found.get("logstore_clock_ahead_seconds", {}).get("", 0.0)
    if ahead_s > FAR_AHEAD_S:
        why = f"it is {ahead_s:,.0f} s ahead of the brokers': rows end there by log time alone"
        yield Check(WARN, "node's clock", why, "timedatectl set-ntp true, on the node's machine and the brokers'")


def _room(found: Samples) -> Iterator[Check]:
    free = found.get("logstore_disk_free_bytes", {}).get("")
    size = found.get("logstore_disk_size_bytes", {}).get("")
    if free is not None and size:
        text = f"{free / 2**30:,.1f} of {size / 2**30:,.1f} GiB free"
        low = free / size < LOW_DISK
        fix = "logstore snapshot gc TABLE, logstore batch trim TABLE, or a larger disk"
        yield Check(WARN, "node disk", text, fix) if low else Check(OK, "node disk", text)


def _descriptors(found: Samples) -> Iterator[Check]:
    most = found.get("logstore_process_max_files", {})
    shares = {
        process: count / most[process]
        for process, count in found.get("logstore_process_open_files", {}).items()
        if most.get(process)
    }
    full = {process: share for process, share in shares.items() if share > MANY_DESCRIPTORS}
    for process, share in sorted(full.items()):
        why = f"{process} has {share:.0%} of {most[process]:,.0f} open"
        yield Check(WARN, "node descriptors", why, f"LimitNOFILE={most[process] * 4:.0f} in the unit, and restart it")
    if shares and not full:
        yield Check(OK, "node descriptors", f"{max(shares.values()):.0%} open, of the process that has the most")


def _store(pages: NodePages, url: str) -> Iterator[Check]:
    """Reasons of `status --check`, asked of this node."""
    try:
        found: dict[str, Any] = gather(pages, url)
    except LogStoreError as error:
        yield Check(WARN, "nodes", str(error), "logstore status")
        return
    reasons = health.reasons(found)
    stopped = any(row["state"] == "stopped" for row in found["partitions"])
    for reason in reasons[:5]:
        yield Check(FAIL if stopped else WARN, "nodes", reason, "logstore status --unhealthy")
    if len(reasons) > 5:
        yield Check(WARN, "nodes", f"and {len(reasons) - 5:,} more", "logstore status --check")
    if not reasons:
        nodes, partitions = len(found["nodes"]), len(found["partitions"])
        yield Check(OK, "nodes", f"{nodes:,} nodes, {partitions:,} partitions: nothing is said to be wrong")
