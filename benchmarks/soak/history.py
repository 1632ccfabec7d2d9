"""History of every key: what was acknowledged at which offset, what may be in the log, and what an answer may be."""

import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

Value = str | None  # None: a delete


@dataclass
class KeyHistory:
    """Writes to one key, by one writer, one after the other."""

    acknowledged: list[tuple[int, Value]] = field(default_factory=list)  # (offset, value), as they rise
    open: list[Value] = field(default_factory=list)  # on its way, or nobody knows: may be in the log or not
    refused: set[Value] = field(default_factory=set)  # certainly not in the log
    partition: int | None = None


class History:
    """Histories of all keys. Thread-safe; `judge` returns what is wrong with an answer, or None."""

    def __init__(self) -> None:
        """Begin with no key."""
        self._lock = threading.Lock()
        self.keys: dict[str, KeyHistory] = {}

    def begin(self, key: str, value: Value) -> None:
        """A write is about to leave: from here on an answer may show it."""
        with self._lock:
            self.keys.setdefault(key, KeyHistory()).open.append(value)

    def acknowledge(self, key: str, value: Value, partition: int, offset: int) -> None:
        """The write is in the log, there."""
        with self._lock:
            known = self.keys[key]
            known.open.remove(value)
            known.partition = partition
            known.acknowledged.append((offset, value))

    def refuse(self, key: str, value: Value) -> None:
        """The write is certainly not in the log."""
        with self._lock:
            known = self.keys[key]
            known.open.remove(value)
            if value is not None:
                known.refused.add(value)

    def last(self, key: str) -> int | None:
        """Offset of the newest acknowledged write."""
        with self._lock:
            known = self.keys.get(key)
            return known.acknowledged[-1][0] if known and known.acknowledged else None

    def judge(self, key: str, applied: int | None, found: tuple[int, str] | None, least: int = -1) -> str | None:
        """Judge an answer: the row `found` (version, value) or none, as of the position `applied`.

        Without a position the answer must have come as far as the offset `least`.
        """
        with self._lock:
            known = self.keys.get(key)
            if known is None:
                return f"{key}: never written, and answered {found}" if found else None
            bound = applied if applied is not None else least + 1
            count = bisect_left(known.acknowledged, (bound,))
            expected = known.acknowledged[count - 1] if count else None
            if found is None:
                right = _nothing_there(known, expected, applied)
            else:
                right = _may_be(known, expected, found, applied)
            return None if right else f"{key} applied={applied} least={least}: {found}, expected {expected} of {known}"


def missing(history: History, keys: Iterable[str], seen: dict[str, tuple[int, str]], ends: dict[int, int]) -> list[str]:
    """Judgements over a scan that should have seen all of `keys`, each partition as of `ends`."""
    wrong = []
    for key in keys:
        known = history.keys.get(key)
        if known is None or known.partition is None or known.partition not in ends:
            continue
        word = history.judge(key, ends[known.partition], seen.get(key))
        if word:
            wrong.append(f"scan: {word}")
    return wrong


def _nothing_there(known: KeyHistory, expected: tuple[int, Value] | None, applied: int | None) -> bool:
    deleted_later = applied is None and any(value is None for _, value in known.acknowledged)
    return expected is None or expected[1] is None or None in known.open or deleted_later


def _may_be(known: KeyHistory, expected: tuple[int, Value] | None, found: tuple[int, str], applied: int | None) -> bool:
    version, value = found
    if applied is not None and version >= applied:
        return False
    if value in known.open:
        return expected is None or version > expected[0]
    if applied is not None:
        return found == expected
    return found in known.acknowledged and (expected is None or version >= expected[0])
