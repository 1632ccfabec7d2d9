"""Reference model of a partition: plain dictionaries, written from the design and not from the fold.

What has ended is removed as soon as log time has moved on; a record acts on a copy, which is kept only if it is
applied; a cell is a list of values, newest first, in which a record's own intermediate results are dropped at the end.
"""

import copy
from typing import NamedTuple

import msgpack
import xxhash


class Value(NamedTuple):
    version: int
    timestamp: int
    payload: bytes
    expires: int | None


class No(Exception):
    """Why an operation cannot be done."""


class Reference:
    """`families`: name -> (versions, ttl_ms or None, group)."""

    def __init__(self, families, *, wide, siblings, window_ms, window_records, max_value, max_cells, here):
        self.families, self.wide, self.keeps_siblings = families, wide, siblings
        self.window_ms, self.window_records = window_ms, window_records
        self.max_value, self.max_cells, self.here = max_value, max_cells, here
        self.log_time, self.counter = 0, 0
        self.cells: dict[tuple, list[Value]] = {}  # (row, family, qualifier) -> newest first; siblings: rising
        self.changed: dict[tuple, int] = {}  # cell -> version
        self.groups: dict[tuple, int] = {}  # (row, group) -> version
        self.ids: dict[tuple, tuple] = {}
        self.outcomes: dict[int, tuple] = {}

    def take(self, offset, operation, key, value, headers, timestamp):
        """One record that is neither refused nor quarantined."""
        self.log_time = max(self.log_time, timestamp)
        self.sweep()
        outcome = self._judge(offset, operation, key, value, headers, timestamp)
        if operation in ("incr", "append", "edit") or headers.keys() & {"ls.id", "ls.if", "ls.seen"}:
            self.counter += 1
            self.outcomes[offset] = outcome, self.log_time, self.counter
            if "ls.id" in headers and (key, headers["ls.id"]) not in self.ids:
                content = self._content(operation, headers, value)
                self.ids[key, headers["ls.id"]] = offset, content, outcome, self.log_time, self.counter
            self.sweep()

    def sweep(self):
        """Remove what has ended."""
        for cell, values in list(self.cells.items()):
            live = [one for one in values if one.expires is None or one.expires > self.log_time]
            newest_gone = not live or (not self.keeps_siblings and live[0] is not values[0])
            if newest_gone:
                self._forget(cell)
            else:
                self.cells[cell] = live
        rows = {row for row, *_ in self.cells}
        self.groups = {(row, group): at for (row, group), at in self.groups.items() if row in rows}
        oldest = self.counter - self.window_records
        for kept in (self.ids, self.outcomes):
            for name, (*_, at, number) in list(kept.items()):
                if at + self.window_ms <= self.log_time or number <= oldest:
                    del kept[name]

    def _judge(self, offset, operation, key, value, headers, timestamp):
        if (first := self.ids.get((key, headers.get("ls.id")))) is not None:
            if first[1] != self._content(operation, headers, value):
                return "invalid", "id-reused"
            return "duplicate", first[0], first[2]
        if "ls.if" in headers:
            holds, now = self._condition(key, headers["ls.if"])
            if not holds:
                return "rejected", now
        before = copy.deepcopy((self.cells, self.changed, self.groups))
        try:
            self._apply(offset, operation, key, value, headers, timestamp)
        except No as why:
            self.cells, self.changed, self.groups = before
            return "invalid", str(why)
        return ("applied",)

    def _content(self, operation, headers, value):
        parts = [operation.encode(), headers.get("ls.if"), headers.get("ls.ttl"), headers.get("ls.seen")]
        parts.append(b"" if operation == "delete" else value)
        raw = b""
        for part in parts:
            raw += b"\xff\xff\xff\xff" if part is None else len(part).to_bytes(4, "big") + part
        return xxhash.xxh3_128_digest(raw)

    def row_version(self, key):
        return max((at for (row, _), at in self.groups.items() if row == key), default=None)

    def _condition(self, key, raw):
        there = any(row == key for row, *_ in self.cells)
        now = self.row_version(key)
        if raw == b"absent":
            return not there, now
        if raw == b"present":
            return there, now
        word, _, rest = raw.partition(b":")
        if word == b"value":
            values = self.cells.get((key, "", b""), [])
            newest = values if self.keeps_siblings else values[:1]
            return [xxhash.xxh3_128_digest(one.payload) for one in newest] == [rest], now
        number, cell, name = rest.partition(b"@")
        if cell:
            family, _, qualifier = name.partition(b":")
            now = self.changed.get((key, family.decode(), qualifier))
        return now == int(number), now

    def _apply(self, offset, operation, key, value, headers, timestamp):
        ttl = int.from_bytes(headers["ls.ttl"], "big") if "ls.ttl" in headers else None
        if "ls.seen" in headers and operation not in ("put", "delete"):
            raise No("bad-seen")
        if self.keeps_siblings and operation in ("put", "delete"):
            self._siblings(offset, operation, key, value, headers, timestamp, ttl)
            return
        if operation == "edit" and not self.wide:
            raise No("not-wide")
        edits = {
            "put": lambda: [["set", "", b"", value]],
            "delete": lambda: [["del-row"]],
            "incr": lambda: [["incr", "", b"", self._delta(value)]],
            "append": lambda: [["append", "", b"", value]],
            "edit": lambda: msgpack.unpackb(value),
        }[operation]()
        flat = []
        for edit in edits:
            flat += [(edit[1], one) for one in edit[2]] if edit[0] == "row" else [(key, edit)]
        for row, _ in flat:
            if not self.here(row):
                raise No("wrong-partition")
        for row, edit in flat:
            self._edit(row, edit, offset, timestamp, ttl)
        for row in {row for row, _ in flat}:
            self._close(row, offset)

    def _delta(self, value):
        if value is None or len(value) != 8:
            raise No("wrong-length")
        return int.from_bytes(value, "big", signed=True)

    def _edit(self, row, edit, offset, timestamp, record_ttl):
        verb, *names = edit
        if verb == "del-row":
            self.groups |= {(row, group): offset for _, _, group in self.families.values()}
            self._forget(*[cell for cell in self.cells if cell[0] == row])
            return
        if names[0] not in self.families:
            raise No("unknown-family")
        _, family_ttl, group = self.families[names[0]]
        self.groups[row, group] = offset
        if verb == "del-family":
            self._forget(*[cell for cell in self.cells if cell[:2] == (row, names[0])])
            return
        cell = (row, names[0], names[1])
        if verb == "del":
            self._forget(cell)
            return
        values = self.cells.get(cell, [])
        if len(values) > 1 and self.keeps_siblings:
            raise No("siblings")
        ttl = record_ttl if record_ttl is not None else family_ttl
        if verb == "set":
            payload = names[2]
            ttl = names[3] if len(names) > 3 else ttl
        else:
            payload = self._upon(values, verb, names[2])
        expires = None if ttl is None else min(self.log_time + ttl, 2**63 - 1)
        if verb != "set" and values and record_ttl is None:
            expires = values[0].expires
        if len(payload) > self.max_value:
            raise No("too-large")
        if expires is not None and expires <= self.log_time:
            self._forget(cell)
            return
        older = [] if self.keeps_siblings else values
        self.cells[cell] = [Value(offset, max(timestamp, 0), payload, expires), *older]
        self.changed[cell] = offset

    def _upon(self, values, verb, more):
        if verb == "append":
            return (values[0].payload if values else b"") + more
        if values and len(values[0].payload) != 8:
            raise No("wrong-length")
        total = (int.from_bytes(values[0].payload, "big", signed=True) if values else 0) + more
        if not -(2**63) <= total < 2**63:
            raise No("overflow")
        return total.to_bytes(8, "big", signed=True)

    def _close(self, row, offset):
        """Drop intermediate results, trim, and forget what a row without a cell had."""
        mine = [cell for cell in self.cells if cell[0] == row]
        for cell in mine:
            newest, *others = self.cells[cell]
            if newest.version == offset:
                kept = [newest] + [one for one in others if one.version != offset]
                self.cells[cell] = kept[: self.families[cell[1]][0]]
        if len(mine) > self.max_cells:
            raise No("row-too-wide")
        if not mine:
            self.groups = {name: at for name, at in self.groups.items() if name[0] != row}

    def _siblings(self, offset, operation, key, value, headers, timestamp, ttl):
        cell, seen = (key, "", b""), headers.get("ls.seen")
        if seen is not None and int(seen) >= offset:
            raise No("bad-seen")
        left = [] if seen is None else [one for one in self.cells.get(cell, []) if one.version > int(seen)]
        if operation == "put" and ttl != 0:
            end = None if ttl is None else min(self.log_time + ttl, 2**63 - 1)
            left.append(Value(offset, max(timestamp, 0), value, end))
        if len(left) > 32 or sum(len(one.payload) for one in left) > self.max_value:
            raise No("too-many-siblings")
        self._forget(cell)
        self.groups.pop((key, ""), None)
        if left:
            self.cells[cell] = left
            self.changed[cell] = self.groups[key, ""] = offset

    def _forget(self, *cells):
        for cell in cells:
            self.cells.pop(cell, None)
            self.changed.pop(cell, None)
