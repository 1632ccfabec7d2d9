"""Write level: what has a write when it is answered, as its client asks (LS-Write-Level, docs/consistency.md).

    all        all in-sync replicas
    one        the leader alone
    applied    all, and the node that serves the row has applied it

Where nothing is said it is `all`, and `applied` for what the row as it stands may refuse.
"""

from collections.abc import Mapping

from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request, text

ALL, ONE, APPLIED = "all", "one", "applied"
WRITE_LEVELS = (ALL, ONE, APPLIED)
PARAM = "write_level"


def read_write_level(request: Request, params: Mapping[str, bytes]) -> str | None:
    """The level that a request asks for, by header or parameter; None: it says nothing. Raises Problem."""
    given = request.header(b"ls-write-level")
    if given is None and PARAM in params:
        given = text(params[PARAM], PARAM)
    if given is None or given.strip() in WRITE_LEVELS:
        return None if given is None else given.strip()
    raise Problem("bad-level", f"the levels of a write are {', '.join(WRITE_LEVELS)}, not {given.strip()[:40]!r}")


def awaits_outcome(level: str | None) -> bool:
    """True when a write that the row may refuse is answered once it is applied: unless its client wants less."""
    return level in (None, APPLIED)


def no_level() -> Problem:
    """The problem of a decision that the leader alone is to have."""
    return Problem(
        "bad-level", "what the log decides is in all replicas when its outcome is known: leave LS-Write-Level out, or "
        "write without condition and id",
    )  # fmt: skip
