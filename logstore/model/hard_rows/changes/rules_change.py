"""RulesChange: what a `rules` record of a partition's log means to whoever folds it."""

from typing import NamedTuple

from logstore.model.folding.mutation import BAD_MSGPACK, RULES, Control, Quarantined, Refused
from logstore.model.hard_rows.rules import ColumnFamily, Rules, with_plain
from logstore.model.rules.rules_revision import Families, read_record


class RulesChange(NamedTuple):
    """A change of the rules: what stands behind it is folded by those of `revision`."""

    revision: int


class UnknownRules(NamedTuple):
    """A record that cannot be folded before a newer definition is known here; `why` is a sentence."""

    why: str


def change_of(
    value: bytes | None, rules: Rules, revision: int
) -> RulesChange | UnknownRules | Control | Quarantined | Refused:
    """The meaning of a `rules` record with this value, where the rules of `revision` are in force."""
    if not rules.wide:
        return Refused(f"the operation {RULES!r} needs a later build")
    record = read_record(value)
    if record is None:
        return Quarantined(BAD_MSGPACK)
    if record.revision <= revision:
        return Control(RULES)
    known = rules.revisions.get(record.revision)
    if known is None:
        return UnknownRules(unknown(record.revision))
    if record.families is not None and _read(record.families) != known:
        return UnknownRules(f"its definition has other column families for revision {record.revision} than the log has")
    return RulesChange(record.revision)


def unknown(revision: int) -> str:
    """Sentence that a revision is not known here."""
    return f"the log goes on by revision {revision} of the column families, which no definition that is known here has"


def _read(families: Families) -> dict[str, ColumnFamily] | None:
    try:
        return with_plain({name: ColumnFamily(**said) for name, said in families.items()})
    except TypeError:
        return None
