"""Manifest of a snapshot: for a reader only the files it names exist. JSON, drawn in `docs/snapshot_format.md`."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import orjson
from xxhash import xxh3_128_hexdigest

from logstore.model.errors import Corrupted
from logstore.model.folding.digest import Digest
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.partitioning.splits import check_splits, from_text, to_text
from logstore.model.position import Position
from logstore.model.safe_path import one_step, relative

FORMAT, ENTRY_FORMAT, SST_FORMAT = 2, 1, 5
_READ = (1, 2)  # formats; in the first one every file is of the base
DECISIONS = "decisions"  # kind of the file that holds a partition's outcomes and ids; "": rows
_LATER = {
    "kind": "",
    "counter": 0,
    "decisions": 0,
    "rows_digest": "",
    "rules": 0,
}  # left out where a table has none of it


class FileFacts(NamedTuple):
    """An SSTable; `path` is relative to the folder `snapshots`, and may lie in the folder of an older snapshot."""

    partition: int
    path: str
    entries: int
    size_bytes: int
    first_key: bytes
    last_key: bytes
    checksum: str  # xxh3-128 of the file, 32 hex digits
    level: int = 0  # 0 is the base, 1 the oldest delta upon it
    kind: str = ""  # of what is in it: rows, or DECISIONS; its keys are then theirs


class PartFacts(NamedTuple):
    """A partition at its cut."""

    cut: int  # offset; the fold of everything below it is in the snapshot
    log_time_ms: int
    entries: int
    digest: str  # 32 hex digits, see logstore.model.folding.digest
    quarantine_counts: dict[str, int]  # by reason
    quarantine_records: list[tuple[int, str]]  # (offset, reason), the newest 1,000
    leader_epoch: int = -1  # of the last record below the cut, -1 = unknown
    last: str = ""  # its identity, `<offset>-<xxh3-128>`; empty: unknown, or there is no such record
    counter: int = 0  # outcomes that a conditional table has counted below the cut
    decisions: int = 0  # outcomes and ids in its state
    rows_digest: str = ""  # the part of `digest` that its rows make; empty: all of it
    rules: int = 0  # revision of a wide table's rules that is in force at the cut

    @property
    def rows(self) -> Digest:
        """The digest of the rows alone."""
        return Digest.from_hex(self.rows_digest or self.digest, self.entries)


@dataclass(frozen=True)
class Manifest:
    """Facts of a snapshot: all that there is to know of it."""

    name: str
    table: str
    topic: str
    epoch: str
    partitions: int
    max_value_bytes: int
    kind: str  # compact, rebuild, restore or load
    parent: str | None
    created_ms: int
    verified_ms: int
    job: str
    build: str
    parts: dict[int, PartFacts]
    files: list[FileFacts]
    splits: tuple[bytes, ...] = ()  # of an ordered table; left out where there are none
    format: int = FORMAT
    entry_format: int = ENTRY_FORMAT
    sst_format: int = SST_FORMAT

    @property
    def partitioning(self) -> Partitioning:
        """The rule by which the table's rows are placed."""
        return Partitioning(self.partitions, self.splits)

    @property
    def position(self) -> Position:
        """The cuts as a position."""
        return Position({(self.epoch, partition): part.cut for partition, part in self.parts.items()})

    def files_of(self, partition: int) -> list[FileFacts]:
        """Files of the partition's rows, the base's first, and in key order within each level."""
        rows = (file for file in self._by_partition.get(partition, ()) if not file.kind)
        return [file for level in levels_of(rows) for file in level]

    def all_files_of(self, partition: int) -> list[FileFacts]:
        """Every file of the partition: its rows', then that of its decisions."""
        decisions = self.decisions_of(partition)
        return [*self.files_of(partition), *([] if decisions is None else [decisions])]

    def decisions_of(self, partition: int) -> FileFacts | None:
        """The file of the partition's outcomes and ids; None: it has none."""
        found = (file for file in self._by_partition.get(partition, ()) if file.kind == DECISIONS)
        return next(found, None)

    @cached_property
    def _by_partition(self) -> dict[int, list[FileFacts]]:
        found: dict[int, list[FileFacts]] = {}
        for file in self.files:
            found.setdefault(file.partition, []).append(file)
        return found

    def to_json(self) -> bytes:
        """The file's bytes: sorted keys, and a checksum over all other fields."""
        known: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        known["parts"] = {str(partition): _sparse(part._asdict()) for partition, part in self.parts.items()}
        known["files"] = [
            {**_sparse(file._asdict()), "first_key": _text(file.first_key), "last_key": _text(file.last_key)}
            for file in self.files
        ]
        if self.splits:
            known["splits"] = to_text(self.splits)
        else:
            del known["splits"]
        return _dump({**known, "checksum": xxh3_128_hexdigest(_dump(known))})

    @classmethod
    def from_json(cls, raw: bytes) -> "Manifest":
        """Read `to_json`; raises Corrupted when it is damaged, or of a later format."""
        try:
            read: dict[str, Any] = orjson.loads(raw)
            if read["format"] not in _READ:
                raise Corrupted("its manifest was written by a later build; upgrade this one first")
            if read.pop("checksum") != xxh3_128_hexdigest(_dump(read)):
                raise Corrupted("its manifest is damaged: the checksum does not fit")
            read["parts"] = {int(partition): _part(part) for partition, part in read["parts"].items()}
            read["files"] = [_file(file) for file in read["files"]]
            read["splits"] = from_text(read.get("splits", ()))
            return _sound(cls(**read))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupted(f"its manifest is damaged: {error}") from error


def levels_of(files: Iterable[FileFacts]) -> list[list[FileFacts]]:
    """The files of one partition by level, the base first; in key order within a level."""
    ordered = sorted(files, key=lambda file: (file.level, file.first_key))
    return [list(level) for _, level in groupby(ordered, key=lambda file: file.level)]


def has_deltas(files: Iterable[FileFacts]) -> bool:
    """True where files lie upon a base."""
    return any(file.level for file in files)


def _sound(manifest: Manifest) -> Manifest:
    """Return it; raises Corrupted when one of its names would lead out of the folder it belongs to."""
    for name in (manifest.name, manifest.topic, manifest.epoch, manifest.parent):
        if name is not None:
            one_step(name)
    check_splits(manifest.splits, manifest.partitions)
    for file in manifest.files:
        relative(file.path)
        if file.kind not in ("", DECISIONS):
            raise Corrupted(
                f"its manifest names a file of kind {file.kind!r:.40}: a later build wrote it; upgrade first"
            )
    return manifest


def _sparse(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields but for those of conditional tables, where they say nothing: other manifests keep their bytes."""
    return {name: value for name, value in fields.items() if name not in _LATER or value != _LATER[name]}


def _part(fields: dict[str, Any]) -> PartFacts:
    records = [(offset, reason) for offset, reason in fields["quarantine_records"]]
    return PartFacts(**{**fields, "quarantine_records": records})


def _file(fields: dict[str, Any]) -> FileFacts:
    keys = {name: base64.b64decode(fields[name], validate=True) for name in ("first_key", "last_key")}
    return FileFacts(**{**fields, **keys})


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _dump(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
