"""Refold: folds the log again up to a cut that this node did not pin, in a process of its own, to have its digest.

A topic that takes no control records shows nobody where a snapshot ends, and a pin can be lost with the process that
held it. The fold is the lane's own (`partition.FollowedPartition`), over the base that the view stands on; what it
builds is thrown away when its digest is known.

    <partition's folder>/proof.new/order.json     what to fold
                                   progress       how far it is: records applied, and entries of the digest
                                   digest.json    [hex, entries], or why there is none: {"failure"}
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from logstore.log.read.tail import End, FetchedBatch, Tail, Trouble
from logstore.model.errors import LogStoreError, LogUnreachable, NotYet
from logstore.model.folding.digest import Digest
from logstore.model.table import Table
from logstore.process import child
from logstore.process.progress import Patience
from logstore.snapshot.sst import SstReader
from logstore.snapshot.verdicts import REFOLD
from logstore.view.layout import Base
from logstore.view.reader import ViewReader
from streaming.digest.digest_file import FiledDigest
from streaming.digest.view_digest import digest_of
from streaming.lane.disk import local_snapshots
from streaming.lane.disk.opened_view import Bootstrap
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

STILL_S = 120.0  # without a step further: the process hangs
_SAY_S = 0.5  # between two words on how far it is
QUIET_S = 30.0
_LOOK_S = 0.1
_NICE = 10  # what is served goes first


class NotFolded(NotYet):
    """The log could not be folded up to the cut; it is tried again."""


def refold(
    bootstrap: str, followed: FollowedPartition, cut: int, stopping: threading.Event, saw: Callable[[int], None]
) -> FiledDigest:
    """The digest of a partition at `cut`, from its base and the log. Waits for it; another thread than the lane's.

    `saw` hears how far it is. Raises NotFolded that says why there is none, also when `stopping` was set, or it came no
    further for STILL_S.
    """
    place = followed.directory / "proof.new"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    base, base_dir = followed.view.base, followed.base_dir
    local = local_snapshots.find(base_dir.parent, base.snapshot) if base and base_dir else None
    order = {
        "bootstrap": bootstrap, "table": followed.target.table.to_json().decode(),
        "partition": followed.target.partition, "cut": cut,
        "base": base and base._asdict(), "base_dir": base_dir and str(base_dir),
        "decided": str(local.decisions) if local and local.decisions else None,
    }  # fmt: skip
    try:
        (place / "order.json").write_bytes(orjson.dumps(order))
        process = child.spawn(child.python("streaming.adoption.refold", str(place)))
        _wait(process, stopping, place / "progress", saw, Patience(STILL_S))
        return FiledDigest(cut, *_answer(place / "digest.json"), base.root if base else "", REFOLD)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def fold(place: Path, order: dict[str, Any]) -> Digest:
    """Fold the log up to the cut. Raises LogStoreError."""
    base, heard = Base(**order["base"]) if order["base"] else None, _ProgressFile(place / "progress")
    target = Target(Table.from_json(order["table"].encode()), order["partition"], 0)
    begun = Bootstrap(base, decided=Path(order["decided"]) if order["decided"] else None)
    followed = FollowedPartition(target, place, bootstrapper=lambda _: begun)
    followed.base_dir = Path(order["base_dir"]) if base else None  # it lies where the partition has it
    path = followed.view.path
    with closing(followed), closing(Tail(order["bootstrap"], group="logstore.proof")) as tail:
        tail.follow(target.table.topic, target.partition, followed.next_offset)
        while followed.next_offset < order["cut"]:
            at = followed.next_offset
            _step(tail, followed, order["cut"])
            heard.saw(followed.next_offset - at)
    with closing(ViewReader.open(path)) as view, view.reading() as reading:
        if base is None:
            return digest_of(reading, None, None, heard.saw)
        with closing(SstReader.open(Path(order["base_dir"]))) as base_reader:
            return digest_of(reading, base, base_reader, heard.saw)


def main(place: Path) -> None:
    """`python -m streaming.adoption.refold FOLDER`."""
    os.nice(_NICE)
    try:
        found = fold(place, orjson.loads((place / "order.json").read_bytes()))
        answer: Any = [found.hex, found.entries]
    except (LogStoreError, OSError) as error:
        answer = {"failure": str(error)}
    part = place / "digest.part"
    part.write_bytes(orjson.dumps(answer))
    part.replace(place / "digest.json")


def _step(tail: Tail, followed: FollowedPartition, cut: int) -> None:
    events = tail.take(QUIET_S)
    if not events:
        raise LogUnreachable(f"nothing came from Kafka for {QUIET_S:g} s")
    for event in events:
        fine = True
        if isinstance(event, FetchedBatch):
            records, stop = followed.upto_foreign_time(event.records, event.by_writers)
            if stop is not None and stop.offset < cut:
                raise NotFolded(stop.detail)
            fine = followed.take(records.slice(0, bisect_left(records.offsets, cut)), event.leader_epoch)
        elif isinstance(event, End):
            fine = followed.at_end(min(event.offset, cut)) and followed.next_offset >= min(event.offset, cut)
            if event.offset < cut:
                raise NotFolded(f"the log ends at {event.offset:,}, before the cut {cut:,}")
        elif isinstance(event, Trouble):
            raise NotFolded(event.detail)
        if not fine:
            raise NotFolded(followed.stop.detail if followed.stop else "the log could not be folded")


class _ProgressFile:
    """Progress of a fold, in a file for who waits for it."""

    def __init__(self, path: Path) -> None:
        self._path, self._count, self._said_s = path, 0, 0.0

    def saw(self, count: int) -> None:
        """Count on, and write it now and then. A file that is half written is read again."""
        self._count += count
        if time.monotonic() - self._said_s >= _SAY_S:
            self._said_s = time.monotonic()
            self._path.write_text(f"{self._count}\n")


def _wait(
    process: "subprocess.Popen[bytes]", stopping: threading.Event, heard: Path, saw: Callable[[int], None],
    patience: Patience,
) -> None:  # fmt: skip
    count = 0
    while process.poll() is None:
        if (now := _count(heard, count)) > count:
            count = now
            patience.saw({"refold": count})
            saw(count)
        if stopping.wait(_LOOK_S) or patience.is_over():
            process.kill()
            process.wait(10)
            raise NotFolded("the worker ends" if stopping.is_set() else f"it came no further for {STILL_S:g} s")


def _count(heard: Path, known: int) -> int:
    """Count that the fold has written; what is known, while that is not whole."""
    try:
        text = heard.read_text()
    except FileNotFoundError:  # it has only begun
        return known
    return int(text) if text.endswith("\n") else known


def _answer(path: Path) -> tuple[str, int]:
    try:
        answer = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFolded("the process that folded the log again died") from None
    if isinstance(answer, dict):
        raise NotFolded(answer["failure"])
    digest, entries = answer
    return digest, entries


if __name__ == "__main__":
    main(Path(sys.argv[1]))
