"""Accurate.

The second path. Spark folds the log again, the node agrees by digest, and an empty node begins from the result.

1. archive    the log to Parquet
2. compact    into a snapshot, while somebody goes on writing
3. adopt      every partition is served from it, and its own digest was the same
4. check      every row again: now snapshot and view
5. bootstrap  an empty node, from the snapshot; every row on it
6. restore    the flights as they were in the middle of their history, as a table of its own; every row of it
"""

import random
import time
from pathlib import Path
from typing import Any, NamedTuple

from examples.flights import adopted
from examples.flights.check import Verdict, check_all
from examples.flights.reads import Truth
from examples.flights.report import Report
from examples.flights.running import STORE, RunningStore, call
from examples.flights.source import FLIGHTS
from examples.flights.steps import Steps
from examples.flights.writer import Writer
from logstore import Position, Store

_SAMPLE = 100
_ANSWER_MS = 30_000
_HTTP = "127.0.0.1:0"
_THEN = f"{FLIGHTS}_then"
_WAIT_S = "120"


class Accurate(NamedTuple):
    """One walk along the accurate path. `facts`: what the running store said of itself."""

    place: Path
    facts: dict[str, Any]
    store: Store
    partitions: int  # of flights
    truth: Truth
    steps: Steps
    report: Report
    rng: random.Random

    def run(self) -> None:
        """All of it; what is wrong is noted in the report. Raises LogStoreError when a step does not get to its end."""
        self.archive()  # 1
        snapshot = self.compact()  # 2, 3
        self.check("check_adopted", "check all rows again, from snapshot and view", self.store, self.truth.tables)  # 4
        self.report.adopted_rows_checked = self.total
        self.from_snapshot()
        self.bootstrap(snapshot)  # 5
        self.restore()  # 6

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(len(rows) for rows in self.truth.tables.values())

    def archive(self) -> None:
        """Everything written so far."""
        with self.steps.step("archive", "archive the log as Parquet, with Spark"):
            done = self._batch("archive", FLIGHTS)
        self.report.archive_s, self.report.archive_per_s = self.steps.seconds["archive"], done["records_per_s"]
        self._right(
            done["records"] >= self.report.mutations,
            f"{done['records']:,} records were archived, fewer than were written",
        )

    def compact(self) -> str:
        """Make a snapshot, and wait until it is served; its name."""
        with Writer(self.store, self.truth, self.rng) as writer:
            with self.steps.step("compact", "make a snapshot, while writes go on"):
                made = self._batch("compact", FLIGHTS)
            with self.steps.step("adopt", "wait until the node has agreed and serves from it"):
                rows = adopted.await_adopted(self.facts["http"], FLIGHTS, self.partitions, made["snapshot"])
        report = self.report
        report.compact_s, report.adopt_s = self.steps.seconds["compact"], self.steps.seconds["adopt"]
        report.written_meanwhile = writer.written
        report.digests_equal = adopted.digests_equal(rows, made["cut"], made["digests"])
        self._right(report.digests_equal, "the node's digests at the cut are not those of the snapshot")
        self._right(writer.written > 0, "nothing was written while the snapshot was made")
        return str(made["snapshot"])

    def from_snapshot(self) -> None:
        """Rows that nobody changed since are answered from the snapshot."""
        keys = self.rng.sample(sorted(self.truth.flights), min(_SAMPLE, len(self.truth.flights)))
        rows = [self.store.get(FLIGHTS, key) for key in keys]
        self._right(
            any(row is not None and row.source == "snapshot" for row in rows),
            f"none of {len(keys)} rows came from the snapshot",
        )

    def bootstrap(self, snapshot: str) -> None:
        """A node with nothing, in a replica group of its own, beside the one that runs."""
        began_s = time.perf_counter()
        with RunningStore(self.place / "fresh", *self._node()) as node:
            with self.steps.step("bootstrap", "start an empty node: it begins from the snapshot"):
                facts = node.ready()
                ready_s = time.perf_counter()
            with Store(self.facts["bootstrap"], facts["http"]) as store:
                self._first_answer(store)
                self.report.bootstrap_ready_s = round(ready_s - began_s, 3)
                self.report.bootstrap_answer_ms = round((time.perf_counter() - ready_s) * 1000, 3)
                bases = {row["base"] for row in adopted.partitions(facts["http"], FLIGHTS)}
                self._right(bases == {snapshot}, f"the empty node began from {bases}, not from {snapshot}")
                verdict = self.check("check_fresh", "check all rows on the new node", store, self.truth.tables)
                self.report.bootstrap_rows_checked = verdict.checked
            with self.steps.step("stop_fresh", "stop the new node"):
                node.stop()

    def restore(self) -> None:
        """A fork; the flights themselves stay as they are."""
        middle = self.truth.middle
        with self.steps.step("restore", "restore the flights as they were in the middle, as a table of its own"):
            done = self._batch("restore", FLIGHTS, "--at", middle.token, "--as", _THEN, "--wait", _WAIT_S)
        self.report.restore_s, self.report.restored_records = self.steps.seconds["restore"], done["records"]
        verdict = self.check("check_restored", "check all rows of that table", self.store, {_THEN: self.truth.then})
        self.report.restored_rows_checked = verdict.checked
        with self.steps.step("diff", "compare it with the flights at that position, with Spark"):
            same = self._batch("diff", f"{FLIGHTS}@{middle.token}", _THEN)
        self._right(
            same["same"] == len(self.truth.then), f"only {same['same']:,} of {len(self.truth.then):,} rows are the same"
        )

    def check(self, name: str, text: str, store: Store, tables: dict[str, dict[bytes, bytes]]) -> Verdict:
        """Every row of these tables; what is wrong is added to the report."""
        total = sum(len(rows) for rows in tables.values())
        with self.steps.step(name, f"{text}: {total:,}", total) as advance:
            verdict = check_all(
                store, tables, {table: self.truth.position.get(table, Position()) for table in tables}, advance
            )
        self.report.rows_wrong += verdict.wrong
        self.report.wrong += verdict.examples
        return verdict

    def _first_answer(self, store: Store) -> None:
        key = self.rng.choice(sorted(self.truth.flights))
        row = store.get(FLIGHTS, key, after=self.truth.position[FLIGHTS], deadline_ms=_ANSWER_MS)
        self._right(
            row is not None and row.value == self.truth.flights[key],
            f"the first answer of the new node, {key!r}, is wrong",
        )

    def _node(self) -> tuple[str, ...]:
        data_dir = str(self.place / "fresh" / "node")
        return (
            "node",
            "--bootstrap",
            self.facts["bootstrap"],
            "--data-dir",
            data_dir,
            "--group",
            "fresh",
            "--http",
            _HTTP,
        )

    def _batch(self, *what: str) -> dict[str, Any]:
        where = ("--bootstrap", self.facts["bootstrap"], "--data-dir", str(self.place / STORE))
        return call(self.place, "batch", *what, *where, "--engine", "spark")  # so few flights would do without

    def _right(self, right: bool, otherwise: str) -> None:
        if not right:
            self.report.wrong.append(otherwise)
