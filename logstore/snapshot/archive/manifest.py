"""Archive manifest: the commit of one run, or a checkpoint, which stands for all runs before it.

    run             {"format": 1, "number", "topic", "epoch", "job", "created_ms",
                     "segments": [[partition, start, end, path, records, size_bytes, checksum, last, latest_ms]...],
                     "checksum": xxh3-128 of the document without this field}
    checkpoint      {"format": 2, "number", "topic", "epoch", "job", "created_ms", "whole": true,
                     "parts": [[partition, reach, size_bytes, last]...],
                     "pages": [[name, first, last, segments, size_bytes, checksum]...],   oldest first
                     "former": [name...],
                     "checksum"}

A checkpoint has a line for every partition and one for every page, whatever the number of runs and segments. A whole
manifest of format 1, which earlier builds wrote, has all segments in itself.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import xxhash

from logstore.model.errors import Corrupted
from logstore.model.safe_path import one_step
from logstore.snapshot.archive.page import PageFacts
from logstore.snapshot.archive.segment import Segment

RUN_FORMAT, CHECKPOINT_FORMAT = 1, 2


class ArchivedPart(NamedTuple):
    """Archive of a partition: up to the offset `reach`, in files of so many bytes; `last` as in a segment."""

    reach: int
    size_bytes: int
    last: str

    def and_then(self, segment: Segment) -> "ArchivedPart":
        """The same with one more segment."""
        return ArchivedPart(segment.end, self.size_bytes + segment.size_bytes, segment.last or self.last)


NOTHING = ArchivedPart(0, 0, "")


@dataclass(frozen=True)
class Checkpoint:
    """Partitions and pages of a whole archive, as of one manifest."""

    parts: dict[int, ArchivedPart] = field(default_factory=dict)
    pages: tuple[PageFacts, ...] = ()
    former: tuple[str, ...] = ()  # names of pages that the checkpoint before had, and this one has in another


class ArchiveManifest(NamedTuple):
    """A manifest as it was read; `whole`: those before it do not count."""

    segments: list[Segment]
    whole: bool
    checkpoint: Checkpoint


def of_run(head: dict[str, Any], segments: list[Segment]) -> bytes:
    """The bytes of a run's manifest."""
    return _sealed({"format": RUN_FORMAT, **head, "segments": [list(segment) for segment in segments]})


def of_checkpoint(head: dict[str, Any], checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint."""
    parts = [[partition, *part] for partition, part in sorted(checkpoint.parts.items())]
    pages, former = [list(page) for page in checkpoint.pages], list(checkpoint.former)
    return _sealed(
        {"format": CHECKPOINT_FORMAT, **head, "whole": True, "parts": parts, "pages": pages, "former": former}
    )


def read(raw: bytes, place: tuple[str, str, int]) -> ArchiveManifest:
    """Read a manifest of this topic, epoch and number. Raises Corrupted."""
    try:
        body: dict[str, Any] = orjson.loads(raw)
        checksum = body.pop("checksum")
        if checksum != _checksum(body):
            raise Corrupted("it does not have the checksum it names: it is damaged")
        if body["format"] not in (RUN_FORMAT, CHECKPOINT_FORMAT):
            raise Corrupted(f"it is of format {body['format']}: a later build wrote it, upgrade this one")
        found = body["topic"], body["epoch"], body["number"]
        if found != place:
            raise Corrupted(f"it belongs to another topic, epoch or place: {' '.join(map(str, found))}")
        if body["format"] == RUN_FORMAT:
            segments = [Segment(*fields) for fields in body["segments"]]
            return ArchiveManifest(segments, body.get("whole") is True, Checkpoint())
        return ArchiveManifest([], whole=True, checkpoint=_checkpoint(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupted(f"it is no manifest of an archive: {error}") from error


def _checkpoint(body: dict[str, Any]) -> Checkpoint:
    pages = tuple(PageFacts(*fields) for fields in body["pages"])
    former = tuple(map(one_step, body["former"]))
    for page in pages:
        one_step(page.name)
    return Checkpoint({partition: ArchivedPart(*fields) for partition, *fields in body["parts"]}, pages, former)


def _sealed(body: dict[str, Any]) -> bytes:
    return orjson.dumps({**body, "checksum": _checksum(body)})


def _checksum(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
