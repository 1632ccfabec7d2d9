"""Table: the definition of a named set of rows, kept as JSON in the log `logstore.tables`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from logstore.model.errors import BadDefinition, Corrupted, Unsupported
from logstore.model.key import MAX_KEY_BYTES, MAX_MAX_VALUE_BYTES
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.partitioning.splits import check_splits, from_text, to_text
from logstore.model.rules.rules_revision import RulesRevision
from logstore.model.safe_path import one_step

TABLES_TOPIC = "logstore.tables"
SLOTS_TOPIC = "logstore.slots"
NODES_TOPIC = "logstore.nodes"
INTERNAL = "logstore."

DEFAULT_PARTITIONS = 4
DEFAULT_MAX_VALUE_BYTES = 1_000_000
DEFAULT_DEDUP_WINDOW_MS = 24 * 3_600 * 1_000
DEFAULT_DEDUP_RECORDS = 4_000_000
MAX_DEDUP_WINDOW_MS = 366 * 24 * 3_600 * 1_000
MAX_ROW_BYTES = 4 << 20  # of a wide row: it is written and read whole, and a page of rows holds at most twice as much
MAX_VERSIONS = 10_000  # that a cell keeps
MAX_FAMILY_TTL_MS = 100 * 366 * 24 * 3_600 * 1_000
MAX_DEDUP_RECORDS = 1_000_000_000
RECORD_OVERHEAD_BYTES = MAX_KEY_BYTES + 16 * 1024  # key, headers and framing beside the value
COMPRESSIONS = ("none", "lz4", "zstd")
SNAPSHOT_SETTINGS = frozenset({"compression", "block_bytes", "keep_snapshots", "merge_share"})  # of how they are made
_FORMAT = 1
_LATER = {  # written only where they differ, so that the record of a definition that does without them never changes
    "compression": "lz4", "block_bytes": 16_384, "keep_snapshots": 3, "merge_share": 0.5,
    "schedule": None, "base": None, "origin": None,
    "losses": {},
    "conditional": False, "expiring": False,
    "wide": False, "families": {}, "siblings": False, "multi_row": False,
    "dedup_window_ms": DEFAULT_DEDUP_WINDOW_MS, "dedup_records": DEFAULT_DEDUP_RECORDS,
    "splits": (), "rules": (),
}  # fmt: skip
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_FAMILY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")  # Kafka's own rule
_EPOCH = re.compile(r"[0-9a-f]{32}")
_MAX_OFFSET = (1 << 63) - 1

PartitionKey = tuple[str, int]  # (table or topic name, partition)


@dataclass(frozen=True, slots=True)
class Table:
    """A definition of a table.

    `epoch` is its topic's id; a table whose topic is gone has `dropped` set and keeps its epochs.
    """

    name: str
    topic: str
    epoch: str  # Kafka topic id, 32 lower-case hex digits
    partitions: int
    max_value_bytes: int = (
        DEFAULT_MAX_VALUE_BYTES  # fixed at creation: another limit would change the fold of old records
    )
    adopted: bool = False  # the topic is the user's: never deleted, never given control records without leave
    allow_control_records: bool = True
    description: str = ""
    skips: dict[int, list[tuple[int, int]]] = field(
        default_factory=dict
    )  # partition -> offsets [a, b] stepped over, by `table repair`
    compression: str = "lz4"  # of SSTable blocks
    block_bytes: int = 16_384  # of an SSTable block: smaller reads points quicker, larger compresses better
    keep_snapshots: int = 3  # the newest ones that garbage collection leaves
    merge_share: float = 0.5  # deltas of a snapshot that are larger than this share of their base are merged with it
    schedule: dict[str, int | None] | None = (
        None  # {"every_mutations", "every_minutes"}: compact when either is reached
    )
    base: dict[str, str] | None = (
        None  # {"snapshot"}: what the `base` record at offset 0 stands for, in a table that was restored
    )
    origin: dict[str, str] | None = (
        None  # {"table", "epoch", "position"} it was restored from, or {"replaced_by"}: epoch of a promoted one
    )
    losses: dict[int, list[tuple[int, int]]] = field(
        default_factory=dict
    )  # partition -> [offset, leader epoch] where the log went on after losses of its end that `table repair` accepted
    conditional: bool = False  # takes conditions, ids, increments and appends, and remembers what became of them
    expiring: bool = False  # rows, cells and siblings may carry a TTL
    dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS  # log time for which ids and outcomes are remembered
    dedup_records: int = DEFAULT_DEDUP_RECORDS  # and how many of a partition at most, the newest
    wide: bool = False  # rows of many cells, in column families
    families: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # of a wide table: name -> its rules that are not the default ones; those in force in every partition
    siblings: bool = False  # puts that did not see each other stay side by side (`conflicts=siblings`)
    multi_row: bool = False  # an edit may name several rows of its partition
    splits: tuple[bytes, ...] = ()  # of an ordered table: the keys at which its second and later partitions begin
    rules: tuple[RulesRevision, ...] = ()  # of a wide table whose families were altered: as created, then each change
    former_epochs: tuple[str, ...] = ()  # of earlier topics of this name: their tokens are answered with epoch-changed
    dropped: bool = False
    revision: int = -1  # offset of this definition in logstore.tables; -1 = not written yet

    @property
    def base_snapshot(self) -> str | None:
        """The snapshot that a restored table began with; None: it began with an empty log."""
        return self.base["snapshot"] if self.base else None

    @property
    def partitioning(self) -> Partitioning:
        """The rule by which its rows are placed in its partitions."""
        return Partitioning(self.partitions, self.splits)

    @property
    def revisions(self) -> tuple[RulesRevision, ...]:
        """The revisions of its column families, the one as created first."""
        return self.rules or (RulesRevision(0, self.families),)

    def with_skip(self, partition: int, first: int, last: int) -> "Table":
        """The definition after `table repair`: offsets first..last (both included) of `partition` are stepped over."""
        ranges = sorted([*self.skips.get(partition, []), (first, last)])
        return replace(self, skips={**self.skips, partition: ranges}, rules=self._rules_without(partition, first, last))

    def with_loss(self, partition: int, starts: list[tuple[int, int]]) -> "Table":
        """The definition after `table repair --accept-loss`: the log of `partition` goes on at each (offset, epoch)."""
        merged = sorted({*self.losses.get(partition, []), *starts})
        rules = self._rules_without(partition, min(at for at, _ in starts), _MAX_OFFSET) if starts else self.rules
        return replace(self, losses={**self.losses, partition: merged}, rules=rules)

    def _rules_without(self, partition: int, first: int, last: int) -> tuple[RulesRevision, ...]:
        """Revisions whose record may be among these is to be appended again, if it is the newest: by the next alter."""
        return (*self.rules[:-1], *(one.without(partition, first, last) for one in self.rules[-1:]))

    def is_void(self, partition: int, next_offset: int, leader_epoch: int) -> bool:
        """True when what stands there holds records that were lost, and the loss was accepted."""
        return any(next_offset > at and leader_epoch < epoch for at, epoch in self.losses.get(partition, ()))

    def to_json(self) -> bytes:
        """The definition's record value, JSON."""
        fields = asdict(self)
        del fields["revision"]
        for name, default in _LATER.items():
            if fields[name] == default:
                del fields[name]
        fields["skips"] = {str(partition): ranges for partition, ranges in self.skips.items()}
        if self.losses:
            fields["losses"] = {str(partition): starts for partition, starts in self.losses.items()}
        if self.splits:
            fields["splits"] = to_text(self.splits)
        if self.rules:
            fields["rules"] = [one.document() for one in self.rules]
        return orjson.dumps({"format": _FORMAT, **fields}, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, raw: bytes, revision: int = -1, key: bytes | None = None) -> "Table":
        """Read a definition; `key`: of its record, which is the table's name.

        Raises Corrupted when it is damaged, Unsupported when a later build wrote it.
        """
        try:
            found: dict[str, Any] = orjson.loads(raw)
            _known(found)
            del found["format"]
            found["skips"] = {int(p): [(a, b) for a, b in ranges] for p, ranges in found["skips"].items()}
            found["losses"] = {int(p): [(a, b) for a, b in starts] for p, starts in found.get("losses", {}).items()}
            found["splits"] = from_text(found.get("splits", ()))
            found["rules"] = tuple(RulesRevision.read(one, revision) for one in found.get("rules", ()))
            found["former_epochs"] = tuple(found["former_epochs"])
            return _sound(cls(**found, revision=revision), key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupted(
                f"the record at offset {revision} of {TABLES_TOPIC} is not a table definition: {error}"
            ) from error


def _known(found: dict[str, Any]) -> None:
    """Raise Unsupported for a definition with fields that this build does not know."""
    later = sorted(found.keys() - {"format"} - {one.name for one in fields(Table)})
    if found["format"] != _FORMAT or later:
        what = f"format {found['format']!r:.20}" if found["format"] != _FORMAT else f"the fields {later!s:.200}"
        raise Unsupported(f"its definition was written by a later build ({what}); upgrade this one first")


def _sound(table: Table, key: bytes | None) -> Table:
    """Return `table`; raises ValueError or TypeError when its fields cannot be those of a table with that key."""
    _sound_names(table)
    if key is not None and table.name.encode() != key:
        raise ValueError(f"it is that of table {table.name!r}, its key is {key[:100]!r}")
    flags = (table.adopted, table.allow_control_records, table.conditional, table.expiring, table.dropped)
    for flag in (*flags, *_kinds(table)):
        if not isinstance(flag, bool):
            raise TypeError(f"{flag!r} is neither true nor false")
    if not all(map(_is_whole, (table.partitions, table.max_value_bytes, table.block_bytes, table.keep_snapshots))):
        raise TypeError("one of its numbers is none")
    check_limits(table.partitions, table.max_value_bytes)
    if type(table.merge_share) not in (int, float):
        raise TypeError(f"merge_share is {table.merge_share!r:.100}")
    check_snapshots(table)
    check_rows(table)
    for more, kind in ((table.schedule, (int, type(None))), (table.base, (str,)), (table.origin, (str,))):
        if more is not None and not (isinstance(more, dict) and all(type(value) in kind for value in more.values())):
            raise TypeError(f"{more!r:.100} is no object of its kind")
    if table.base is not None:
        one_step(table.base["snapshot"])
    for partition, (first, last) in ((p, skip) for p, ranges in table.skips.items() for skip in ranges):
        if not (_is_whole(first) and _is_whole(last) and 0 <= first <= last <= _MAX_OFFSET):
            raise ValueError(f"{first!r}..{last!r} is no range of offsets")
        if not 0 <= partition < table.partitions:
            raise ValueError(f"it skips offsets of partition {partition}, of {table.partitions}")
    _sound_losses(table)
    return table


def _sound_losses(table: Table) -> None:
    """Raise ValueError for losses that no partition of the table can have."""
    for partition, (offset, epoch) in ((p, start) for p, starts in table.losses.items() for start in starts):
        if not (_is_whole(offset) and _is_whole(epoch) and 0 <= offset <= _MAX_OFFSET):
            raise ValueError(f"{offset!r}, {epoch!r} is no offset and leader epoch")
        if not 0 <= partition < table.partitions:
            raise ValueError(f"it accepts a loss in partition {partition}, of {table.partitions}")


def _sound_names(table: Table) -> None:
    """Names become those of folders and topics: what a command would refuse is refused here too."""
    for text in (table.name, table.topic, table.epoch, table.description, *table.former_epochs):
        if not isinstance(text, str):
            raise TypeError(f"{text!r:.100} is not a text")
    check_name(table.name)
    if not _TOPIC.fullmatch(table.topic) or table.topic.startswith(INTERNAL):
        raise ValueError(f"{table.topic!r:.100} is no topic of a table")
    for epoch in (table.epoch, *table.former_epochs):
        if not _EPOCH.fullmatch(epoch):
            raise ValueError(f"{epoch!r:.100} is no topic id")


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def check_name(name: str) -> str:
    """Return `name`; raises BadDefinition when it cannot name a table (and its topic)."""
    if not _NAME.fullmatch(name):
        raise BadDefinition(
            f"not a table name: {name[:120]!r}; use 1 to 100 of a-z 0-9 . _ - and begin with a letter or digit"
        )
    if name.startswith(INTERNAL):
        raise BadDefinition(f"names that begin with {INTERNAL!r} are the store's own")
    return name


def check_limits(partitions: int, max_value_bytes: int) -> None:
    """Raise BadDefinition when a table cannot have these limits."""
    _check_within("a table has 1 to 1,024 partitions", partitions, 1, 1024)
    _check_within(f"max_value_bytes is 1 to {MAX_MAX_VALUE_BYTES:,}", max_value_bytes, 1, MAX_MAX_VALUE_BYTES)


def partition_count(partitions: int | None, splits: Sequence[bytes]) -> int:
    """Partitions of a new table: as many as were asked for, or as its split points make, or the default."""
    if partitions is None:
        return len(splits) + 1 if splits else DEFAULT_PARTITIONS
    return partitions


def check_snapshots(table: Table) -> None:
    """Raise BadDefinition when a table's snapshots cannot be made as it says."""
    if table.compression not in COMPRESSIONS:
        raise BadDefinition(f"compression is one of {', '.join(COMPRESSIONS)}, not {table.compression!r}")
    _check_within("block_bytes is 1,024 to 1,048,576", table.block_bytes, 1_024, 1 << 20)
    _check_within("keep_snapshots is 1 to 1,000", table.keep_snapshots, 1, 1_000)
    share = "merge_share is 0 (every compaction rewrites the base) to 10"
    _check_within(share, table.merge_share, 0, 10, whole=False)


def check_rows(table: Table) -> None:
    """Raise BadDefinition when a table's rows cannot be folded or placed as it says."""
    check_dedup(table)
    check_model(table)
    check_partitioning(table)


def check_dedup(table: Table) -> None:
    """Raise BadDefinition when outcomes cannot be remembered for as long as a table says."""
    _check_within("the dedup window is 1 ms to 366 days", table.dedup_window_ms, 1, MAX_DEDUP_WINDOW_MS)
    _check_within(f"dedup_records is 1 to {MAX_DEDUP_RECORDS:,} a partition", table.dedup_records, 1, MAX_DEDUP_RECORDS)
    lasts = (table.dedup_window_ms, table.dedup_records)
    if table.expiring and not table.conditional:
        raise BadDefinition("a table whose rows expire is conditional: what a TTL ends is decided record by record")
    if not table.conditional and lasts != (DEFAULT_DEDUP_WINDOW_MS, DEFAULT_DEDUP_RECORDS):
        raise BadDefinition("a dedup window is for conditional tables: a plain one remembers no outcomes")


_GOES_WITHOUT_SAYING = (("versions", 1), ("ttl_ms", None))


def families_of(given: Mapping[str, Mapping[str, Any]] | Iterable[str]) -> dict[str, dict[str, Any]]:
    """Column families as a definition holds them, of names with their rules or names alone. Raises BadDefinition."""
    if isinstance(given, str | bytes):
        raise BadDefinition(f"families is a list of names, or names with their rules, not {given!r:.100}")
    named = dict(given) if isinstance(given, Mapping) else {name: {} for name in given}
    if not all(isinstance(rules, Mapping) for rules in named.values()):
        raise BadDefinition(f"the rules of a column family are such as {{'versions': 3}}, not {named!r:.200}")
    return {
        name: {k: said for k, said in rules.items() if (k, said) not in _GOES_WITHOUT_SAYING}
        for name, rules in named.items()
    }


def check_model(table: Table) -> None:
    """Raise BadDefinition when rows cannot be what a table says of them."""
    if any(_kinds(table)) and not table.conditional:
        raise BadDefinition("a table of wide rows or siblings is conditional: its rows build on what is there")
    if table.wide and table.max_value_bytes > MAX_ROW_BYTES:
        raise BadDefinition(f"max_value_bytes of a wide table is at most {MAX_ROW_BYTES:,}: what a whole row may have")
    if table.wide and table.siblings:
        raise BadDefinition("siblings are for rows of one value: a wide table keeps none")
    if (table.families or table.multi_row) and not table.wide:
        raise BadDefinition("column families and edits of several rows are for wide tables")
    for name, rules in table.families.items():
        _check_family(name, rules)
    if has_ttl(table.families) and not table.expiring:
        raise BadDefinition("a column family with a TTL is for expiring tables: make it with --expiring, expiring=True")
    _check_rules(table)


def _check_rules(table: Table) -> None:
    """Raise BadDefinition for revisions that a table with such families cannot have."""
    names = [one.revision for one in table.rules]
    if table.rules and (not table.wide or names[0] != 0 or table.rules[0].offsets):
        raise BadDefinition("revisions of column families are for wide tables, and begin with the one as created")
    if names != sorted(set(names)) or not all(map(_is_whole, names)):
        raise BadDefinition(f"the revisions of its column families do not rise: {names!r:.100}")
    for one in table.rules:
        check_model(replace(table, families=one.families, rules=()))
        known = [*(at for at in one.offsets if at is not None), *one.since]
        if not all(_is_whole(at) and 0 <= at <= _MAX_OFFSET for at in known):
            raise BadDefinition(f"{known!r:.100} are no offsets of control records")
        counts = {len(one.offsets), len(one.since or one.offsets)} if one.revision else set[int]()
        if counts - {table.partitions} or bool(one.since) == one.is_complete:
            raise BadDefinition(f"revision {one.revision} of its column families has no place in each partition")
    if table.rules and table.families not in [one.families for one in table.rules]:
        raise BadDefinition("its column families are those of none of its revisions")


def has_ttl(families: Mapping[str, Mapping[str, Any]]) -> bool:
    """True when cells of some column family end by themselves."""
    return any(rules.get("ttl_ms") is not None for rules in families.values())


def _check_family(name: str, rules: dict[str, Any]) -> None:
    if not isinstance(name, str) or not _FAMILY.fullmatch(name):
        raise BadDefinition(f"not a column family: {name!r:.100}; use 1 to 64 of A-Z a-z 0-9 . _ -")
    if not isinstance(rules, dict) or rules.keys() - {"versions", "ttl_ms"}:
        raise BadDefinition(f"column family {name}: it has versions=N and ttl_ms=N, not {rules!r:.100}")
    what = f"column family {name}: versions is 1 to {MAX_VERSIONS:,}"
    _check_within(what, rules.get("versions", 1), 1, MAX_VERSIONS)
    if "ttl_ms" in rules:
        _check_within(f"column family {name}: its TTL is 1 ms to 100 years", rules["ttl_ms"], 1, MAX_FAMILY_TTL_MS)


def _kinds(table: Table) -> tuple[bool, bool, bool]:
    return table.wide, table.siblings, table.multi_row


def check_partitioning(table: Table) -> None:
    """Raise BadDefinition when rows cannot be placed as a table says."""
    check_splits(table.splits, table.partitions)
    if table.splits and table.adopted:
        raise BadDefinition(
            "a topic that others write to is placed by their partitioner, so it makes no ordered table; create a table "
            "with a topic of its own, and copy the rows"
        )


def _check_within(rule: str, given: object, least: int, most: int, *, whole: bool = True) -> None:
    """Raise BadDefinition that tells the rule for what is no number, or none between these."""
    is_number = isinstance(given, int if whole else int | float) and not isinstance(given, bool)
    if not is_number:
        raise BadDefinition(f"{rule}, not {given!r}")
    if not least <= given <= most:  # type: ignore[operator]  # a number, see above
        raise BadDefinition(f"{rule}, not {given:,}")
