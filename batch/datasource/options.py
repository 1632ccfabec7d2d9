"""Options of a reading: the kind, and the keys that are wanted.

    key    = KEY              one row            start = KEY     rows from that key on
    keys   = ["KEY", ...]     those rows         end   = KEY     rows below that key
    prefix = KEY              rows that begin with it
    key_encoding = text | base64url              how the option says a key: its text (UTF-8), or any bytes

Several narrow each other.
"""

import json
from collections.abc import Mapping

from batch.datasource import plan, row_shape
from batch.datasource.key_filter import Keys
from logstore.model.errors import UsageError
from logstore.model.key import after_prefix, from_base64url

FORMAT = "logstore"
_KINDS = ("snapshot", "as_of", "changes")
_KEYS = ("key", "keys", "prefix", "start", "end", "key_encoding")
_ENCODINGS = ("text", "base64url")
_KNOWN = ("bootstrap", "table", "storage", "until", *_KINDS, *_KEYS, *row_shape.OPTIONS)


def checked(options: Mapping[str, str]) -> tuple[str, str]:
    """The kind of reading and its value. Raises UsageError that says what to write instead."""
    unknown = sorted(set(options) - set(_KNOWN))
    if unknown:
        raise UsageError(f"{FORMAT} does not know the option {unknown[0]!r}; there are {', '.join(_KNOWN)}")
    for name in ("bootstrap", "table"):
        if not options.get(name):
            raise UsageError(f'{FORMAT} needs .option("{name}", {"HOST:PORT" if name == "bootstrap" else "NAME"!r})')
    kinds = [kind for kind in _KINDS if kind in options]
    if len(kinds) > 1:
        raise UsageError(f"{' and '.join(kinds)} exclude each other: give one of {', '.join(_KINDS)}")
    kind = kinds[0] if kinds else "snapshot"
    if "until" in options and kind != "changes":
        raise UsageError(f"until goes with changes, not with {kind}: as_of names the position of a state")
    what = options.get(kind, plan.CURRENT)
    if not what or (kind == "changes" and what == plan.LATEST) or (kind == "as_of" and what == plan.EARLIEST):
        raise UsageError(
            f"{kind} cannot be {what!r}; snapshot is current or a name, as_of is latest or a token, changes earliest "
            "or a token"
        )
    return kind, what


def keys_of(options: Mapping[str, str]) -> Keys:
    """The wanted keys. Raises UsageError, BadKey."""
    encoding = options.get("key_encoding", "text")
    if encoding not in _ENCODINGS:
        raise UsageError(f"key_encoding cannot be {encoding[:80]!r}; give {' or '.join(_ENCODINGS)}")
    said = {name: _key(options[name], encoding) for name in ("key", "prefix", "start", "end") if name in options}
    wanted = Keys()
    if "key" in said:
        wanted = wanted.among([said["key"]])
    if "keys" in options:
        wanted = wanted.among(_key(text, encoding) for text in _texts(options["keys"]))
    for start in (said.get("prefix"), said.get("start")):
        wanted = wanted if start is None else wanted.at_least(start)
    for end in (after_prefix(said.get("prefix", b"")), said.get("end")):
        wanted = wanted if end is None else wanted.below(end)
    return wanted


def _key(text: str, encoding: str) -> bytes:
    return from_base64url(text) if encoding == "base64url" else text.encode()


def _texts(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UsageError(f'keys wants a JSON list of texts, ["ada", "bob"], not {text[:80]!r}')
    return found
