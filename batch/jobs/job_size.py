"""Job size: records and bytes that a job is going to read, by which its engine is chosen."""

from collections.abc import Iterable, Mapping

from batch.engine.choice import JobSize
from logstore.snapshot.archive.index import ArchiveIndex
from logstore.snapshot.archive.segment import Segment
from logstore.snapshot.manifest import FileFacts, Manifest
from logstore.snapshot.work import RestoreOrder


def of_ranges(since: Mapping[int, int], upto: Mapping[int, int]) -> JobSize:
    """Size of a stretch of every partition; its bytes are Kafka's secret."""
    return JobSize(sum(max(0, end - since.get(partition, 0)) for partition, end in upto.items()))


def of_segments(segments: Iterable[Segment]) -> JobSize:
    """Size of archived segments."""
    those = list(segments)
    return JobSize(sum(one.records for one in those), sum(one.size_bytes for one in those))


def of_tail(index: ArchiveIndex, base: Manifest | None, upto: Mapping[int, int]) -> JobSize:
    """Size of a base and of what follows it, of which the archive knows the bytes of what it has. Raises Corrupted."""
    since = {partition: part.cut for partition, part in base.parts.items()} if base else {}
    archived = JobSize(0, index.size_bytes(since))
    return _sum(of_ranges(since, upto), _of_files(base.files if base else ()), archived)


def of_history(orders: Iterable[RestoreOrder]) -> JobSize:
    """Size of the parts of a past state."""
    sizes = [
        _sum(JobSize(one.stretch.end - one.stretch.start), _of_files(one.base_files), _bytes_of(one.stretch.segments))
        for one in orders
    ]
    return _sum(*sizes)


def _of_files(files: Iterable[FileFacts]) -> JobSize:
    those = list(files)
    return JobSize(sum(one.entries for one in those), sum(one.size_bytes for one in those))


def _bytes_of(segments: Iterable[Segment]) -> JobSize:
    return JobSize(0, sum(one.size_bytes for one in segments))


def _sum(*sizes: JobSize) -> JobSize:
    return JobSize(sum(one.records for one in sizes), sum(one.size_bytes for one in sizes))
