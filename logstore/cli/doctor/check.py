"""Check: one thing that `doctor` has looked at, how it is, and what to type where it is not well."""

from collections.abc import Callable
from typing import NamedTuple

from logstore.model.errors import LogStoreError

OK, WARN, FAIL = "ok", "warn", "fail"


class Check(NamedTuple):
    """Result of one check. `fix`: what to type, or to set; empty where all is well."""

    state: str
    what: str
    found: str
    fix: str = ""


def checked(what: str, look: Callable[[], str], *, fix: str, broken: str = FAIL) -> Check:
    """Check of `look`: its words, or its error."""
    try:
        return Check(OK, what, look())
    except (LogStoreError, OSError) as error:
        return Check(broken, what, str(error), fix)
