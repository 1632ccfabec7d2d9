"""Apply of conditional records beside that of plain ones: whole batches, as the lane takes them, into views.

ours     increments with ids over many rows, increments of one hot row, and puts of absent rows, in a conditional table
ceiling  plain puts of as many rows of the same size in a plain table

Kafka is left out: what is compared is the fold and the commit, in processor time. All take turns within each round;
every counter is compared with the number of its increments, and every record has an outcome.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from logstore.client.conditional.record import ConditionalRecord, Expected, incr_record, put_record
from logstore.model.folding.entry import Entry
from logstore.model.folding.fold import Records
from logstore.model.table import Table
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

BATCH, KEYS, VALUE_BYTES = 10_000, 50_000, 100
NOW_MS = 1_700_000_000_000
Made = Callable[[int], ConditionalRecord]

PLAIN = Table("plain", "plain", "a" * 32, 1)
CONDITIONAL = Table("conditional", "conditional", "b" * 32, 1, conditional=True)
AIMS = {"all-hard increments": 100_000, "increments of one row": 50_000, "puts of absent rows": 100_000}


def run(scratch: Path, records: int = 100_000, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of {name, ours, ceiling, ratio, unit, spread, aim_per_s} for each kind of conditional record."""
    value = os.urandom(VALUE_BYTES)
    makers: dict[str, Made] = {
        "all-hard increments": lambda i: incr_record(_key(i), 1, None),
        "increments of one row": lambda _: incr_record(b"hot", 1, None),
        "puts of absent rows": lambda i: put_record(_key(i), value, Expected(absent=True), None),
    }
    found: dict[str, list[float]] = {name: [] for name in ("plain", "plain in a conditional table", *makers)}
    for number in range(rounds):
        for name, table in (("plain", PLAIN), ("plain in a conditional table", CONDITIONAL)):
            found[name].append(_applied_per_s(scratch / f"{number}-{name}", table, _plain(records, value), None))
        for name, made in makers.items():
            batches = _hard(records, made)
            found[name].append(_applied_per_s(scratch / f"{number}-{name}", CONDITIONAL, batches, name))
    return [_row(name, rates, found["plain"]) for name, rates in found.items() if name != "plain"]


def _key(i: int) -> bytes:
    return b"%016d" % (i * 7_919 % KEYS)


def _plain(count: int, value: bytes) -> list[Records]:
    return list(_columns([(_key(i), value, None) for i in range(count)]))


def _hard(count: int, made: Made) -> list[Records]:
    some = [made(i) for i in range(count)]
    return list(_columns([(one.key, one.value, one.own) for one in some]))


def _columns(rows: list[tuple[bytes, bytes | None, Any]]) -> Iterator[Records]:
    for first in range(0, len(rows), BATCH):
        keys, values, headers = map(list, zip(*rows[first : first + BATCH], strict=True))
        offsets = list(range(first, first + len(keys)))
        yield Records(offsets, keys, values, [NOW_MS + offset // 10 for offset in offsets], headers)


def _applied_per_s(folder: Path, table: Table, batches: list[Records], kind: str | None) -> float:
    with closing(FollowedPartition(Target(table, 0, 0), folder)) as followed:
        began_s = time.process_time()
        for records in batches:
            followed.take(records, 0)
        seconds = time.process_time() - began_s
        count = sum(len(records.offsets) for records in batches)
        if followed.next_offset != count:
            raise RuntimeError(f"{followed.next_offset:,} of {count:,} records were applied: {followed.reason}")
        if kind is not None:
            _check(followed, count, kind)
    return count / seconds


def _check(followed: FollowedPartition, count: int, kind: str) -> None:
    """Every record has an outcome, and counters hold as many increments as they were sent."""
    with followed.view.reader().reading() as reading:
        decisions = reading.decisions
        outcomes = 0 if decisions is None else len(decisions.outcomes(range(count)))
        payloads = [Entry.decode(raw).payload for _, raw in reading.scan()]
    total = sum(int.from_bytes(payload, signed=True) for payload in payloads) if "increments" in kind else count
    if outcomes != count or total != count or len(payloads) != (1 if "one row" in kind else min(count, KEYS)):
        raise RuntimeError(f"{kind}: {outcomes:,} outcomes of {count:,}, a sum of {total:,} in {len(payloads):,} rows")


def _row(name: str, rates: list[float], plain: list[float]) -> dict[str, Any]:
    ratios = [mine / beside for mine, beside in zip(rates, plain, strict=True)]
    return {
        "name": f"apply of {name}", "unit": "records/CPU-s", "ours": statistics.median(rates),
        "ceiling": statistics.median(plain), "ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)],
        "ceiling_is": "plain puts in a plain table", "aim_per_s": AIMS.get(name),
    }  # fmt: skip
