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
from logstore.broker.jars import VERSION as KAFKA


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
    archive_s: float | None = (
        None  # these and the following: only with the accurate path; the seconds include Spark's start
    )
    archive_per_s: float | None = None
    compact_s: float | None = None
    written_meanwhile: int | None = None  # changes while the snapshot was made and adopted
    adopt_s: float | None = None  # from the end of `compact` until every partition is served from the snapshot
    digests_equal: bool | None = None
    adopted_rows_checked: int | None = None
    bootstrap_ready_s: float | None = None  # from the start of an empty node's process
    bootstrap_answer_ms: float | None = None  # from ready to the first answer
    bootstrap_rows_checked: int | None = None
    restore_s: float | None = None  # until the restored table is served
    restored_records: int | None = None  # of the history that were folded for it
    restored_rows_checked: int | None = None
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
            f"{verdict}; {self.total_s:.1f} s on {self.machine['cores']} cores",
            style="green" if self.ok else "red",
            markup=False,
        )

    def _lines(self) -> list[tuple[str, str, str]]:
        return [
            ("changes written", f"{self.mutations:,}", "of flights, in time order"),
            ("acknowledged", _figure(self.acked_per_s), "changes/s, acks=all"),
            ("applied", _figure(self.applied_per_s), "changes/s, from the first write until readers see the last"),
            (
                "write to visible, p50",
                _figure(self.visible_p50_ms, 2),
                f"ms at {_figure(self.visible_writes_per_s)} writes/s, open loop",
            ),
            ("write to visible, p99", _figure(self.visible_p99_ms, 2), "ms"),
            ("point reads", _figure(self.reads_per_s), "reads/s over HTTP, each compared"),
            (
                "point read, p50",
                _figure(self.read_p50_ms, 2),
                f"ms at {_figure(self.read_latency_at_per_s)} reads/s, open loop",
            ),
            ("point read, p99", _figure(self.read_p99_ms, 2), "ms"),
            (
                "rows checked",
                f"{self.rows_checked:,}",
                ", ".join(f"{name} {count:,}" for name, count in self.rows.items()),
            ),
            *self._accurate(),
            ("rows wrong", f"{self.rows_wrong:,}", "missing, extra, different or out of order"),
        ]

    def _accurate(self) -> list[tuple[str, str, str]]:
        if self.archive_s is None:
            return []
        return [
            ("archived", _figure(self.archive_per_s), f"records/s; {_figure(self.archive_s, 1)} s with Spark's start"),
            (
                "snapshot made",
                _figure(self.compact_s, 1),
                f"s with Spark's start; {_figure(self.written_meanwhile)} changes meanwhile",
            ),
            (
                "snapshot adopted",
                _figure(self.adopt_s, 1),
                f"s later; digests {'equal' if self.digests_equal else 'NOT equal'}",
            ),
            ("rows checked, adopted", _figure(self.adopted_rows_checked), "from snapshot and view"),
            (
                "empty node ready",
                _figure(self.bootstrap_ready_s, 1),
                f"s; the first answer {_figure(self.bootstrap_answer_ms)} ms later",
            ),
            ("rows checked, new node", _figure(self.bootstrap_rows_checked), "begun from the snapshot"),
            (
                "middle restored",
                _figure(self.restore_s, 1),
                f"s with Spark's start; {_figure(self.restored_records)} changes folded",
            ),
            (
                "rows checked, restored",
                _figure(self.restored_rows_checked),
                "a table of its own, as the flights were then",
            ),
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
