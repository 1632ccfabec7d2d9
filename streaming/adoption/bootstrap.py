"""Bootstrap: the state with which a view that is not there yet begins.

The lane asks and never waits; looking and fetching are done on threads here.

the table has a snapshot               fetched and checked; the view begins at its cut: the newest that is proved; where
                                       none is, the log from offset 0, else the newest unproved one (`beginning`)
it has none, and was not restored      the log, from offset 0
the storage does not answer            the log, if it still begins at 0; else the partition waits and says so
the snapshot is damaged                the next one that the log still reaches, or the log from 0
a node or an audit refused it          as if it were not there
nothing of that is there               the partition is stopped and says so, until something of it is
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from logstore.model.errors import Corrupted, LogUnreachable, NoSuchSnapshot, NotYet, StorageUnreachable
from logstore.model.table import PartitionKey
from logstore.snapshot.manifest import Manifest
from logstore.snapshot.verdicts import PROVED, Proof
from logstore.view.feed.adoption_records import LocalProof
from logstore.view.layout import Quarantine
from streaming.adoption.beginning import beginnings
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.lane.disk.opened_view import Bootstrap, BootstrapPending
from streaming.lane.target import Target

log = logging.getLogger(__name__)

QUICK_S = 1.0  # looking takes milliseconds; what takes longer is a fetch
# from a disk here, where most of the time is waiting for fsync; `SnapshotFetcher` lets one at a time fetch from afar
FETCHES = 4


class Bootstrapper:
    """`log_start` tells where the log of a partition begins, for (topic, partition); it raises LogUnreachable."""

    def __init__(
        self, fetcher: SnapshotFetcher, progress: AdoptionProgress, log_start: Callable[[str, int], int]
    ) -> None:
        self._fetcher, self._progress, self._log_start = fetcher, progress, log_start
        self._look, self._fetch = ThreadPoolExecutor(1, "look"), ThreadPoolExecutor(FETCHES, "fetch")
        self._pending: dict[PartitionKey, tuple[Future[Bootstrap], float]] = {}
        self._lock = threading.Lock()

    def __call__(self, target: Target) -> Bootstrap:
        """The bootstrap; raises Asking until it is known, NotYet while there can be none."""
        now_s = time.monotonic()
        with self._lock:
            future, since_s = self._pending.get(target.key) or (self._ask(target), now_s)
            self._pending[target.key] = future, since_s
            if not future.done():
                raise BootstrapPending(
                    f"{target.table.name}/{target.partition}: its snapshot is looked for",
                    0.005 if now_s - since_s < QUICK_S else 0.2,
                )
            del self._pending[target.key]
        return future.result()

    def _ask(self, target: Target) -> Future[Bootstrap]:
        """Looked up on one thread, fetched on another, so that a table without a snapshot waits for no fetch."""
        answer: Future[Bootstrap] = Future()
        self._look.submit(_into, answer, lambda: self._begin(target, answer))
        return answer

    def close(self) -> None:
        """Begin no further bootstrap."""
        self._look.shutdown(wait=False, cancel_futures=True)
        self._fetch.shutdown(wait=False, cancel_futures=True)

    def _begin(self, target: Target, answer: "Future[Bootstrap]") -> Bootstrap | None:
        if self._fetcher.url is None:
            raise BootstrapPending(self._fetcher.unknown, 0.1)
        try:
            pointer = self._fetcher.current(target.table)
        except (StorageUnreachable, Corrupted) as error:
            return self._without(target, error)
        if pointer is None and target.table.base is None:
            return self._without(target, None)
        self._fetch.submit(_into, answer, lambda: self._best(target))
        return None

    def _without(self, target: Target, error: Exception | None) -> Bootstrap:
        """The log from 0, where that is the whole truth.

        Raises NotYet while the storage does not answer, else NoSuchSnapshot.
        """
        table, why = target.table, f": {error}" if error else ""
        if table.base is not None:
            name = table.base["snapshot"]
            missing = (
                f"table {table.name} was restored from snapshot {name}, which {self._fetcher.url} does not show{why}"
            )
        elif error is not None and self._log_start(table.topic, target.partition) > 0:
            missing = (
                f"the log of {table.name}/{target.partition} does not begin at 0 any more, and its snapshot is "
                f"missing{why}"
            )
        else:
            return Bootstrap()
        raise NotYet(missing) if isinstance(error, StorageUnreachable) else NoSuchSnapshot(missing)

    def _best(self, target: Target) -> Bootstrap:
        """Bootstrap over the best snapshot that is whole and that the log goes on from."""
        failure: Corrupted | NoSuchSnapshot | None = None
        for beginning in beginnings(self._fetcher, target.table, target.partition):
            try:
                if beginning.snapshot is None:
                    if self._starts(target) > 0:
                        continue
                    break
                manifest = self._fetcher.manifest(target.table, beginning.snapshot)
                if manifest.parts[target.partition].cut < self._starts(target, proved=beginning.proof.word == PROVED):
                    continue
                _check_held(target, manifest)
                return self._over(target, manifest, beginning.proof)
            except (Corrupted, NoSuchSnapshot) as error:
                log.warning("%s/%d: %s", target.table.name, target.partition, error)
                self._progress.show(target, candidate=beginning.snapshot, state="refused", reason=str(error))
                failure = error
        return self._without(target, failure)

    def _starts(self, target: Target, *, proved: bool = False) -> int:
        """Start of the partition's log.

        Over what is proved a node may serve although Kafka is away, and finds out later whether the log goes on there.
        """
        try:
            return self._log_start(target.table.topic, target.partition)
        except LogUnreachable:
            if proved:
                return 0
            raise

    def _over(self, target: Target, manifest: Manifest, proof: Proof) -> Bootstrap:
        local = self._fetcher.bring(target, manifest)
        part = manifest.parts[target.partition]
        reason = "begun from this snapshot"
        if proof.word != PROVED:
            reason += (
                f", which is unproved: {proof.why}; `logstore batch audit {target.table.name}` proves or refuses it"
            )
            log.warning("%s/%d: %s", target.table.name, target.partition, reason)
        self._progress.show(
            target, base=manifest.name, cut=part.cut, candidate=None, state="adopted", reason=reason, proof=proof.word,
            local=(LocalProof(manifest.name, proof.word),),
        )  # fmt: skip
        return Bootstrap(
            local.base,
            Quarantine(dict(part.quarantine_counts), [(int(at), reason) for at, reason in part.quarantine_records]),
            local.decisions,
        )


def _check_held(target: Target, manifest: Manifest) -> None:
    """Check a snapshot; raises Corrupted when it is one of records that the log lost, when the loss was accepted."""
    table, part = target.table, manifest.parts[target.partition]
    if table.is_void(target.partition, part.cut, part.leader_epoch):
        raise Corrupted(
            f"snapshot {manifest.name} holds records that the log of {table.name}/{target.partition} lost, and the "
            "loss was accepted"
        )


def _into(answer: "Future[Bootstrap]", find: Callable[[], Bootstrap | None]) -> None:
    """Settle the answer with what is found, or why it is not; None: somebody else settles it."""
    try:
        found = find()
    except BaseException as error:  # it is the asker's
        answer.set_exception(error)
    else:
        if found is not None:
            answer.set_result(found)
