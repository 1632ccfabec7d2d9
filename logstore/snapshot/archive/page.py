"""Page: segments of many runs in one Parquet file, by columns, sorted by partition and offset.

    partition int32 | start int64 | end int64 | attempt string | records int64 | size_bytes int64 | checksum string
    | last string | latest_ms int64

A segment's path follows from the other columns, so that it costs some 50 bytes. A checkpoint names the page, its size
and its checksum, so a page that is damaged, cut, of another place or of another archive is seen before it is read.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import xxhash

from logstore.model.errors import Corrupted
from logstore.snapshot.archive.segment import Segment, attempt_of, path_of


class PageFacts(NamedTuple):
    """A page as a checkpoint names it: a file in the folder `pages`, and the partitions of its segments."""

    name: str
    first: int  # partition
    last: int  # partition
    segments: int
    size_bytes: int
    checksum: str  # xxh3-128 of the file, 32 hex digits


class SegmentPage:
    """Segments of a page that was read; they are made as they are asked for."""

    def __init__(self, root: str, columns: Any) -> None:
        """`columns`: a table of Arrow."""
        self._root, self._columns = root, columns
        self._partitions = columns.column("partition").to_numpy()

    def of(self, partition: int) -> list[Segment]:
        """The segments of a partition, by offset."""
        first, end = self._partitions.searchsorted([partition, partition + 1])
        return self._segments(self._columns.slice(first, end - first))

    def all(self) -> list[Segment]:
        """All segments, by partition and offset."""
        return self._segments(self._columns)

    def and_then(self, root: str, segments: Sequence[Segment]) -> "SegmentPage":
        """A page of these segments and more, sorted."""
        import pyarrow as pa  # noqa: PLC0415 - heavy, and most who ask the archive need no page

        both = pa.concat_tables([self._columns, _columns_of(root, segments)])
        return SegmentPage(root, both.sort_by([("partition", "ascending"), ("start", "ascending")]))

    def write(self, most: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Files of at most so many segments: their bytes, the first and last partition, and how many segments."""
        import pyarrow as pa  # noqa: PLC0415 - as above
        from pyarrow import parquet  # noqa: PLC0415 - as above

        whole = {field.name: "DELTA_BINARY_PACKED" for field in _schema() if pa.types.is_integer(field.type)}
        for begin in range(0, self._columns.num_rows, most):
            some, target = self._columns.slice(begin, most), pa.BufferOutputStream()
            parquet.write_table(
                some, target, compression="zstd", use_dictionary=False, write_statistics=False, column_encoding=whole
            )
            first, last = self._partitions[begin], self._partitions[begin + some.num_rows - 1]
            yield bytes(target.getvalue()), int(first), int(last), some.num_rows

    def _segments(self, columns: Any) -> list[Segment]:
        root, (partitions, starts, ends, attempts, *facts) = self._root, map(_values, columns.columns)
        paths = [path_of(root, *of) for of in zip(partitions, starts, ends, attempts, strict=True)]
        return [*map(Segment, partitions, starts, ends, paths, *facts)]


def empty(root: str) -> SegmentPage:
    """A page without segments."""
    return SegmentPage(root, _schema().empty_table())


def read(root: str, facts: PageFacts, raw: bytes) -> SegmentPage:
    """Read a file of `SegmentPage.write`; raises Corrupted when it is not what the checkpoint says, byte for byte."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import parquet  # noqa: PLC0415 - as above

    if len(raw) != facts.size_bytes or xxhash.xxh3_128_hexdigest(raw) != facts.checksum:
        raise Corrupted(
            f"it has {len(raw):,} bytes of {facts.size_bytes:,}, or another checksum than its checkpoint names"
        )
    try:
        columns = parquet.ParquetFile(pa.BufferReader(raw)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise Corrupted(f"it is no page of segments: {error}") from error
    if not columns.schema.equals(_schema()) or columns.num_rows != facts.segments:
        raise Corrupted(f"it has other columns, or {columns.num_rows:,} segments instead of {facts.segments:,}")
    return SegmentPage(root, columns.combine_chunks())


def _columns_of(root: str, segments: Sequence[Segment]) -> Any:
    """A table of Arrow. Raises Corrupted where a file lies elsewhere than its offsets say."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    columns = [list(values) for values in zip(*segments, strict=True)] or [[]] * len(Segment._fields)
    columns[Segment._fields.index("path")] = [attempt_of(root, segment) for segment in segments]
    return pa.table(columns, schema=_schema())


def _values(column: Any) -> list[Any]:
    """The values of a column; numbers by way of NumPy, which is ten times as quick."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    return list(column.to_numpy().tolist() if pa.types.is_integer(column.type) else column.to_pylist())


def _schema() -> Any:
    import pyarrow as pa  # noqa: PLC0415 - as above

    whole, text = pa.int64(), pa.string()
    return pa.schema([
        ("partition", pa.int32()), ("start", whole), ("end", whole), ("attempt", text), ("records", whole),
        ("size_bytes", whole), ("checksum", text), ("last", text), ("latest_ms", whole),
    ])  # fmt: skip
