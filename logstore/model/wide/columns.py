"""Columns: names of cells, as callers give them. A cell is named by its column family and a qualifier of any bytes."""

import re
from urllib.parse import unquote_to_bytes

from logstore.model.errors import UsageError
from logstore.model.key import to_bytes

MAX_FAMILY = 64
HOW = "a column is family:qualifier, or family: for all of a family"
Column = tuple[str, bytes]
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def column_of(named: object) -> Column:
    """Family and qualifier of a text "family:qualifier", or of a pair (family, qualifier). Raises UsageError."""
    if isinstance(named, tuple) and len(named) == 2:
        return check_family(named[0]), to_bytes(named[1])
    if not isinstance(named, (str, bytes)):
        raise UsageError(f"{HOW}, or a pair of the two, not {named!r:.80}")
    family, colon, qualifier = to_bytes(named).partition(b":")
    if not colon:
        raise UsageError(f"{HOW}, not {named!r:.80}")
    return check_family(family), qualifier


def unescaped_column(text: bytes) -> Column:
    """Family and qualifier of the text of a column in the read API and on the command line. Raises UsageError.

    In a qualifier `%XX` stands for a byte. A percent sign and a comma are always written so (`%25`, `%2C`), any other
    byte may be. A colon needs no escape: a family has none.
    """
    family, colon, qualifier = text.partition(b":")
    if not colon:
        raise UsageError(f"{HOW}, not {text.decode('utf-8', 'replace')!r:.80}")
    if _BAD_PERCENT.search(qualifier):
        raise UsageError(
            "in the qualifier of a column %XX stands for a byte; a percent sign is %25 and a comma %2C, not "
            f"{qualifier.decode('utf-8', 'replace')!r:.80}"
        )
    return check_family(family), unquote_to_bytes(qualifier)


def check_family(named: object) -> str:
    """The name of a family as text. Raises UsageError for what cannot be one."""
    family = named.decode("ascii", "replace") if isinstance(named, bytes) else named
    if not isinstance(family, str) or not family.isascii() or {*":,%"} & {*family} or len(family) > MAX_FAMILY:
        raise UsageError(f"a column family is named by 1 to {MAX_FAMILY} of A-Z a-z 0-9 . _ -, not {named!r:.80}")
    return family
