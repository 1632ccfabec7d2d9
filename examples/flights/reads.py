"""Reads: what a user does with the store, each answer compared with the source. `Truth` is the source, as it stands."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from examples.flights import visible, wire
from examples.flights.report import Report, percentiles
from examples.flights.source import FLIGHTS
from examples.flights.steps import Steps
from logstore import Position, Store

VISIBLE_PER_S = 200
READS_PER_S = 2_000
CONNECTIONS = 32
SAMPLE = 20_000
MANY = 1_000


class Truth:
    """What every table must hold: the source, plus the demo's own changes since. `position` covers them all.

    `then`: what the flights held at `middle`, when half of their changes were written.
    """

    def __init__(self, tables: dict[str, dict[bytes, bytes]], then: dict[bytes, bytes]) -> None:
        self.tables, self.position = tables, dict.fromkeys(tables, Position())
        self.then, self.middle = then, Position()

    @property
    def flights(self) -> dict[bytes, bytes]:
        """The rows of the flights."""
        return self.tables[FLIGHTS]

    def changed(self, position: Position) -> None:
        """Note a change of flights."""
        self.position[FLIGHTS] |= position


class Tour(NamedTuple):
    """One visit to everything a reader can do."""

    store: Store
    url: str
    truth: Truth
    steps: Steps
    report: Report
    rng: random.Random
    seconds: float  # of each measurement

    def run(self) -> None:
        """All of it; answers that are wrong are noted in the report."""
        self.point_reads()
        self.multi_get()
        self.prefix_scan()
        self.own_write()
        self.deleting()
        self.visible()

    def point_reads(self) -> None:
        """As fast as answers come, then at a fixed rate for the latencies."""
        work = wire.reads_of(self.url, FLIGHTS, self._some(SAMPLE))
        with self.steps.step("point_reads", f"point reads over {CONNECTIONS} connections"):
            flat_out = wire.drive(self.url, work, seconds=self.seconds, connections=CONNECTIONS)
        with self.steps.step("read_latency", f"point reads, {READS_PER_S:,} a second"):
            paced = wire.drive(self.url, work, seconds=self.seconds, connections=CONNECTIONS, rate=READS_PER_S)
        report = self.report
        report.reads_per_s = round(len(flat_out.late_ms) / flat_out.seconds)
        report.read_p50_ms, report.read_p99_ms = percentiles(paced.late_ms)
        report.read_latency_at_per_s, report.reads_wrong = READS_PER_S, flat_out.wrong + paced.wrong
        self._right(
            report.reads_wrong == 0, f"{report.reads_wrong:,} point reads brought something else than the source"
        )

    def multi_get(self) -> None:
        """A thousand flights, and one that never was, in one request."""
        asked = [*self._some(MANY - 1), (b"JFK/2013-02-30/XX0", None)]
        with self.steps.step("multi_get", f"multi-get of {len(asked):,} keys"):
            rows = self.store.get_many(FLIGHTS, [key for key, _ in asked], deadline_ms=10_000)
        wrong = sum((row.value if row else None) != value for row, (_, value) in zip(rows, asked, strict=True))
        self._right(wrong == 0, f"{wrong:,} of {len(asked):,} rows of a multi-get are not as in the source")

    def prefix_scan(self) -> None:
        """All flights of one day from one airport."""
        flights = self.truth.flights
        keys = sorted(flights)
        airport, day, _ = keys[len(keys) // 2].split(b"/")
        prefix = airport + b"/" + day + b"/"
        wanted = [(key, flights[key]) for key in keys if key.startswith(prefix)]
        with self.steps.step("prefix_scan", f"all {len(wanted):,} flights of {day.decode()} from {airport.decode()}"):
            rows = [(row.key, row.value) for row in self.store.scan(FLIGHTS, prefix=prefix)]
        self._right(
            rows == wanted, f"the scan of {prefix!r} brought {len(rows):,} rows, not the {len(wanted):,} of the source"
        )

    def own_write(self) -> None:
        """A write, and a read that must see it."""
        key, value = (
            b"JFK/2013-12-31/LS1",
            orjson.dumps({"state": "scheduled", "dest": "SFO", "plane": None, "due": "23:59"}),
        )
        with self.steps.step("own_write", "read your own write"):
            position = self.store.put(FLIGHTS, key, value)
            row = self.store.get(FLIGHTS, key, after=position, deadline_ms=10_000)
        self.truth.flights[key] = value
        self.truth.changed(position)
        self._right(
            row is not None and row.value == value, f"the write of {key!r} was not seen by the read with its token"
        )

    def deleting(self) -> None:
        """A delete, and reads that must not see the row any more."""
        key, _ = self._some(1)[0]
        with self.steps.step("delete", "delete a flight"):
            position = self.store.delete(FLIGHTS, key)
            row = self.store.get(FLIGHTS, key, after=position, deadline_ms=10_000)
        del self.truth.flights[key]
        self.truth.changed(position)
        self._right(row is None, f"{key!r} is still there after its delete")

    def visible(self) -> None:
        """Write to visible, on flights that are there."""
        writes = [
            (key, _noted(value, number))
            for number, (key, value) in enumerate(self._some(int(VISIBLE_PER_S * self.seconds)))
        ]
        with self.steps.step("visible", f"write to visible, {VISIBLE_PER_S} writes a second"):
            late_ms, position = visible.measure(self.store, self.url, FLIGHTS, writes, VISIBLE_PER_S)
        self.truth.flights.update(writes)
        self.truth.changed(position)
        self.report.visible_writes_per_s = VISIBLE_PER_S
        self.report.visible_p50_ms, self.report.visible_p99_ms = percentiles(late_ms)

    def _right(self, right: bool, otherwise: str) -> None:
        """Note a wrong answer; the tour goes on, so that the check of all rows says how far it goes."""
        if not right:
            self.report.wrong.append(otherwise)

    def _some(self, count: int) -> Sequence[tuple[bytes, bytes]]:
        flights = self.truth.flights
        keys = self.rng.sample(sorted(flights), min(count, len(flights)))
        return [(key, flights[key]) for key in keys]


def _noted(value: bytes, number: int) -> bytes:
    return orjson.dumps({**orjson.loads(value), "note": number})
