"""Records of a history in lists, the outcomes of each of which are asked for at once."""

from collections.abc import Iterable, Iterator

from logstore.model.history.judged import JudgedRecord
from logstore.model.history.logged import LoggedRecord

MOST_ASKED = 256  # of one request
_HELD_BYTES = 8 << 20

Judged = tuple[LoggedRecord, JudgedRecord]


def is_asked(judged: JudgedRecord) -> bool:
    """True when only who has folded the log can tell what became of a record."""
    return judged.outcome == "undecided" and judged.reason is None


def asked_together(
    records: Iterable[Judged], limit: int | None = None, held_bytes: int = _HELD_BYTES
) -> Iterator[list[Judged]]:
    """The records in their order. Those that nobody is asked about come at once, each for itself.

    Of others one comes first, for whoever wants the first alone, and then ever more: none is read that lies beyond
    `limit`, of which that is known.
    """
    held, asked, size, most, seen = list[Judged](), 0, 0, 1, 0
    for one in records:
        held.append(one)
        asked, size, seen = asked + is_asked(one[1]), size + one[0].held_bytes, seen + 1
        if not asked or asked >= most or size >= held_bytes or seen == limit:
            most = min(most * 2, MOST_ASKED) if asked else most
            yield held
            held, asked, size = [], 0, 0
    if held:
        yield held
