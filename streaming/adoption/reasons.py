"""Reasons: why a snapshot is not adopted, or a view is in doubt, and what settles it."""

from logstore.snapshot.manifest import PartFacts
from logstore.snapshot.verdicts import PROVED, UNPROVED, Proof
from streaming.digest.digest_file import FiledDigest
from streaming.lane.partition import FollowedPartition


def no_digest(followed: FollowedPartition, cut: int) -> str:
    """Digest at a cut that this node does not have."""
    why = followed.undigested.get(cut, "it is being computed, or was lost with a restart")
    again = "if it stays so, the log is folded again up to there"
    return f"this node's digest at the cut {cut:,} is not known: {why}; {again}"


def cannot_fold(followed: FollowedPartition, name: str, cut: int, start: int, proof: Proof) -> str:
    """Snapshot that this node can neither compare nor fold up to."""
    table = followed.target.table.name
    return (
        f"this node has no digest at the cut {cut:,} of snapshot {name} and cannot fold the log again up to there: it "
        "begins "
        f"at {start:,}, what is below was deleted before this node took a snapshot over; {proof.why}; `logstore batch "
        "audit "
        f"{table}` compares the snapshot with the archive, and once it is proved this node goes on from it by itself"
    )


def refusal(followed: FollowedPartition, name: str, part: PartFacts, mine: FiledDigest, proof: Proof) -> str:
    """Snapshot that differs from this node's own fold."""
    table, partition = followed.target.table.name, followed.target.partition
    began = f" (this view began with snapshot {mine.root})" if mine.root else ""
    return (
        f"{table}/{partition} differs from snapshot {name} at cut {part.cut:,}: digest {mine.digest} of "
        f"{mine.entries:,} "
        f"entries here{began}, the snapshot has {part.digest} of {part.entries:,}; `logstore batch audit {table} "
        "--explain` "
        f"settles who is wrong and names the keys. If it is the snapshot, `logstore batch rebuild {table}` makes "
        "another; if "
        f"it is this view, `logstore view discard {table} --partition {partition}` begins it again"
        + ("; an audit agrees with the snapshot" if proof.word == PROVED else "")
    )


def others_refuse(followed: FollowedPartition, name: str, proof: Proof) -> str:
    """Snapshot that others refuse although this node agrees."""
    table = followed.target.table.name
    return (
        f"snapshot {name} agrees with this node, but others refuse it: {proof.why}; `logstore batch audit {table} "
        "--explain` "
        "settles who is wrong"
    )


def doubt(followed: FollowedPartition, proof: Proof, between: str = "") -> str:
    """Reason to doubt a view: its root is not proved; "" when it is."""
    if proof.word == PROVED:
        return ""
    table, partition = followed.target.table.name, followed.target.partition
    way = f"`logstore view discard {table} --partition {partition}` begins the view again"
    if proof.word == UNPROVED:
        way = f"`logstore batch audit {table}` proves or refuses it"
    return f"{between}the view began with snapshot {followed.root}, which is {proof.word}: {proof.why}; {way}"
