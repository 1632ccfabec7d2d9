"""Demo: one run, from an empty directory to a verdict.

1. start   the store, while the source is read
2. create  the tables
3. load    everything; a year of flights as a stream of changes
4. read    as a user does
5. decide  counters, races, rows that end, and a feed of it all: `promises` has its steps
6. check   every row of every table
7. prove   the accurate path: `accurate` has its steps
8. stop    the store
"""

import gc
import random
import time
from http.client import HTTPException
from pathlib import Path

from examples.flights import load, source
from examples.flights.accurate import Accurate
from examples.flights.check import check_all
from examples.flights.promises import Promises
from examples.flights.reads import Tour, Truth
from examples.flights.report import Report
from examples.flights.running import Dev
from examples.flights.steps import Steps
from logstore import LogStoreError, Store

SEED = 2013
MEASURE_S, SHORT_S = 5.0, 1.0  # of each measurement, in a whole run and in one of a part of the data


def run(data_dir: Path, limit: int | None = None, *, fast: bool = False) -> Report:
    """Do all of it in `data_dir`; `fast`: without step 7. What goes wrong is in the report; nothing keeps running."""
    report, began_s = Report(), time.perf_counter()
    with Steps() as steps:
        try:
            _run(data_dir, limit, report, steps, fast=fast)
            report.ok = report.rows_checked > 0 and report.rows_wrong == 0 and not report.wrong
        except (LogStoreError, OSError, HTTPException) as error:
            report.error = f"{type(error).__name__}: {error}"
    report.steps, report.total_s = steps.seconds, round(time.perf_counter() - began_s, 3)
    return report


def _run(data_dir: Path, limit: int | None, report: Report, steps: Steps, *, fast: bool) -> None:
    with Dev(data_dir) as dev:
        with steps.step("source", "read the source"):
            streams = source.streams(limit)
            gc.freeze()  # a million changes that nobody needs to look through for garbage
        with steps.step("start", "start the store (the first time it fetches Kafka)"):  # 1
            facts = dev.ready()
        with steps.step("create", f"create {len(streams)} tables"):  # 2
            load.create(facts["bootstrap"], streams)
        with Store(facts["bootstrap"], facts["http"]) as store:
            truth = _load(store, streams, report, steps)  # 3
            partitions, rng = streams[-1].partitions, random.Random(SEED)
            streams.clear()
            Tour(store, facts["http"], truth, steps, report, rng, MEASURE_S if limit is None else SHORT_S).run()  # 4
            Promises(store, facts["bootstrap"], steps, report).run()  # 5
            _check(store, truth, report, steps)  # 6
            if not fast:
                Accurate(data_dir, facts, store, partitions, truth, steps, report, rng).run()  # 7
        with steps.step("stop", "stop the store"):  # 8
            dev.stop()


def _load(store: Store, streams: list[source.Stream], report: Report, steps: Steps) -> Truth:
    *others, flights = streams
    truth = Truth(
        {stream.table: dict(stream.pairs) for stream in streams}, dict(flights.pairs[: len(flights.pairs) // 2])
    )
    with steps.step(
        "load_others", "load " + ", ".join(stream.table for stream in others), sum(len(s.pairs) for s in others)
    ) as advance:
        for stream in others:
            truth.position[stream.table] = load.load(store, stream, advance).position
    report.mutations = len(flights.pairs)
    with steps.step("load_flights", f"load {report.mutations:,} changes of flights", report.mutations) as advance:
        loaded = load.load(store, flights, advance)
    with steps.step("apply", "wait until all are applied"):
        applied_s = load.await_applied(store, flights.table, loaded.position)
    truth.position[flights.table], truth.middle = loaded.position, loaded.middle
    report.acked_per_s = round(report.mutations / (loaded.acked_s - loaded.began_s))
    report.applied_per_s = round(report.mutations / (applied_s - loaded.began_s))
    return truth


def _check(store: Store, truth: Truth, report: Report, steps: Steps) -> None:
    report.rows = {table: len(rows) for table, rows in truth.tables.items()}
    total = sum(report.rows.values())
    with steps.step("check", f"check all {total:,} rows", total) as advance:
        verdict = check_all(store, truth.tables, truth.position, advance)
    report.rows_checked, report.rows_wrong = verdict.checked, verdict.wrong
    report.wrong += verdict.examples
