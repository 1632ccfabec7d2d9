"""Leftovers: files of the archive that no manifest names, because the attempt that wrote them was killed, or lost.

They are removed an hour after they were written. Younger ones may be about to be named: by a job that was suspended,
and lost its lease.
"""

from collections.abc import Callable, Collection

from logstore.snapshot.storage import Storage

YOUNG_S = 3_600.0
MANIFESTS, PAGES, ATTEMPTS = "manifests", "pages", "attempts"
_FOLDERS_AT_ONCE = 16


def begin(storage: Storage, root: str, job: str) -> None:
    """Leave the mark of a job that is about to write files."""
    storage.replace(f"{root}/{ATTEMPTS}/{job}", b"")


def end(storage: Storage, root: str, job: str) -> None:
    """Remove the mark of a job."""
    storage.remove(f"{root}/{ATTEMPTS}/{job}")


def killed(storage: Storage, root: str) -> list[str]:
    """The marks of jobs that were killed an hour ago or longer; what they wrote is as old, as each round marks anew."""
    return _old(storage, [f"{root}/{ATTEMPTS}/{job}" for job in storage.list(f"{root}/{ATTEMPTS}")])


def collect(storage: Storage, root: str, named: Callable[[int], Collection[str]]) -> list[str]:
    """Remove what is unnamed and old in the folder of each partition; `named`: the paths that count in it."""
    folders = [name for name in storage.list(root) if name.startswith("p") and name[1:].isdigit()]
    removed: list[str] = []
    for begin_at in range(0, len(folders), _FOLDERS_AT_ONCE):
        some = folders[begin_at : begin_at + _FOLDERS_AT_ONCE]
        lying = storage.looks(lambda folder: storage.list(f"{root}/{folder}"), some)
        for folder, names in zip(some, lying, strict=True):
            keep = named(int(folder[1:]))
            removed += _remove_old(storage, [p for n in names if (p := f"{root}/{folder}/{n}") not in keep])
    for folder in storage.list(root):
        storage.tidy(f"{root}/{folder}")
    return removed


def collect_folder(storage: Storage, folder: str, named: Collection[str]) -> list[str]:
    """Remove the old files of a folder but those of these names."""
    return _remove_old(storage, [f"{folder}/{name}" for name in storage.list(folder) if name not in named])


def _remove_old(storage: Storage, unnamed: list[str]) -> list[str]:
    old = _old(storage, unnamed)
    storage.remove_all(old)
    return old


def _old(storage: Storage, paths: list[str]) -> list[str]:
    ages = storage.looks(lambda path: _age_s(storage, path), paths)
    return [path for path, age_s in zip(paths, ages, strict=True) if age_s > YOUNG_S]


def _age_s(storage: Storage, path: str) -> float:
    """Seconds since it was written; none, of one that went meanwhile."""
    try:
        return storage.age_s(path)
    except FileNotFoundError:
        return 0.0
