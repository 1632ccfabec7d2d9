"""Recorder: files the digest of a pinned view, once the digester has computed it."""

from collections.abc import Callable

from logstore.process import logs
from logstore.snapshot.verdicts import PIN
from streaming.adoption.progress import AdoptionProgress
from streaming.digest import digest_file
from streaming.digest.client import PendingDigest
from streaming.digest.digest_file import FiledDigest
from streaming.lane.cuts import Pin
from streaming.lane.partition import FollowedPartition

log = logs.get(__name__)

Recorder = Callable[[FollowedPartition, Pin, PendingDigest], None]


def recorder(progress: AdoptionProgress) -> Recorder:
    """Function that files a digest once it has been computed."""

    def record(followed: FollowedPartition, pin: Pin, pending: PendingDigest) -> None:
        cut = pin.cut
        if pending.outcome is None or pending.pinned_at != pin.position:
            followed.undigested[cut] = pending.failure or f"the view was pinned at {pending.pinned_at}"
            log.warning(
                "there is no digest at a cut", table=followed.target.table.name, partition=followed.target.partition,
                cut=cut, reason=followed.undigested[cut],
            )  # fmt: skip
            return
        digest, entries = pending.outcome
        try:
            newest = digest_file.add(followed.directory, FiledDigest(cut, digest, entries, pin.root, PIN))
        except OSError as error:
            followed.undigested[cut] = str(error)
            return
        progress.digests(followed.target, newest)

    return record
