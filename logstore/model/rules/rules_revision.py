"""RulesRevision: a wide table's column families, as they are in force over a stretch of each partition's log.

    revision 0   from the first record on
    revision r   in each partition from the control record `rules` on that names it

A revision is named by the offset in `logstore.tables` of the definition that began it, so that no two of them share a
name. The record's value is a msgpack map, {"revision": r, "families": {name: {"versions": 3, "ttl_ms": 60000}}}.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgpack

MAX_REVISIONS = 64  # of a table: each is in its definition, with an offset for every partition
_MAX_RECORD_BYTES = 1 << 20  # what is longer is no such record, and nobody builds objects of it

Families = dict[str, dict[str, Any]]  # name -> its rules that are not the default ones


@dataclass(frozen=True, slots=True)
class RulesRevision:
    """Column families of one revision, and the control record of each partition from which on they are in force."""

    revision: int  # -1: not written yet, it will be the definition's own
    families: Families
    offsets: tuple[int | None, ...] = ()  # by partition; None: nobody has noted one yet. Revision 0 has none
    since: tuple[int, ...] = ()  # while one is missing: offsets below which none of its records lies, by partition

    @property
    def is_complete(self) -> bool:
        """True when every partition is known to hold its record."""
        return None not in self.offsets

    def payload(self) -> dict[str, Any]:
        """The content of its control records."""
        return {"revision": self.revision, "families": self.families}

    def at(self, offsets: Mapping[int, int]) -> "RulesRevision":
        """The revision with these offsets noted, by partition; those that were known stay."""
        noted = tuple(offsets.get(p) if at is None else at for p, at in enumerate(self.offsets))
        return replace(self, offsets=noted, since=self.since if None in noted else ())

    def without(self, partition: int, first: int, last: int) -> "RulesRevision":
        """The revision after the records `first` to `last` of a partition were given up: its own is missing, then."""
        at = self.offsets[partition] if self.offsets else None
        if at is None or not first <= at <= last:
            return self
        offsets = tuple(None if p == partition else one for p, one in enumerate(self.offsets))
        since = self.since or tuple(one or 0 for one in self.offsets)
        return replace(self, offsets=offsets, since=tuple(first if p == partition else s for p, s in enumerate(since)))

    def document(self) -> dict[str, Any]:
        """JSON form in a definition."""
        found = {
            "revision": self.revision, "families": self.families, "offsets": list(self.offsets),
            "since": list(self.since),
        }  # fmt: skip
        return {name: value for name, value in found.items() if value not in ([], -1)}

    @classmethod
    def read(cls, found: dict[str, Any], own: int) -> "RulesRevision":
        """Read `document`; `own`: the offset of the definition that holds it. Raises TypeError."""
        named = {"revision": own, **found}
        return cls(**{**named, "offsets": tuple(named.get("offsets", ())), "since": tuple(named.get("since", ()))})


class RulesRecord(NamedTuple):
    """Content of a `rules` record. `families` None: it names the revision alone."""

    revision: int
    families: Families | None


def read_record(value: bytes | None) -> RulesRecord | None:
    """The content of a `rules` record; None when it is none, on every engine alike."""
    if value is None or len(value) > _MAX_RECORD_BYTES:
        return None
    try:
        found = msgpack.unpackb(value)
    except (ValueError, msgpack.UnpackException):
        return None
    revision = found.get("revision") if isinstance(found, dict) else None
    families = found.get("families") if isinstance(found, dict) else None
    if type(revision) is not int or revision < 1 or not (families is None or isinstance(families, dict)):
        return None
    return RulesRecord(revision, families)


def settled(revisions: tuple[RulesRevision, ...]) -> Families:
    """Column families of the newest revision that is in force in every partition."""
    return next(one.families for one in reversed(revisions) if one.is_complete)


def families_at(revisions: tuple[RulesRevision, ...], revision: int) -> Families:
    """Column families of a revision. Requires: it is one of these."""
    return next(one.families for one in revisions if one.revision == revision)


def joined(ours: tuple[RulesRevision, ...], theirs: tuple[RulesRevision, ...]) -> tuple[RulesRevision, ...]:
    """Revisions of two definitions of one table, in order; of one that both have, the one that knows more offsets."""
    found = {one.revision: one for one in theirs}
    for one in ours:
        other = found.get(one.revision)
        known = {p: at for p, at in enumerate(other.offsets) if at is not None} if other else {}
        found[one.revision] = one.at(known) if known else one
    return tuple(found[revision] for revision in sorted(found))
