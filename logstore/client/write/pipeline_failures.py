"""Failures of a pipeline: what `flush` raises of the writes since the last one."""

from collections.abc import Callable, Sequence

from logstore.client.write.pending import Shared
from logstore.model.errors import BatchFailed, BatchUnknown, LogStoreError, NotApplied, Unknown
from logstore.model.position import Position


def raise_failures(total: int, every: Sequence[Shared], on_failure: Callable[[], object] | None) -> None:
    """Raise what became of the writes that did not do as they should, and begin to count anew.

    The error itself where it is one alone; BatchUnknown, BatchFailed; NotApplied where all are in the log.
    """
    failed, unknown = sum(shared.failed for shared in every), sum(shared.unknown for shared in every)
    failures = [error for shared in every for error in shared.failures]
    late = _late(total, every)
    for shared in every:
        shared.begin_anew()
    if failed + unknown:
        if on_failure is not None:
            on_failure()
        error = failures[0] if failed + unknown == 1 else _of_several(total, failed, unknown, failures)
        if late is not None:
            error.add_note(f"besides, in the pipeline: {late}")
        raise error
    if late is not None:
        raise late


def _late(total: int, every: Sequence[Shared]) -> NotApplied | None:
    """The error of the writes that are in the log, and not known to be applied; None: there are none."""
    count, first = sum(shared.unapplied for shared in every), next((s.late for s in every if s.late is not None), None)
    if first is None or count == 1:
        return first
    return NotApplied(
        f"of {total:,} writes {count:,} are in the log and not known to be applied: {first}",
        Position().merge(shared.late_at for shared in every),
    )


def _of_several(total: int, failed: int, unknown: int, failures: Sequence[LogStoreError]) -> LogStoreError:
    if unknown:
        return BatchUnknown(
            total, failed, unknown, next((one for one in failures if isinstance(one, Unknown)), failures[0])
        )
    return BatchFailed(total, failed, failures[0])
