"""Promises: what the log itself decides, on the same store and at once.

counter   eight threads count the delays of one carrier: every increment counts once
race      eight gates ask for one flight: one gets it, the others are told which version was there
ending    a boarding call is gone when its time has come
cells     a plane's logbook is one row of many cells, of which the last three states are kept; an edit is all or nothing
feed      a consumer that keeps what the change feed tells has the table
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple, TypeVar

from examples.flights.report import Report
from examples.flights.steps import Steps
from logstore import Admin, Outcome, Position, RowEdit, Store

T = TypeVar("T")

COUNTED, CALLS, LOGBOOKS = "delays", "boarding-calls", "logbooks"  # tables
THREADS, INCREMENTS = 8, 25
CALL_S = 2.0
_ASK_MS = 30_000
_LAST = b"~"  # a key behind all others: the rows of the feed come in key order, and then what is new


class Promises(NamedTuple):
    """One visit to what is decided in the log; what goes wrong is noted in the report."""

    store: Store
    bootstrap: str
    steps: Steps
    report: Report

    def run(self) -> None:
        """All of it."""
        text = "create tables whose writes are decided in the log"
        with self.steps.step("promises_tables", text), Admin(self.bootstrap) as admin:
            admin.create(COUNTED, partitions=2, conditional=True)
            admin.create(CALLS, partitions=1, expiring=True)
            admin.create(LOGBOOKS, partitions=1, wide=True, families={"flown": {"versions": 3}, "crew": {}})
        self.counter()
        self.race()
        self.ending()
        self.cells()
        self.feed()

    def counter(self) -> None:
        """Many writers of one row, none of which reads it."""
        with self.steps.step("counter", f"{THREADS} threads count to {THREADS * INCREMENTS} in one row"):
            decided = self._at_once(lambda _: [self.store.incr(COUNTED, "UA") for _ in range(INCREMENTS)])
        counted = self.store.get(COUNTED, "UA", after=_behind(chain(*decided)), deadline_ms=_ASK_MS)
        found = None if counted is None else int.from_bytes(counted.value, signed=True)
        self._right(found == THREADS * INCREMENTS, f"a counter is {found}, not {THREADS * INCREMENTS}")

    def race(self) -> None:
        """Many writers who all expect an absent row."""
        with self.steps.step("race", f"{THREADS} gates ask for one flight"):
            asked = self._at_once(lambda gate: self.store.put_if(COUNTED, "gate of UA15", f"C{gate}", absent=True))
        won = [gate for gate, outcome in enumerate(asked) if outcome]
        row = self.store.get(COUNTED, "gate of UA15", after=_behind(asked), deadline_ms=_ASK_MS)
        self._right(len(won) == 1, f"{len(won)} gates were given the flight")
        self._right(row is not None and row.value == b"C%d" % won[0], "the flight is not at the gate that won")
        self._right(all(one.version == asked[won[0]].version for one in asked), "a gate was told another version")

    def ending(self) -> None:
        """A row with a time to live."""
        with self.steps.step("ending", f"a boarding call of {CALL_S:.0f} s ends"):
            began_s = time.monotonic()
            position = self.store.put(CALLS, "UA15", "now boarding", ttl_s=CALL_S)
            row = self.store.get(CALLS, "UA15", after=position, deadline_ms=_ASK_MS)
            early = time.monotonic() - began_s < CALL_S
            while row is not None and time.monotonic() - began_s < _ASK_MS / 1000:
                time.sleep(0.05)  # until its time has come
                row = self.store.get(CALLS, "UA15")
            lasted_s = time.monotonic() - began_s
        self._right(row is None, "a boarding call is still there")
        self._right(not early or lasted_s >= CALL_S, f"a boarding call ended after {lasted_s:.1f} s")

    def cells(self) -> None:
        """A row of many cells, with older versions of them."""
        states = [f"leg {number}" for number in range(5)]
        with self.steps.step("cells", "write and read the logbook of a plane, a row of many cells"):
            for state in states:
                edit = RowEdit().set("flown", "state", state).incr("flown", "legs").set("crew", state, "on board")
                written = self.store.edit(LOGBOOKS, "N14228", edit)
            refused = self.store.edit(LOGBOOKS, "N14228", RowEdit().delete_row(), version=0)
            book = self.store.get_row(
                LOGBOOKS, "N14228", columns=["flown:state", "crew:"], versions=3, after=refused.position,
                deadline_ms=_ASK_MS,
            )  # fmt: skip
        self._right(not refused and refused.version == written.version, "an edit of an older row was not refused")
        found = [] if book is None else [cell.value.decode() for cell in book.versions_of("flown:state")]
        self._right(found == states[:1:-1], f"the logbook tells {found}")
        crew = {} if book is None else book.family("crew")
        self._right(sorted(crew) == [state.encode() for state in states], f"the crew of {sorted(crew)} is there")

    def feed(self) -> None:
        """A copy of a table, made of its changes alone."""
        copy: dict[bytes, tuple[int, bytes | None]] = {}
        with self.steps.step("feed", "a copy of the table, by its change feed"):
            end = self.store.put(COUNTED, _LAST, "written last")
            for event in self.store.changes(COUNTED, since="beginning"):
                if event.version >= copy.get(event.key, (0, None))[0]:
                    copy[event.key] = event.version, event.value
                if event.key == _LAST:
                    break
            rows = {row.key: row.value for row in self.store.scan(COUNTED, after=end, deadline_ms=_ASK_MS)}
        held = {key: value for key, (_, value) in copy.items() if value is not None}
        self._right(held == rows, "the copy is not the table")

    def _at_once(self, ask: Callable[[int], T]) -> list[T]:
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(ask, range(THREADS)))

    def _right(self, right: bool, otherwise: str) -> None:
        if not right:
            self.report.wrong.append(otherwise)


def _behind(outcomes: Iterable[Outcome]) -> Position:
    """The position behind all of these."""
    position = Position()
    for outcome in outcomes:
        position |= outcome.position
    return position
