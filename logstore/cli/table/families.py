"""Families: column families as options of commands say them."""

from logstore.cli import options
from logstore.model.errors import UsageError

SPEC = "NAME[:versions=N,ttl=TIME]"


def families(given: tuple[str, ...], option: str) -> dict[str, dict[str, int | None]]:
    """Column families and their rules. Raises UsageError."""
    found: dict[str, dict[str, int | None]] = {}
    for text in given:
        name, _, rules = text.partition(":")
        if name in found:
            raise UsageError(f"{option} {name} is given twice")
        found[name] = dict(_rule(f"{option} {text!r}", *rule.partition("=")) for rule in rules.split(",") if rule)
    return found


def _rule(where: str, word: str, _sign: str, said: str) -> tuple[str, int | None]:
    """A rule of a column family. Raises UsageError."""
    if word == "ttl":
        return "ttl_ms", None if said == "none" else options.duration_ms(said, f"{where}: its TTL")
    if word != "versions" or not said.isdecimal():
        raise UsageError(f"{where}: write NAME, NAME:versions=N or NAME:versions=N,ttl=7d")
    return "versions", int(said)
