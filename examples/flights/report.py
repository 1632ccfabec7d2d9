"""Report: the figures of a run, as JSON for machines and as a table for people."""

import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

import logstore
from logstore.log.jars import VERSION as KAFKA


@dataclass
class Report:
    """What was done and how fast. A figure that is None was not reached."""

    ok: bool = False
    mutations: int = 0
    rows_checked: int = 0
    rows_wrong: int = 0
    acked_per_s: float | None = None
    applied_per_s: float | None = None
    visible_p50_ms: float | None = None
    visible_p99_ms: float | None = None
    visible_writes_per_s: float | None = None  # the rate at which visibility was measured
    reads_per_s: float | None = None  # as fast as answers come
    read_p50_ms: float | None = None
    read_p99_ms: float | None = None
    read_latency_at_per_s: float | None = None  # the rate at which read latency was measured
    reads_wrong: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    total_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    error: str | None = None
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def show(self) -> None:
        """Print it as a table."""
        table = Table("what", "figure", "", title="A year of flights from New York, through the log and back")
        table.columns[1].justify = "right"
        for row in self._lines():
            table.add_row(*row)
        console = Console()
        console.print(table)
        for text in self.wrong:
            console.print(f"wrong: {text}", style="red", markup=False)
        verdict = "everything as in the source" if self.ok else f"NOT as in the source: {self.error or 'see above'}"
        console.print(
            f"{verdict}; {self.total_s:.1f} s on {self.machine['cores']} cores", style="green" if self.ok else "red", markup=False
        )

    def _lines(self) -> list[tuple[str, str, str]]:
        return [
            ("changes written", f"{self.mutations:,}", "of flights, in time order"),
            ("acknowledged", _figure(self.acked_per_s), "changes/s, acks=all"),
            ("applied", _figure(self.applied_per_s), "changes/s, from the first write until readers see the last"),
            ("write to visible, p50", _figure(self.visible_p50_ms, 2), f"ms at {_figure(self.visible_writes_per_s)} writes/s, open loop"),
            ("write to visible, p99", _figure(self.visible_p99_ms, 2), "ms"),
            ("point reads", _figure(self.reads_per_s), "reads/s over HTTP, each compared"),
            ("point read, p50", _figure(self.read_p50_ms, 2), f"ms at {_figure(self.read_latency_at_per_s)} reads/s, open loop"),
            ("point read, p99", _figure(self.read_p99_ms, 2), "ms"),
            ("rows checked", f"{self.rows_checked:,}", ", ".join(f"{name} {count:,}" for name, count in self.rows.items())),
            ("rows wrong", f"{self.rows_wrong:,}", "missing, extra, different or out of order"),
        ]


def percentiles(late_ms: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    p50, p99 = np.percentile(late_ms, (50, 99))
    return round(float(p50), 3), round(float(p99), 3)


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "system": platform.platform(),
        "logstore": logstore.__version__, "kafka": KAFKA,
    }  # fmt: skip


def _figure(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
