"""Decisions: the outcomes and ids that a conditional table's partition remembers, in its view.

    database   key                                    value
    outcomes   offset                                 outcome
    ids        xxh3-128(row key) (16) | id (16)       bucket of row key | id -> the id's value
    id_ends    offset of an id's first record         row key | id: what leaves together with that record's outcome

A view holds all of them that are in the state, whatever base its rows stand on. Those that have ended are removed a few
at a time, with what is committed anyway; everybody who reads passes over them.

A decision item, as snapshots have them: a kind byte before the key, 3 for ids and 4 for outcomes, and the same value.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from xxhash import xxh3_128_digest

from logstore.model.errors import Corrupted
from logstore.model.folding.decided import Decided, RowId
from logstore.model.hard_rows.decisions import ID_KIND, OUTCOME_KIND, DecisionItem
from logstore.model.hard_rows.encoding import (
    ID_BYTES,
    decode_id,
    decode_outcome,
    first_of,
    outcome_key,
    outcome_offset,
)  # fmt: skip
from logstore.model.hard_rows.outcomes import RememberedId, RememberedOutcome, is_remembered
from logstore.model.hard_rows.rules import DedupWindow
from logstore.view import damage, layout

OUTCOMES, IDS, ID_ENDS = b"outcomes", b"ids", b"id_ends"
COUNTER = b"counter"  # in `meta`
REVISION = b"rules"  # in `meta`: of the rules in force; absent: 0
_SWEPT = 64  # ended outcomes that a commit removes at least, if there are some


class DecisionDatabases(NamedTuple):
    """Databases of an environment that hold decisions, and the window for which they do."""

    outcomes: Any
    ids: Any
    id_ends: Any
    meta: Any
    window: DedupWindow

    @classmethod
    def opened(cls, env: Any, meta: Any, window: DedupWindow, *, create: bool) -> "DecisionDatabases":
        """Open the databases; they are created with the view."""
        outcomes, ids, id_ends = (env.open_db(name, create=create) for name in (OUTCOMES, IDS, ID_ENDS))
        return cls(outcomes, ids, id_ends, meta, window)


def ids_key(row_key: bytes, mutation_id: bytes) -> bytes:
    """The key in `ids`, 32 bytes."""
    return xxh3_128_digest(row_key) + mutation_id


class DecidedSize(NamedTuple):
    """Size of what a commit writes of decisions: bytes of keys and values, and items that it touches."""

    bytes: int
    items: int


def size_of(decided: Decided) -> DecidedSize:
    """The size at most, ended ones that are removed on the way included."""
    ids = sum(len(row_key) for row_key, _ in decided.ids) * 2 + len(decided.ids) * (4 * ID_BYTES + 64)
    outcomes = sum(map(len, decided.outcomes.values())) + len(decided.outcomes) * 8
    return DecidedSize(ids + outcomes, 7 * len(decided.outcomes) + 2 * len(decided.ids) + 3 * _SWEPT)


# writing, inside the commit


def write(databases: DecisionDatabases, txn: Any, decided: Decided) -> None:
    """Write what a run of records has added, the counter, and the revision of the rules."""
    outcomes = [(outcome_key(offset), raw) for offset, raw in sorted(decided.outcomes.items())]
    txn.cursor(db=databases.outcomes).putmulti(outcomes)
    named = [
        (xxh3_128_digest(row_key) + mutation_id, row_key + mutation_id, raw)
        for (row_key, mutation_id), raw in decided.ids.items()
    ]
    txn.cursor(db=databases.id_ends).putmulti([(raw[:8], whole) for _, whole, raw in named])
    buckets = sorted((key, layout.pack_one(whole, raw)) for key, whole, raw in named)
    found, added = txn.cursor(db=databases.ids).putmulti(buckets, overwrite=False)
    if added < found:  # an id that is borne anew, or another row's under an equal hash
        for key, whole, raw in named:
            bucket = dict(layout.unpack_bucket(txn.get(key, default=b"", db=databases.ids)))
            txn.put(key, layout.pack_bucket(bucket | {whole: raw}), db=databases.ids)
    txn.put(COUNTER, layout.pack_offset(decided.counter), db=databases.meta)
    if decided.revision:
        txn.put(REVISION, layout.pack_offset(decided.revision), db=databases.meta)


def sweep(databases: DecisionDatabases, txn: Any, log_time_ms: int, decided: Decided) -> None:
    """Remove outcomes that have ended, and their ids: more of them than were added, and not many more."""
    cursor = txn.cursor(db=databases.outcomes)
    for _ in range(2 * len(decided.outcomes) + _SWEPT):
        if not cursor.first():
            return
        key, raw = cursor.item()
        if is_remembered(decode_outcome(raw), log_time_ms, decided.counter, databases.window):
            return
        cursor.delete()
        whole = txn.pop(key, db=databases.id_ends)
        if whole is not None:
            _forget(databases, txn, whole, outcome_offset(key))


def load(databases: DecisionDatabases, txn: Any, items: Iterable[DecisionItem]) -> None:
    """Write decision items as they are; of an id that is there, the one of the later record stays."""
    for key, value in items:
        if key[:1] == OUTCOME_KIND:
            txn.put(key[1:], value, db=databases.outcomes)
            continue
        if key[:1] != ID_KIND:
            raise Corrupted(f"a decision item of kind {key[:1].hex()}: written by a later build, or damaged")
        before = dict(layout.unpack_bucket(txn.get(key[1:], default=b"", db=databases.ids)))
        for whole, raw in layout.unpack_bucket(value):
            first = first_of(raw)
            if whole not in before or first_of(before[whole]) <= first:
                before[whole] = raw
                txn.put(outcome_key(first), whole, db=databases.id_ends)
        txn.put(key[1:], layout.pack_bucket(before), db=databases.ids)


def _forget(databases: DecisionDatabases, txn: Any, whole: bytes, first: int) -> None:
    """Remove an id, unless a later record has borne it anew since it ended."""
    key = ids_key(whole[:-ID_BYTES], whole[-ID_BYTES:])
    bucket = dict(layout.unpack_bucket(txn.get(key, default=b"", db=databases.ids)))
    if whole not in bucket or first_of(bucket[whole]) != first:
        return
    del bucket[whole]
    if bucket:
        txn.put(key, layout.pack_bucket(bucket), db=databases.ids)
    else:
        txn.delete(key, db=databases.ids)


# reading


class DecisionReading:
    """Decisions in one committed state; those that have ended are passed over."""

    def __init__(self, databases: DecisionDatabases, txn: Any, log_time_ms: int, path: Path) -> None:
        self._databases, self._txn, self._log_time_ms, self._path = databases, txn, log_time_ms, path
        with damage.translating(path):
            counter, revision = (txn.get(name, db=databases.meta) for name in (COUNTER, REVISION))
        self.counter, self.revision = layout.offset_or_0(counter), layout.offset_or_0(revision)

    def outcome(self, offset: int) -> RememberedOutcome | None:
        """The outcome of the record at `offset`; None where none is remembered. Raises Corrupted, NotYet."""
        with damage.translating(self._path):
            raw = self._txn.get(outcome_key(offset), db=self._databases.outcomes)
        found = None if raw is None else decode_outcome(raw)
        return found if found is not None and self._lasts(found) else None

    def outcomes(self, offsets: Iterable[int]) -> dict[int, RememberedOutcome]:
        """Outcomes of the records at `offsets`, of those where one is remembered. Raises Corrupted, NotYet."""
        with damage.translating(self._path):
            items = self._txn.cursor(db=self._databases.outcomes).getmulti(map(outcome_key, offsets))
        found = {outcome_offset(key): decode_outcome(raw) for key, raw in items}
        return {offset: outcome for offset, outcome in found.items() if self._lasts(outcome)}

    def has_ended(self, offset: int) -> bool:
        """True when an outcome of the record at `offset` would no longer be remembered. Raises Corrupted, NotYet.

        Log time and number both rise with the offset, so the next outcomes on either side tell.
        """
        with damage.translating(self._path):
            cursor = self._txn.cursor(db=self._databases.outcomes)
            after = decode_outcome(cursor.value()) if cursor.set_range(outcome_key(offset)) else None
            if after is not None and not self._lasts(after):
                return True
            is_one_before = cursor.prev() if after is not None else cursor.last()
            if is_one_before and self._lasts(decode_outcome(cursor.value())):
                return False
        return self.counter > 0 if after is None else after.number > 1

    def ids(self, names: Iterable[RowId]) -> dict[RowId, RememberedId]:
        """Ids among these that are remembered. Raises Corrupted, NotYet."""
        every = list(names)
        keys = [xxh3_128_digest(row_key) + mutation_id for row_key, mutation_id in every]
        with damage.translating(self._path):
            buckets = dict(self._txn.cursor(db=self._databases.ids).getmulti(keys))
        found: dict[RowId, RememberedId] = {}
        for name, key in zip(every, keys, strict=True) if buckets else ():
            raw = dict(layout.unpack_bucket(buckets.get(key, b""))).get(name[0] + name[1])
            first = None if raw is None else self.outcome(first_of(raw))
            if raw is not None and first is not None:
                found[name] = decode_id(raw, first)
        return found

    def items(self, since: int = 0) -> Iterator[DecisionItem]:
        """Decision items of records at offset `since` or later, in key order. Raises Corrupted, NotYet."""
        with damage.translating(self._path):
            least = max(since, self._oldest())
            for key, bucket in self._txn.cursor(db=self._databases.ids):
                lasting = {name: raw for name, raw in layout.unpack_bucket(bucket) if first_of(raw) >= least}
                if lasting:
                    yield ID_KIND + key, layout.pack_bucket(lasting)
            cursor = self._txn.cursor(db=self._databases.outcomes)
            if cursor.set_range(outcome_key(least)):
                for key, raw in cursor:
                    yield OUTCOME_KIND + key, raw

    def _oldest(self) -> int:
        """The offset of the oldest outcome that is remembered: log time and number both rise with the offset."""
        for key, raw in self._txn.cursor(db=self._databases.outcomes):
            if self._lasts(decode_outcome(raw)):
                return outcome_offset(key)
        return (1 << 63) - 1

    def _lasts(self, outcome: RememberedOutcome) -> bool:
        return is_remembered(outcome, self._log_time_ms, self.counter, self._databases.window)
