"""History lines: a mutation of a key as a line for people, or as an object for programs."""

from typing import Any

import orjson

from logstore.cli import show
from logstore.client.history.key_history import KeyHistory
from logstore.client.history.mutation import KeyMutation
from logstore.model.wide.said_edit import SaidEdit

_MARKS = {True: "*", False: " ", None: "?"}
_LONGEST = 60  # characters of a value
_MOST_EDITS = 5  # of a record, on one line


def as_object(mutation: KeyMutation, *, values: bool) -> bytes:
    """A line of JSON. Headers are pairs: their names may repeat."""
    document: dict[str, Any] = {
        "offset": mutation.offset,
        "timestamp_ms": mutation.timestamp_ms,
        "operation": mutation.operation,
        "outcome": mutation.outcome,
        "reason": mutation.reason,
        "present": mutation.present,
        "size_bytes": mutation.size_bytes,
        "headers": [[name, None if content is None else show.field(content)] for name, content in mutation.headers],
        "condition": mutation.condition,
        "id": None if mutation.id is None else mutation.id.hex(),
        "ttl_ms": mutation.ttl_ms,
        "archived": mutation.archived,
        "carrier": None if mutation.carrier is None else show.field(mutation.carrier),
    }
    if values:
        document["value"] = None if mutation.value is None else show.field(mutation.value)
        if (edits := mutation.edits) is not None:
            document["edits"] = [_edit_object(one) for one in edits]
    return orjson.dumps(document) + b"\n"


def bounds_of(found: KeyHistory) -> dict[str, Any]:
    """Bounds of a history: what was looked through, and from where on log and archive can tell."""
    return {
        "key": show.field(found.key),
        "partition": found.partition,
        "start": found.start,
        "end": found.end,
        "known_from": found.known_from,
        "known_from_ms": found.known_from_ms,
        "missing": found.missing,
        "archived_to": found.archived_to,
        "copied_from": found.copied_from,
    }


def as_text(mutation: KeyMutation, *, values: bool) -> bytes:
    """A line for people."""
    outcome = mutation.outcome if mutation.reason is None else f"{mutation.outcome} ({mutation.reason})"
    fields = [
        f"{_MARKS[mutation.present]} {mutation.offset:>12,}  {show.time_text(mutation.timestamp_ms)}",
        f"{mutation.operation:<6}", f"{outcome:<7}", _value(mutation, values=values), *_more(mutation),
    ]  # fmt: skip
    return "  ".join(fields).rstrip().encode() + b"\n"


def _value(mutation: KeyMutation, *, values: bool) -> str:
    size = f"{mutation.size_bytes:,} bytes"
    if mutation.value is None:
        return size if not values and mutation.size_bytes else "-"
    edits = mutation.edits
    if edits is not None:
        more = [f"... ({len(edits):,} edits)"] if len(edits) > _MOST_EDITS else []
        return "; ".join([*map(_edit_text, edits[:_MOST_EDITS]), *more])
    text = _readable(mutation.value)
    return size if text is None else text


def _edit_object(edit: SaidEdit) -> dict[str, Any]:
    return {name: show.field(said) if isinstance(said, bytes) else said for name, said in edit.fields().items()}


def _edit_text(edit: SaidEdit) -> str:
    """An edit as its verb, its cell and what it says: `set content:html=<p>`."""
    row = "" if edit.row is None else f"{_word(edit.row)}/"
    cell = "" if edit.family is None else edit.family + ("" if edit.qualifier is None else f":{_word(edit.qualifier)}")
    said = "" if edit.value is None else f"={_word(edit.value)}"
    return f"{edit.verb} {row}{cell}{said}{'' if edit.delta is None else f'={edit.delta:+}'}".rstrip()


def _word(raw: bytes) -> str:
    text = _readable(raw)
    return f"({len(raw):,} bytes)" if text is None else text


def _more(mutation: KeyMutation) -> list[str]:
    named = [
        ("of", None if mutation.carrier is None else _word(mutation.carrier)),
        ("if", mutation.condition),
        ("id", None if mutation.id is None else mutation.id.hex()),
        ("ttl", None if mutation.ttl_ms is None else f"{mutation.ttl_ms:,} ms"),
    ]
    own = [(name, "-" if content is None else _readable(content) or f"{len(content)} bytes")
           for name, content in mutation.headers]  # fmt: skip
    return [f"{name}={text}" for name, text in [*named, *own] if text is not None]


def _readable(raw: bytes) -> str | None:
    """Text on one line, cut where it is long; None for what is none."""
    try:
        text = raw[: 4 * _LONGEST].decode("utf-8", "ignore" if len(raw) > 4 * _LONGEST else "strict")
    except UnicodeDecodeError:
        return None
    line = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(raw):,} bytes)"
    return line if line.isprintable() else repr(line)
