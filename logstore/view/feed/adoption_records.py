"""Adoptions in the feed: how far a partition has come with adopting a snapshot, and what its digests are."""

from dataclasses import dataclass
from typing import NamedTuple

from logstore.view.feed.fields import each, number, read_array, read_map, text
from logstore.view.feed.key import FeedKey

NONE, ADOPTED, WAITING, FETCHING, BUILDING, REFUSED = (  # states of an adoption
    "none", "adopted", "waiting", "fetching", "building", "refused",
)  # fmt: skip


class DigestRecord(NamedTuple):
    """Digest of a partition's live entries at a cut, 32 hex digits, and how many entries those are."""

    cut: int = -1
    digest: str = ""
    entries: int = -1

    @classmethod
    def decode(cls, raw: object) -> "DigestRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, cut=number, digest=text, entries=number)


class LocalProof(NamedTuple):
    """Standing of a local snapshot's partition: proved, unproved, refused."""

    snapshot: str = ""
    proof: str = "unproved"

    @classmethod
    def decode(cls, raw: object) -> "LocalProof":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_array(cls, raw, snapshot=text, proof=text)


class AdoptionRecord(NamedTuple):
    """State of a partition's adoption of snapshots, as `/v1/snapshots` shows it."""

    base: str | None = None  # the snapshot that the view stands on
    cut: int | None = None  # its cut
    candidate: str | None = None  # the snapshot that is to be adopted
    state: str = NONE
    reason: str = ""
    fetched_bytes: int = 0
    total_bytes: int = 0
    digests: tuple[DigestRecord, ...] = ()  # this node's own, newest last
    proof: str = "unproved"  # standing of what the view's fold began with: proved, unproved, refused
    local: tuple[LocalProof, ...] = ()  # of the snapshots that are here; answers for the past stand on proved ones only
    work: str = ""  # what is under way: behind (the lane applies), digest, refold, fetch, build
    worked: int = 0  # how far it has come, in its own units: offsets, entries or bytes; it grows as long as it goes on

    def encode(self) -> object:
        """The record as a msgpack value."""
        return self._asdict()

    @classmethod
    def decode(cls, raw: object) -> "AdoptionRecord":
        """Record of a msgpack value; raises UnreadableRecord."""
        return read_map(
            cls, raw, base=text, cut=number, candidate=text, state=text, reason=text, fetched_bytes=number,
            total_bytes=number, digests=each(DigestRecord.decode), proof=text,
            local=each(LocalProof.decode), work=text, worked=number,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdoptionKey(FeedKey[AdoptionRecord]):
    """Key of one partition's adoption of snapshots."""

    word, record = "snapshot", AdoptionRecord
    table: str
    epoch: str
    partition: int
