"""Verdicts: the words of nodes and audits on snapshots, which outlive the processes that found them.

    <topic>/<epoch>/snapshots/_VERDICTS/<snapshot>/<judge>.json    all partitions of one judge, replaced whole

    {"snapshot", "judge", "parts": {partition: {"word", "digest", "entries", "cut", "how", "root"}}, "checksum"}

    word    agree | consistent | refuse       consistent: equal, but the root is one that nobody has proved
    how     pin | refold | audit              where the judge's digest is from
    root    "" | snapshot                     what the judge's fold began with: offset 0, or a snapshot

An agreement is worth what its root is worth, because a digest by difference begins with the root's. So a snapshot is

    proved      an audit agrees; or a judge agrees whose root is offset 0, the table's own beginning, or proved itself
    refused     an audit refuses; or, while no audit has settled it, any judge whose own root is not refused
    unproved    neither
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import orjson

from logstore.model.errors import SnapshotRefused

if TYPE_CHECKING:  # commands that only show these words do not wait for what reads storage
    from logstore.snapshot.manifest import Manifest
    from logstore.snapshot.storage import Storage

AGREE, CONSISTENT, REFUSE = "agree", "consistent", "refuse"
PROVED: Final = "proved"
UNPROVED: Final = "unproved"
REFUSED: Final = "refused"
PIN, REFOLD, AUDIT = "pin", "refold", "audit"
FROM_LOG = ""  # the root of a fold that began at offset 0
AUDITOR = "_audit"  # the judge whose word settles what nodes say; no node's name begins with "_"

_FOLDER = "_VERDICTS"
_WORST = {REFUSED: 0, UNPROVED: 1, PROVED: 2}

ProofWord = Literal["proved", "unproved", "refused"]


class Verdict(NamedTuple):
    """One judge's word on one partition of a snapshot."""

    word: str
    digest: str  # the judge's own, at the cut: 32 hex digits
    entries: int
    cut: int
    how: str
    root: str


class Proof(NamedTuple):
    """The standing of a snapshot, and the sentence that shows every side of it."""

    word: ProofWord
    why: str


Judged = dict[str, dict[int, Verdict]]  # judge -> partition -> its word


