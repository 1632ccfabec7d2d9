"""`make bench`: measure everything, each figure beside its ceiling, and print a table.

    make bench ARGS="--only lane --only http --json figures.json"
    make bench ARGS="--only partitions --only far --only change --only runs --plots docs/plots"

A figure counts as a ratio within one run. What anything else on the machine took of the processor meanwhile is printed
too: a suite that was disturbed by more than a tenth is marked, and its figures are worth repeating.
"""

import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import orjson
import psutil
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import (
    adoption,
    batch,
    change_feed,
    client,
    conditional_apply,
    conditional_writes,
    embedded,
    engines,
    fresh_reads,
    history,
    http,
    lane,
    levels,
    memory,
    plots,
    reads,
    replica,
    scale,
    snapshot_reads,
    visible,
    wide_reads,
)
from examples.flights.running import Dev
from logstore.broker.embedded import EmbeddedKafka

Row = dict[str, Any]
DISTURBED = 0.10
ROUNDS = 3


def _with_kafka(suite: Callable[..., list[Row]]) -> Callable[[Path, int], list[Row]]:
    def run(scratch: Path, rounds: int) -> list[Row]:
        with EmbeddedKafka(scratch / "kafka") as kafka:
            return suite(kafka.bootstrap, rounds=rounds)

    return run


def _with_kafka_and_room(suite: Callable[..., list[Row]]) -> Callable[[Path, int], list[Row]]:
    def run(scratch: Path, rounds: int) -> list[Row]:
        with EmbeddedKafka(scratch / "kafka") as kafka:
            return suite(kafka.bootstrap, scratch, rounds=rounds)

    return run


def _with_store(suite: Callable[..., list[Row]], *, repeated: bool) -> Callable[[Path, int], list[Row]]:
    def run(scratch: Path, rounds: int) -> list[Row]:
        with Dev(scratch / "dev") as dev:
            return suite(dev.ready(), **({"rounds": rounds} if repeated else {}))

    return run


SUITES: dict[str, Callable[[Path, int], list[Row]]] = {
    "client": _with_kafka(client.run),
    "lane": _with_kafka(lane.run),
    "http": lambda scratch, rounds: http.run(scratch, rounds=rounds),
    "reads": lambda scratch, rounds: reads.run(scratch, rounds=rounds),
    "replica": lambda scratch, rounds: replica.run(scratch, rounds=rounds),
    "fresh": _with_store(fresh_reads.run, repeated=True),
    "conditional": _with_store(conditional_writes.run, repeated=True),
    "conditional-apply": lambda scratch, rounds: conditional_apply.run(scratch, rounds=rounds),
    "change-feed": _with_store(change_feed.run, repeated=True),
    "embedded": lambda scratch, rounds: embedded.run(scratch, rounds=rounds),
    "visible": _with_store(visible.run, repeated=True),
    "levels": levels.run,
    "snapshot-reads": lambda scratch, rounds: snapshot_reads.run(scratch, rounds=rounds),
    "wide-reads": lambda scratch, rounds: wide_reads.run(scratch, rounds=rounds),
    "memory": _with_store(memory.run, repeated=False),
    "bootstrap": lambda scratch, rounds: adoption.run_bootstrap(scratch, rounds=rounds),
    "adoption": lambda scratch, _rounds: adoption.run_adoption(scratch),
    "archive": _with_kafka_and_room(batch.run_archive),
    "fold": _with_kafka_and_room(batch.run_fold),
    "history": _with_kafka_and_room(history.run),
    "jobs": lambda scratch, rounds: engines.run_small(scratch, rounds=rounds),
    "partitions": _with_kafka_and_room(scale.run_partitions),
    "far": _with_kafka_and_room(scale.run_far),
    "change": _with_kafka_and_room(scale.run_change),
    "runs": _with_kafka_and_room(scale.run_runs),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", multiple=True, type=click.Choice(list(SUITES)), help="Run this suite; may be given again. Default: all."
)
@click.option(
    "--rounds",
    default=ROUNDS,
    show_default=True,
    help="Ours and its ceiling take turns so many times; figures are medians.",
)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file."
)
@click.option(
    "--plots", "folder", type=click.Path(file_okay=False, path_type=Path), help="Draw curves as PNG files in here."
)
def main(only: tuple[str, ...], rounds: int, json_path: Path | None, folder: Path | None) -> None:
    """Measure, and print each figure beside its ceiling."""
    console = Console(stderr=True)
    results: dict[str, Any] = {"machine": _machine(), "suites": {}}
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        for name in only or SUITES:
            task = progress.add_task(name, total=None)
            results["suites"][name] = _measure(name, rounds)
            progress.stop_task(task)
            progress.update(task, total=1, completed=1)
    _print(results)
    if json_path is not None:
        json_path.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    if folder is not None:
        for path in plots.draw(results, folder):
            console.print(str(path))


def _measure(name: str, rounds: int) -> Row:
    begin, busy, own = time.perf_counter(), _busy_s(), _own_s()
    with tempfile.TemporaryDirectory(prefix=f"logstore-bench-{name}-") as scratch:
        rows = SUITES[name](Path(scratch), rounds)
    busy, own = _busy_s() - busy, _own_s() - own
    seconds = time.perf_counter() - begin
    return {
        "rows": rows,
        "seconds": seconds,
        "others_cpu_share": max(0.0, busy - own) / (seconds * (os.cpu_count() or 1)),
    }


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + getattr(times, "steal", 0.0))


def _own_s() -> float:
    """Processor time of this process and of every descendant that has ended and been waited for.

    A suite ends all it starts.
    """
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _machine() -> Row:
    packages = ("confluent-kafka", "faust-streaming", "lmdb", "uvicorn", "uvloop")
    return {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()} | {
        p: version(p) for p in packages
    }


def _print(results: Row) -> None:
    table = Table(title="logstore beside its ceilings")
    for column in ("what", "ours", "ceiling", "ratio", "aim", "notes"):
        table.add_column(column, justify="right" if column in ("ours", "ceiling", "ratio", "aim") else "left")
    for name, suite in results["suites"].items():
        for row in suite["rows"]:
            table.add_row(*_cells(row))
        others = suite["others_cpu_share"]
        noise = (
            f"[bold red]disturbed: others took {others:.0%} of the processor[/]"
            if others > DISTURBED
            else f"others took {others:.0%}"
        )
        table.add_row(f"[dim]{name}: {suite['seconds']:.0f} s, {noise}[/]", end_section=True)
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in results["machine"].items()), style="dim")


def _cells(row: Row) -> tuple[str, ...]:
    if "skipped" in row:
        return row["name"], "-", "-", "-", "-", f"skipped: {row['skipped']}"
    ratio, aim = row.get("ratio"), row.get("aim")
    met = aim is None or ratio is None or (ratio <= aim if row.get("lower_is_better") else ratio >= aim)
    shown = "-" if ratio is None else f"[{'green' if met else 'red'}]{ratio:.2f}[/]"
    notes = [f"{row['unit']}"] + [
        f"{name} {row[name]:.2f}"
        for name in ("aim_per_s", "p50_ms", "p99_ms", "ceiling_p50_ms", "ceiling_p99_ms", "cpu_us", "ceiling_cpu_us")
        if row.get(name) is not None
    ]
    bound = "" if aim is None else f"{'≤' if row.get('lower_is_better') else '≥'} {aim:g}"
    return row["name"], _figure(row.get("ours")), _figure(row.get("ceiling")), shown, bound, ", ".join(notes)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


if __name__ == "__main__":
    main()
