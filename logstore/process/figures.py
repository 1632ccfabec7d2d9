"""Figures: metrics of one process of a node, in a file of its data directory, where any reader finds those of all.

    <data directory>/run/metrics/<process>.json
        {"process": "worker-0", "families": [[name, kind, text, [[suffix, labels, value], ...]], ...]}

A process replaces its file once a second, whole. Its age is the file's: a process that has written nothing for STALE_S
is not well, and what it last measured says nothing about now. What it has counted stays true.
"""

import os
import resource
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from logstore.model.safe_path import below
from logstore.process.private_files import private_dir

EVERY_S = 1.0
STALE_S = 15.0
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
UNKNOWN = float("nan")


class Sample(NamedTuple):
    """A value of a family. `suffix` is what its name has behind the family's: `_total`, `_bucket` ..."""

    suffix: str
    labels: Mapping[str, str]
    value: float


class Family(NamedTuple):
    """Samples of one name, as Prometheus has them."""

    name: str
    kind: str
    text: str
    samples: tuple[Sample, ...]


class ProcessFigures(NamedTuple):
    """Figures of one process, and the seconds since it wrote them."""

    process: str
    age_s: float
    families: tuple[Family, ...]

    @property
    def fresh(self) -> bool:
        """True while the process is known to be well."""
        return self.age_s < STALE_S

    def true_families(self) -> Iterable[Family]:
        """Families that say something true now."""
        return (family for family in self.families if self.fresh or family.kind != GAUGE)


def gauge(name: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> Family:
    """A family of gauges, of (labels, value)."""
    return Family(name, GAUGE, text, tuple(Sample("", labels, float(value)) for labels, value in values))


def counter(name: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> Family:
    """A family of counters, of (labels, value)."""
    return Family(name, COUNTER, text, tuple(Sample("_total", labels, float(value)) for labels, value in values))


def of_process(process: str) -> list[Family]:
    """Families that every process has: its processor time, memory and descriptors."""
    usage, labels = resource.getrusage(resource.RUSAGE_SELF), {"process": process}
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return [
        counter("logstore_process_cpu_seconds", "Processor time used.", [(labels, usage.ru_utime + usage.ru_stime)]),
        gauge(
            "logstore_process_resident_bytes", "Resident memory, mapped views included.",
            [(labels, pages * resource.getpagesize())],
        ),
        gauge("logstore_process_open_files", "Open descriptors.", [(labels, len(os.listdir("/proc/self/fd")))]),
        gauge(
            "logstore_process_max_files", "Descriptors that the process may have open.",
            [(labels, resource.getrlimit(resource.RLIMIT_NOFILE)[0])],
        ),
    ]  # fmt: skip


def folder(data_dir: Path) -> Path:
    """The folder of the files."""
    return data_dir / "run" / "metrics"


def begin(data_dir: Path) -> None:
    """Forget the processes of an earlier run. Raises OSError."""
    private_dir(folder(data_dir))
    for path in folder(data_dir).iterdir():
        path.unlink(missing_ok=True)


def publish(data_dir: Path, process: str, families: Iterable[Family]) -> None:
    """Replace the file of a process. Raises OSError, on a full disk: the one before stays, and grows old."""
    path = below(folder(data_dir), f"{process}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}")
    document = {"process": process, "families": [(*one[:3], [tuple(each) for each in one.samples]) for one in families]}
    written.write_bytes(orjson.dumps(document))
    written.replace(path)


def published(data_dir: Path) -> list[ProcessFigures]:
    """Figures of all processes of the node, by name; a file that cannot be read counts for nothing."""
    now_s, found = time.time(), []
    for path in sorted(folder(data_dir).glob("*.json")):
        try:
            age_s, document = now_s - path.stat().st_mtime, orjson.loads(path.read_bytes())
            families = tuple(_family(*raw) for raw in document["families"])
        except (OSError, ValueError, TypeError, KeyError):  # gone meanwhile, or of another version
            continue
        found.append(ProcessFigures(str(document["process"]), age_s, families))
    return found


def _family(name: str, kind: str, text: str, samples: list[tuple[str, dict[str, str], float | None]]) -> Family:
    """A family as JSON has it, where a value that is not known is null."""
    read = (Sample(suffix, labels, UNKNOWN if value is None else float(value)) for suffix, labels, value in samples)
    return Family(name, kind, text, tuple(read))
