"""Local snapshots: the files of one partition's snapshots on this node.

<data>/snapshots/<table>/<epoch>/<partition>/
    <name>/            a RocksDB directory, opened by readers
    <name>~2/          the same once more, after the first was found damaged
    <name>.files/      the files as they were fetched (the directory's are links to them); `decisions.sst`: the outcomes
                       and ids of a conditional table, which a view takes in when it begins here
        base.json      their description: written last, so a folder without it is not whole
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from logstore.model.errors import Corrupted
from logstore.model.safe_path import below
from logstore.process.durable import write_whole
from logstore.snapshot.manifest import FileFacts, Manifest, levels_of
from logstore.snapshot.repository import Repository
from logstore.snapshot.sst import SstReader, checksum, prepare
from logstore.view.feed.view_records import LocalSnapshotRecord
from logstore.view.layout import Base

_DECISIONS = "decisions.sst"
AT_MOST = 2  # local snapshots: the base, and the one before it for reads as of a past position
_COPY = re.compile(r"(?P<name>[^~.]+)(~(?P<copy>\d+))?")


class LocalSnapshot(NamedTuple):
    """A snapshot of one partition on this node.

    `path` is the RocksDB directory, `checksums` of its files by name (xxh3-128).
    """

    base: Base
    path: Path
    checksums: dict[str, str]

    @property
    def decisions(self) -> Path | None:
        """The file of outcomes and ids; None: the snapshot has none."""
        return (
            below(self.path.parent, f"{self.base.snapshot}.files", _DECISIONS) if _DECISIONS in self.checksums else None
        )

    def record(self) -> LocalSnapshotRecord:
        """Feed record of the snapshot."""
        return record_of(self.base, self.path)


def record_of(base: Base, path: Path | None) -> LocalSnapshotRecord:
    """Feed record of a base; `path` None: it is not here yet."""
    return LocalSnapshotRecord(None if path is None else str(path), base.snapshot, base.cut, base.log_time_ms)


def base_of(manifest: Manifest, partition: int) -> Base:
    """The base that a snapshot is for one partition of a view that begins with it."""
    part = manifest.parts[partition]
    return Base(
        manifest.name,
        part.cut,
        part.log_time_ms,
        part.digest,
        part.entries,
        manifest.name,
        part.leader_epoch,
        part.last,
        part.counter,
        part.rows_digest,
        part.rules,
    )


def find(directory: Path, name: str) -> LocalSnapshot | None:
    """The newest whole copy of a snapshot here."""
    files = below(directory, f"{name}.files")
    paths = [path for path in _copies(directory, name) if path.is_dir()]
    try:
        known = orjson.loads((files / "base.json").read_bytes())
        return LocalSnapshot(Base(**known["base"]), paths[-1], known["checksums"]) if paths else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def others(directory: Path, base: Base) -> list[LocalSnapshot]:
    """Older snapshots that are here beside `base`, oldest first."""
    names = {path.name.removesuffix(".files") for path in directory.glob("*.files")}
    found = [local for local in (find(directory, name) for name in names) if local is not None]
    return sorted((local for local in found if local.base.cut < base.cut), key=lambda local: local.base.cut)


def fetch(
    repository: Repository, manifest: Manifest, partition: int, directory: Path, *,
    bytes_per_s: int | None, on_bytes: Callable[[int], None], again: bool = False,
) -> LocalSnapshot:  # fmt: skip
    """Bring a snapshot's files of one partition here, check them against the manifest and make them readable.

    Resumes what was begun. A file that another snapshot here has too is linked; `again`: after damage, and is read
    whole first.

    Raises Corrupted when a file is not what the manifest says, StorageUnreachable, OSError.
    """
    files = below(directory, f"{manifest.name}.files")
    files.mkdir(parents=True, exist_ok=True)
    here, levels = _by_checksum(directory), list[list[Path]]()
    wanted: list[tuple[Path, FileFacts]] = []
    for level, members in enumerate(levels_of(manifest.files_of(partition))):
        levels.append([below(files, f"{level}-{number:05d}.sst") for number in range(len(members))])
        wanted += zip(levels[level], members, strict=True)
    if (decisions := manifest.decisions_of(partition)) is not None:
        wanted.append((below(files, _DECISIONS), decisions))
    for local, facts in wanted:
        if _is_whole(local, facts) or _is_linked(here.get(facts.checksum), local, facts, again=again):
            on_bytes(facts.size_bytes)
        else:
            _fetch_file(repository, manifest, facts, local, bytes_per_s, on_bytes)
    base, checksums = base_of(manifest, partition), {local.name: facts.checksum for local, facts in wanted}
    copies = _copies(directory, manifest.name)
    path = below(directory, f"{manifest.name}~{_copy(copies[-1]) + 1}" if copies else manifest.name)
    prepare(path, levels)
    write_whole(files / "base.json", orjson.dumps({"base": base._asdict(), "checksums": checksums}))
    return LocalSnapshot(base, path, checksums)


def _fetch_file(
    repository: Repository, manifest: Manifest, facts: FileFacts, local: Path, bytes_per_s: int | None,
    on_bytes: Callable[[int], None],
) -> None:  # fmt: skip
    local.unlink(missing_ok=True)
    try:
        repository.storage.fetch(repository.file_path(facts.path), local, bytes_per_s=bytes_per_s, on_bytes=on_bytes)
    except FileNotFoundError as error:
        raise Corrupted(f"{facts.path} of snapshot {manifest.name} is missing") from error
    if not _is_whole(local, facts):
        local.unlink()
        raise Corrupted(f"{facts.path} of snapshot {manifest.name} is damaged: its bytes are not those of the manifest")


def damaged(local: LocalSnapshot) -> str | None:
    """Damage of a local snapshot: a file that is missing or has other bytes; None when it is sound."""
    files = below(local.path.parent, f"{local.base.snapshot}.files")
    for name, expected in local.checksums.items():
        file = below(files, name)
        if not file.exists():
            return f"{file} is missing"
        if checksum(file) != expected:
            return f"{file} is damaged: its checksum is not the manifest's"
    try:
        SstReader.open(local.path, cache_bytes=1 << 20).close()
    except Corrupted as error:
        return str(error)
    return None


def has_sound_decisions(local: LocalSnapshot) -> bool:
    """True where the outcomes and ids of a snapshot, if it has some, are here as they were fetched.

    Rows are checked block by block as they are read; these are taken in whole.
    """
    decided = local.decisions
    return decided is None or (decided.exists() and checksum(decided) == local.checksums[_DECISIONS])


def remove_others(directory: Path, keep: Sequence[Path]) -> None:
    """Remove every local snapshot but those whose RocksDB directories are named.

    Requires: nobody is told of the others any more.
    """
    names = {_match(path.name)["name"] for path in keep}
    for child in directory.iterdir() if directory.exists() else ():
        if child not in keep and not (child.name.endswith(".files") and child.name.removesuffix(".files") in names):
            shutil.rmtree(child, ignore_errors=True)


def _by_checksum(directory: Path) -> dict[str, Path]:
    """Files of the snapshots that are here already: one that is in the next snapshot too is not fetched again."""
    names = [path.name.removesuffix(".files") for path in directory.glob("*.files")]
    return {
        wanted: below(directory, f"{local.base.snapshot}.files", name)
        for local in (find(directory, name) for name in names)
        if local is not None
        for name, wanted in local.checksums.items()
    }


def _is_whole(local: Path, facts: FileFacts) -> bool:
    return local.exists() and local.stat().st_size == facts.size_bytes and checksum(local) == facts.checksum


def _is_linked(here: Path | None, local: Path, facts: FileFacts, *, again: bool) -> bool:
    """True when the file is here now by a link to one of another snapshot, which was checked when it came."""
    if here is None or here == local or not here.exists():
        return False
    if here.stat().st_size != facts.size_bytes or (again and not _is_whole(here, facts)):
        return False
    local.unlink(missing_ok=True)
    try:
        os.link(here, local)
    except OSError:  # a filesystem without links: it is fetched
        return False
    return True


def _copies(directory: Path, name: str) -> list[Path]:
    """RocksDB directories of one snapshot, oldest first."""
    found = [
        path for path in directory.glob(f"{name}*") if (match := _COPY.fullmatch(path.name)) and match["name"] == name
    ]
    return sorted(found, key=_copy)


def _copy(path: Path) -> int:
    return int(_match(path.name)["copy"] or 1)


def _match(name: str) -> re.Match[str]:
    match = _COPY.fullmatch(name)
    assert match, "directories of snapshots are named here"
    return match
