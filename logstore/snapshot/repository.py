"""Repository: the snapshots of one table, its current one, and those that must be kept."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import orjson

from logstore.model.errors import Conflict, Corrupted, JobRunning, NoSuchSnapshot, UsageError
from logstore.snapshot.lease import holder, lease, live
from logstore.snapshot.manifest import FileFacts, Manifest
from logstore.snapshot.storage import Storage
from logstore.snapshot.uses import USE_S, in_use, used
from logstore.snapshot.verdicts import PROVED, Verdicts
from logstore.snapshot.verify import problems

_MANIFEST = "_MANIFEST.json"
_YOUNG_MS = 3_600_000  # what a job that still runs may have written
_POINTERS = 100  # former places of the pointer that stay, for who looks what happened


class Pointer(NamedTuple):
    """Pointer to the current snapshot: since when, and which ones it goes back to."""

    number: int
    name: str
    moved_ms: int
    why: str
    line: tuple[str, ...] = ()
    """Oldest first, `name` last; those that were rolled back, refused, or never became current, are not in it."""
    former: tuple[str, ...] = ()
    """The lines before a rebuild began this one, oldest first: begun from only where they are proved."""


class Collected(NamedTuple):
    """Snapshots and bytes that garbage collection removed."""

    snapshots: list[str]
    files: int
    size_bytes: int


class Repository:
    """The snapshots of one epoch of one table. Every method raises StorageUnreachable."""

    def __init__(self, storage: Storage, topic: str, epoch: str) -> None:
        """Name the folder; nothing is read before the first call."""
        self.storage, self.root = storage, f"{topic}/{epoch}/snapshots"

    def names(self) -> list[str]:
        """The published snapshots, by name. Their order in time is the pointer's (`line`): clocks differ."""
        return self._published(self._folders())

    def line(self) -> list[str]:
        """The published snapshots that count, oldest first, the current one last: none that was rolled back."""
        now = self.current()
        return [] if now is None else self._published(now.line)

    def candidates(self, origin: str | None = None) -> list[str]:
        """The published snapshots that a view may begin from, newest first: the line, then what a rebuild replaced.

        `origin`: the snapshot that a restored table began with.
        """
        now = self.current()
        wanted = [] if now is None else [*reversed(now.line), *reversed(now.former)]
        if origin is not None and origin not in wanted:
            wanted.append(origin)
        return self._published(wanted)

    def verdicts(self, origin: str | None = None) -> Verdicts:
        """The words on these snapshots, as they are now. `origin`: the snapshot that a restored table began with."""
        return Verdicts(self.storage, self.root, origin)

    def manifest(self, name: str) -> Manifest:
        """The manifest of a snapshot. Raises NoSuchSnapshot, Corrupted."""
        try:
            found = Manifest.from_json(self.storage.read(self.file_path(f"{name}/{_MANIFEST}")))
        except FileNotFoundError as error:
            raise NoSuchSnapshot(
                f"there is no snapshot {name!r}; `logstore snapshot list` shows what there is"
            ) from error
        except Corrupted as error:
            raise Corrupted(
                f"snapshot {name}: {error}; `logstore snapshot list` shows the others, `logstore batch rebuild` makes "
                "one"
            ) from error
        if found.name != name:
            raise Corrupted(f"the manifest of snapshot {name} is that of {found.name}: files were swapped")
        return found

    def current(self, known: Pointer | None = None) -> Pointer | None:
        """The pointer; None before the first `move`. `known`: one that need not be read again if it is still there."""
        numbers = self.storage.list(self.file_path("_CURRENT"))
        if not numbers:
            return None
        if known is not None and numbers[-1] == _pointer_file(known.number):
            return known
        try:
            fields = orjson.loads(self.storage.read(self.file_path(f"_CURRENT/{numbers[-1]}")))
            number = int(numbers[-1].removesuffix(".json"))
            line, former = fields.get("line", (fields["name"],)), fields.get("former", ())
            return Pointer(number, fields["name"], fields["moved_ms"], fields["why"], tuple(line), tuple(former))
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupted(
                f"the pointer {numbers[-1]} is damaged: {error}; remove the file to go back to the one before"
            ) from error

    def move(
        self, expected: Pointer | None, name: str, why: str, *, upon: str | None = None, anew: bool = False
    ) -> Pointer:
        """Make `name` current if `expected` still is.

        `upon`: the snapshot of the line that `name` continues; what came after it leaves the line. By default that is
        the current one. `anew`: `name` continues none, and begins a line.

        Raises Conflict otherwise. Of many at once exactly one succeeds.
        """
        number = 1 if expected is None else expected.number + 1
        line, former = _line(expected, name, upon, anew=anew)
        before, former = self._published(line), self._published(former)
        moved = Pointer(number, name, _now_ms(), why, (*before, name), tuple(former))
        if self.current(expected) != expected:
            raise Conflict("somebody else moved the pointer first; look at `logstore snapshot list`, then try again")
        try:
            self.storage.create(
                self.file_path(f"_CURRENT/{_pointer_file(moved.number)}"), orjson.dumps(moved._asdict())
            )
        except FileExistsError as error:
            raise Conflict(
                "somebody else moved the pointer first; look at `logstore snapshot list`, then try again"
            ) from error
        return moved

    def file_path(self, relative: str) -> str:
        """A path below `snapshots`, as the storage knows it."""
        return f"{self.root}/{relative}"

    def publish(self, manifest: Manifest, *, looked_at: bool = False) -> None:
        """Make a snapshot visible. `looked_at`: the tasks of its job have seen that its files are there.

        Raises Corrupted when a file is missing or has another size, Conflict when the name is taken.
        """
        if not looked_at:
            self.storage.looks(self._check_size, manifest.files)
        try:
            self.storage.create(self.file_path(f"{manifest.name}/{_MANIFEST}"), manifest.to_json())
        except FileExistsError as error:
            raise Conflict(f"snapshot {manifest.name} is published already") from error

    def _check_size(self, file: FileFacts) -> None:
        try:
            size = self.storage.size(self.file_path(file.path))
        except FileNotFoundError as error:
            raise Corrupted(f"{file.path} is missing; run the job again") from error
        if size != file.size_bytes:
            raise Corrupted(f"{file.path} has {size:,} bytes, not {file.size_bytes:,}; run the job again")

    def pin(self, name: str, why: str) -> None:
        """Keep a snapshot until `unpin`; raises NoSuchSnapshot."""
        self.manifest(name)
        self.storage.replace(self.file_path(f"_PINS/{name}.json"), orjson.dumps({"why": why, "pinned_ms": _now_ms()}))

    def unpin(self, name: str) -> None:
        """Let go of a pinned snapshot; nothing happens when it was not pinned."""
        self.storage.remove(self.file_path(f"_PINS/{name}.json"))

    def pins(self) -> list[str]:
        """Names of the pinned snapshots."""
        return [name.removesuffix(".json") for name in self.storage.list(self.file_path("_PINS"))]

    def rollback(self, to: str | None) -> Pointer:
        """Move the pointer to `to`, or to the one that it stood on before; raises NoSuchSnapshot, Conflict."""
        now = self.current()
        to = to or self.before()
        older = self.manifest(to)
        if now is None or to in now.line:
            return self.move(now, to, "rollback")
        reached = [name for name in now.line if self._is_below(name, older)]
        return self.move(now, to, "rollback", upon=reached[-1] if reached else None, anew=not reached)

    def before(self) -> str:
        """The snapshot before the current one; raises NoSuchSnapshot."""
        line = self.line()
        if len(line) < 2:
            raise NoSuchSnapshot(
                "there is no snapshot before the current one; `logstore snapshot list` shows what there is"
            )
        return line[-2]

    def drop(self, name: str) -> None:
        """Take a snapshot out of sight, a damaged one too; its files go with the next `gc`.

        Raises NoSuchSnapshot, UsageError for the current one and for a pinned one.
        """
        now = self.current()
        if now is not None and now.name == name:
            raise UsageError(
                f"snapshot {name} is the current one; `logstore snapshot rollback` or a new one comes first"
            )
        if name in self.pins():
            raise UsageError(f"snapshot {name} is pinned; `logstore snapshot unpin` comes first")
        if name not in self.names():
            raise NoSuchSnapshot(f"there is no snapshot {name!r}; `logstore snapshot list` shows what there is")
        self.storage.remove(self.file_path(f"{name}/{_MANIFEST}"))

    def in_use(self, node: str, names: Sequence[str], for_s: float = USE_S) -> AbstractContextManager[None]:
        """Keep snapshots from collection while a node fetches them; `for_s`: how long it counts once the node died."""
        return in_use(self.storage, self.file_path(f"_USES/{node}.json"), names, for_s)

    def reading(self, what: str, job: str, origin: str | None, for_s: float) -> AbstractContextManager[None]:
        """Keep every snapshot that counts now for a job that reads history and lets go of the lease meanwhile.

        Requires: the job holds the lease at this moment. While it is marked, nothing of log and archive goes either
        (`check_unread`). `origin`: as for `candidates`.
        """
        return in_use(self.storage, self.file_path(f"_READS/{what}-{job}.json"), self.candidates(origin), for_s)

    def check_unread(self, for_s: float) -> None:
        """Raise JobRunning while a job reads history; its mark counts `for_s` once it died."""
        for who, _ in used(self.storage, self.file_path("_READS")):
            raise JobRunning(f"{who} reads the table's history; wait for it, or {for_s:g} s after it died")

    def lease(self, job: str, what: str, ttl_s: float = 120) -> AbstractContextManager[None]:
        """Hold the table for one job; raises JobRunning while another holds it."""
        return lease(self.storage, self.file_path("_JOB"), job, what, ttl_s)

    def holds(self, job: str) -> bool:
        """True while no other job has taken the table since `job` did."""
        return holder(self.storage, self.file_path("_JOB")) == job

    def verify(self, name: str, on_bytes: Callable[[int], None] | None = None) -> list[str]:
        """Read a snapshot back; every problem names file, partition and, for an entry, the key."""
        return problems(self.storage, self.root, self.manifest(name), on_bytes or (lambda _: None))

    def gc(
        self,
        keep: int,
        *,
        dry_run: bool = False,
        extra_keep: Iterable[str] = (),
        pointer: Pointer | None = None,
        known: Iterable[Manifest] = (),
    ) -> Collected:
        """Remove what nothing needs. Raises Corrupted, and removes nothing, when a kept manifest cannot be read.

        Everything is looked at once, and the job and the pointer first: a job that publishes meanwhile keeps what is
        its own. `pointer` and `known` are what the caller has read already: neither ever changes.
        """
        job, now = live(self.storage, self.file_path("_JOB")), self.current(pointer)
        empty = {name: list[str]() for name in self._folders()}  # or with half a file of a writer that was killed
        tree = self.storage.tree(self.root)
        folders = empty | _by_folder(tree)
        published = [name for name, files in folders.items() if _MANIFEST in files]
        extra = set(extra_keep)
        verdicts = Verdicts(self.storage, self.root, listed=tree)
        retained = self._retained(keep, now, published, extra, verdicts) | extra
        young = f"{_now_ms() - _YOUNG_MS:014d}"
        counting = set(now.line + now.former) if now else set()
        open_ones = [name for name in folders if name not in published or name not in counting]
        spared = {
            name for name in open_ones if name >= young or (job is not None and (not job or name.endswith(f"-{job}")))
        }
        manifests = {one.name: one for one in known}
        needed = {
            file.path
            for name in (retained | spared) & set(published)
            for file in (manifests.get(name) or self.manifest(name)).files
        }
        gone = [name for name in folders if name not in retained | spared]
        files = [f"{name}/{file}" for name in gone for file in sorted(folders[name]) if f"{name}/{file}" not in needed]
        size = sum(tree[path] for path in files)
        if not dry_run:
            self._remove([path for path in files if path.endswith(_MANIFEST)])
            self._remove([path for path in files if not path.endswith(_MANIFEST)])
            for name in gone:
                self.storage.tidy(self.file_path(name))
            self._remove(sorted(path for path in tree if path.startswith("_CURRENT/"))[:-_POINTERS])
            verdicts.forget_others(set(folders) - set(gone))
        return Collected([name for name in gone if name in published], len(files), size)

    def _remove(self, paths: Sequence[str]) -> None:
        self.storage.remove_all([self.file_path(path) for path in paths])

    def _retained(
        self, keep: int, now: Pointer | None, published: Sequence[str], origins: set[str], verdicts: Verdicts
    ) -> set[str]:
        """Snapshots that are needed: the newest of this line and the former, pinned, fetched, and a proved one."""
        line = published if now is None else [name for name in now.former + now.line if name in published]
        retained = {
            *(line[-keep:] if now is not None else line),
            *self.pins(),
            *([now.name] if now is not None else []),
        }
        for folder in ("_USES", "_READS"):
            retained |= {name for _, names in used(self.storage, self.file_path(folder)) for name in names}
        if not origins & retained:
            retained |= self._newest_proved(now, published, retained, verdicts)
        return retained

    def _newest_proved(
        self, now: Pointer | None, published: Sequence[str], retained: set[str], verdicts: Verdicts
    ) -> set[str]:
        """The newest snapshot that is proved: while those that are kept are not, an empty node begins there."""
        for name in reversed(now.former + now.line if now else ()):
            if name in published and verdicts.of(name):
                parts = self._partitions(name, retained)
                if parts and verdicts.whole(name, parts).word == PROVED:
                    return {name}
        return set()

    def _partitions(self, name: str, retained: set[str]) -> list[int]:
        """The partitions of a snapshot; none where its manifest is damaged and nobody needs it."""
        try:
            return sorted(self.manifest(name).parts)
        except Corrupted:
            if name in retained:
                raise
            return []

    def _is_below(self, name: str, newer: Manifest) -> bool:
        """True when a snapshot ends nowhere behind another one."""
        try:
            parts = self.manifest(name).parts
        except Corrupted:
            return False
        return all(part.cut <= newer.parts[partition].cut for partition, part in parts.items())

    def _published(self, names: Iterable[str]) -> list[str]:
        """Names among these that are published, in their order."""
        wanted = list(names)
        files = self.storage.looks(lambda name: self.storage.list(self.file_path(name)), wanted)
        return [name for name, found in zip(wanted, files, strict=True) if _MANIFEST in found]

    def _folders(self) -> list[str]:
        return [name for name in self.storage.list(self.root) if not name.startswith("_")]


def _pointer_file(number: int) -> str:
    return f"{number:010d}.json"


def _by_folder(tree: Iterable[str]) -> dict[str, list[str]]:
    """Snapshots and the names of their files, from the paths of all files."""
    found: dict[str, list[str]] = {}
    for path in sorted(tree):
        folder, _, name = path.partition("/")
        if name and not folder.startswith("_"):
            found.setdefault(folder, []).append(name)
    return found


def _line(expected: Pointer | None, name: str, upon: str | None, *, anew: bool) -> tuple[Sequence[str], Sequence[str]]:
    """The line before `name`, and the lines before that one."""
    if expected is None:
        return (), ()
    line, former = expected.line, expected.former
    if name in line:  # back
        return line[: line.index(name)], former
    if anew:
        return (), tuple(dict.fromkeys(one for one in former + line if one != name))
    end = upon or expected.name
    return (line[: line.index(end) + 1] if end in line else (end,)), tuple(
        one for one in former if one not in (name, end)
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
