"""Check.

Every row of a table against the source, in both directions: nothing missing, nothing extra, every byte the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from examples.flights.steps import Advance
from logstore import Position, Row, Store

_EXAMPLES = 5
_DEADLINE_MS = 30_000
_PIECE = 10_000
_AT_ONCE = 3  # scans at the same time


@dataclass
class Verdict:
    """What a comparison found. `checked`: rows compared; `examples`: a few of what is wrong, in words."""

    checked: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    disordered: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Everything that is not as it should be."""
        return self.missing + self.extra + self.different + self.disordered

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(
            self.checked + other.checked,
            self.missing + other.missing,
            self.extra + other.extra,
            self.different + other.different,
            self.disordered + other.disordered,
            (self.examples + other.examples)[:_EXAMPLES],
        )

    def note(self, kind: str, key: bytes) -> None:
        """Count one wrong row."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{kind}: {key!r}")


def compare(expected: Mapping[bytes, bytes], rows: Iterable[Row], advance: Advance = lambda _: None) -> Verdict:
    """Rows, which must come in rising order of their keys, against what they should be."""
    verdict, left, last = Verdict(), dict(expected), b""
    for row in rows:
        value = left.pop(row.key, None)
        if value is None:
            verdict.note("extra", row.key)  # also a key that came before
        elif value != row.value:
            verdict.note("different", row.key)
        if row.key <= last:
            verdict.note("disordered", row.key)
        last = row.key
        verdict.checked += 1
        if verdict.checked % _PIECE == 0:
            advance(_PIECE)
    advance(verdict.checked % _PIECE)
    for key in left:
        verdict.note("missing", key)
    return verdict


def check(store: Store, table: str, expected: Mapping[bytes, bytes], after: Position, advance: Advance) -> Verdict:
    """Scan a whole table over HTTP, in adjoining ranges at the same time, and compare every row."""
    keys = sorted(expected)
    bounds = (
        [None, *(keys[len(keys) * i // _AT_ONCE] for i in range(1, _AT_ONCE)), None]
        if len(keys) > _PIECE
        else [None, None]
    )

    def part(ends: Sequence[bytes | None]) -> Verdict:
        start, end = ends
        own = {key: value for key, value in expected.items() if (start or b"") <= key and (end is None or key < end)}
        return compare(own, store.scan(table, start=start, end=end, after=after, deadline_ms=_DEADLINE_MS), advance)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return sum(threads.map(part, pairwise(bounds)), Verdict())


def check_all(
    store: Store, tables: Mapping[str, Mapping[bytes, bytes]], after: Mapping[str, Position], advance: Advance
) -> Verdict:
    """Check every table, each at its position."""
    return sum((check(store, table, rows, after[table], advance) for table, rows in tables.items()), Verdict())