class Verdicts:
    """The verdicts on the snapshots of one table, each file read once. Every method raises StorageUnreachable."""

    def __init__(
        self, storage: "Storage", root: str, origin: str | None = None, listed: Iterable[str] | None = None
    ) -> None:
        """`root`: the folder of the snapshots. `origin`: what a restored table begins with, proved by definition.

        `listed`: paths of the files in `root`, where they are known, so that no folder is asked for.
        """
        self._storage, self._folder, self._origin = storage, f"{root}/{_FOLDER}", origin
        self._listed = None if listed is None else _by_snapshot(listed)
        self._known: dict[str, Judged] = {}

    def say(self, snapshot: str, judge: str, parts: Mapping[int, Verdict]) -> None:
        """Set a judge's words on these partitions, beside those it has on others.

        Requires: nobody else writes this judge's words on other partitions at this moment.
        """
        earlier = self._read(snapshot, judge) or {}
        body = {
            "snapshot": snapshot,
            "judge": judge,
            "parts": {str(p): verdict._asdict() for p, verdict in sorted({**earlier, **parts}.items())},
        }
        document = orjson.dumps({**body, "checksum": _checksum(body)})
        self._storage.replace(f"{self._folder}/{snapshot}/{judge}.json", document)
        self._known.pop(snapshot, None)

    def of(self, snapshot: str) -> Judged:
        """Verdicts on a snapshot. A file that cannot be read counts as a refusal: one may have stood in it."""
        if snapshot not in self._known:
            names = self._files(snapshot)
            judges = [name.removesuffix(".json") for name in names if name.endswith(".json")]
            found = {judge: self._read(snapshot, judge) for judge in judges}
            self._known[snapshot] = {judge: _Damaged() if said is None else said for judge, said in found.items()}
        return self._known[snapshot]

    def proof(self, snapshot: str, partition: int) -> Proof:
        """The standing of one partition of a snapshot."""
        return self._proof(snapshot, partition, frozenset())

    def whole(self, snapshot: str, partitions: Iterable[int]) -> Proof:
        """The standing of a snapshot: that of its worst partition."""
        found = [self.proof(snapshot, partition) for partition in partitions]
        return min(found, key=lambda proof: _WORST[proof.word], default=Proof(UNPROVED, "it has no partitions"))

    def lacking(self, manifest: "Manifest") -> list[int]:
        """The partitions of a snapshot that are not proved."""
        return [p for p in sorted(manifest.parts) if self.proof(manifest.name, p).word != PROVED]

    def check(self, snapshot: str, partitions: Iterable[int], table: str, what: str) -> None:
        """Check that a snapshot may be used; `what` is what is done with it. Raises SnapshotRefused."""
        for partition in partitions:
            proof = self.proof(snapshot, partition)
            if proof.word == REFUSED:
                raise SnapshotRefused(
                    f"snapshot {snapshot} of {table} is refused, so it is not {what}: {proof.why}; `logstore batch "
                    "audit "
                    f"{table} --explain` settles who is wrong, `logstore batch rebuild {table}` makes a new one"
                )

    def forget_others(self, remaining: Iterable[str]) -> None:
        """Remove the verdicts on snapshots that are gone, but for roots that a verdict on a kept one names."""
        stays = set(remaining)
        for name in list(stays):
            stays |= {v.root for said in self.of(name).values() for v in said.values() if v.root}
        for name in self._storage.list(self._folder) if self._listed is None else self._listed:
            if name not in stays:
                self._storage.remove_tree(f"{self._folder}/{name}")

    def _files(self, snapshot: str) -> list[str]:
        if self._listed is not None:
            return self._listed.get(snapshot, [])
        return self._storage.list(f"{self._folder}/{snapshot}")

    def _proof(self, snapshot: str, partition: int, asked: frozenset[str]) -> Proof:
        """`asked`: the snapshots whose standing rests on this answer; none of them can prove itself."""
        said = {judge: parts[partition] for judge, parts in self.of(snapshot).items() if partition in parts}
        settled = said.get(AUDITOR)
        if settled is not None:
            return Proof(PROVED if settled.word == AGREE else REFUSED, _sides(partition, said))
        asked |= {snapshot}
        for verdict in said.values():
            if verdict.word == REFUSE and self._root_proof(verdict, partition, asked) != REFUSED:
                return Proof(REFUSED, _sides(partition, said))
        if snapshot == self._origin:
            return Proof(PROVED, "the table began with it")
        for verdict in said.values():
            if verdict.word != REFUSE and self._root_proof(verdict, partition, asked) == PROVED:
                return Proof(PROVED, _sides(partition, said))
        return Proof(
            UNPROVED, _sides(partition, said) if said else f"nobody has compared partition {partition} of it yet"
        )

    def _root_proof(self, verdict: Verdict, partition: int, asked: frozenset[str]) -> ProofWord:
        if verdict.root == FROM_LOG:
            return PROVED
        if verdict.root in asked:
            return UNPROVED
        if verdict.root != self._origin and not self.of(
            verdict.root
        ):  # it is gone; the word was written when it was there
            return PROVED if verdict.word == AGREE else UNPROVED
        return self._proof(verdict.root, partition, asked).word

    def _read(self, snapshot: str, judge: str) -> dict[int, Verdict] | None:
        """A judge's words; None: its file is damaged."""
        try:
            body: dict[str, Any] = orjson.loads(self._storage.read(f"{self._folder}/{snapshot}/{judge}.json"))
            if body.pop("checksum") != _checksum(body) or (body["snapshot"], body["judge"]) != (snapshot, judge):
                return None
            return {int(partition): Verdict(**fields) for partition, fields in body["parts"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _by_snapshot(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        folder, _, rest = path.partition("/")
        snapshot, _, name = rest.partition("/")
        if folder == _FOLDER:
            found.setdefault(snapshot, []).append(name)
    return found


class _Damaged(dict[int, Verdict]):
    """The words of a file that cannot be read: it refuses every partition."""

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: int) -> Verdict:
        return Verdict(REFUSE, "?", 0, 0, "a verdict that cannot be read", FROM_LOG)

    def values(self) -> Any:
        return ()


def _sides(partition: int, said: Mapping[str, Verdict]) -> str:
    words = [_side(judge, verdict) for judge, verdict in sorted(said.items())]
    return f"partition {partition}: {'; '.join(words)}"


def _side(judge: str, verdict: Verdict) -> str:
    who = "an audit" if judge == AUDITOR else f"node {judge}"
    word = {AGREE: "agrees", CONSISTENT: f"is consistent with {verdict.root}, on which it stands", REFUSE: "refuses it"}
    found = f"digest {verdict.digest} of {verdict.entries:,} entries, {verdict.how}"
    return f"{who} {word.get(verdict.word, verdict.word)} ({found})"


def _checksum(body: Mapping[str, Any]) -> str:
    from xxhash import xxh3_128_hexdigest  # noqa: PLC0415 - who only shows the words does without

    return xxh3_128_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
