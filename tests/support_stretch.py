"""The state of a conditional table's partition in memory, as `fold_stretch` asks and changes it."""

from logstore.model.folding.fold import Records
from logstore.model.hard_rows.encoding import decode_id, decode_outcome, first_of
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch


class StretchState:
    """Entries, outcomes and ids, encoded, that stretch after stretch leaves."""

    def __init__(self, rules):
        self.rules = rules
        self.next_offset, self.log_time_ms, self.counter, self.revision = 0, 0, 0, 0
        self.rows, self.outcomes, self.named, self.quarantined = {}, {}, {}, []
        self.asked = []  # keys of every look-up

    def entries(self, keys):
        assert list(keys) == sorted(set(keys)), "looked up in key order"
        self.asked.append(list(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}

    def ids(self, names):
        assert list(names) == sorted(set(names))
        raw = {name: self.named[name] for name in names if name in self.named}
        return {name: decode_id(one, decode_outcome(self.outcomes[first_of(one)])) for name, one in raw.items()}

    def take(self, records: Records):
        start = StretchStart(self.next_offset, self.log_time_ms, self.counter, self.revision)
        folded = fold_stretch(records, self.rules, start, self)
        self.next_offset, self.log_time_ms = folded.next_offset, folded.log_time_ms
        self.rows |= folded.entries
        self.quarantined += folded.quarantined
        self.outcomes |= folded.decided.outcomes
        self.named |= folded.decided.ids
        self.counter, self.revision = folded.decided.counter, folded.decided.revision
        return folded


def columns(log, first, after):
    """The records of a `support_hard.Log` at offsets `[first, after)` as columns."""
    rows = [
        (
            offset, one.key, one.value, one.timestamp,
            [*([("ls.op", one.operation.encode())] if one.said else []), *one.headers.items()],
        )
        for offset, one in log.between(first, after)
    ]  # fmt: skip
    headers_of = [(*row[:4], row[4] or None) for row in rows]
    return Records(*map(list, zip(*headers_of, strict=True))) if rows else Records([], [], [], [], [])
