"""Requests of the read API: paths, headers and bodies."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from logstore.client.checks import Text, check_table, keys_of
from logstore.client.read.point import After, headers_of
from logstore.client.read.row import LISTS
from logstore.model.key import MAX_KEY_BYTES, check_key

if TYPE_CHECKING:
    from logstore.model.wide.selection import CellSelection

MANY = 1000  # keys of one multi-get
_MANY_BYTES = 2 * 1024 * 1024  # of them
_UNESCAPED = re.compile(rb"[ !#-\[\]-~]+")  # characters that stand for themselves in JSON
_PLAIN_KEY = re.compile(rb"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")  # what `quote` would leave as it is


def table_path(table: str) -> str:
    """Path of a table. Raises UsageError for what is none."""
    return _path_of(table if type(table) is str else check_table(table))


@lru_cache(256)
def _path_of(table: str) -> str:
    return f"/v1/tables/{quote(check_table(table), safe='')}"


def row_path(table: str, key: bytes) -> str:
    """Path of a row. Raises UsageError for what is no table, BadKey."""
    name = key.decode("ascii") if _PLAIN_KEY.fullmatch(key) and len(key) <= MAX_KEY_BYTES else path_key(check_key(key))
    return f"{_path_of(table if type(table) is str else check_table(table))}/rows/{name}"


def path_key(key: bytes) -> str:
    """Percent-encode a key for a path.

    The keys `.` and `..` too, which clients and proxies would take for directories (RFC 3986, 5.2.4).
    """
    if _PLAIN_KEY.fullmatch(key):
        return key.decode("ascii")
    return quote(key, safe="") if key.strip(b".") or len(key) > 2 else "%2E" * len(key)


@lru_cache(64)  # a client asks for the same cells again and again
def cell_query(cells: "CellSelection | None") -> str:
    """Parameters that name cells of wide rows."""
    return "" if cells is None else f"?{urlencode(cells.params(), quote_via=quote)}"


def page_request(table: str, query: Mapping[str, bytes | str], after: After) -> tuple[str, dict[str, str]]:
    """Path and headers of a page of a scan."""
    text = "&".join([f"{name}={quote(value, safe='')}" for name, value in query.items()])
    return f"{table_path(table)}/rows?{text}", {**headers_of(after), "Accept": LISTS}


def many_request(table: str, keys: list[bytes], after: After) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of a multi-get."""
    headers = {**headers_of(after), "Accept": LISTS, "Content-Type": "application/json"}
    return f"{table_path(table)}/rows:get", headers, _keys_body(keys)


def distinct(keys: list[bytes]) -> list[bytes]:
    """The keys of a multi-get, each once. Requires: there are some. Raises BadKey."""
    once = dict.fromkeys(keys)
    if b"" in once or max(map(len, once)) > MAX_KEY_BYTES:
        for key in keys:
            check_key(key)
    return keys if len(once) == len(keys) else list(once)


def thousands(keys: Sequence[Text]) -> Iterator[list[bytes]]:
    """Keys in as many requests as it takes: by number, and by bytes, which JSON may make six times as many."""
    every = keys_of(keys)
    if len(every) <= MANY and sum(map(len, every)) <= _MANY_BYTES:
        if every:
            yield every
        return
    some: list[bytes] = []
    size_bytes = 0
    for key in every:
        if some and (len(some) == MANY or size_bytes + len(key) > _MANY_BYTES):
            yield some
            some, size_bytes = [], 0
        some.append(key)
        size_bytes += len(key)
    if some:
        yield some


def _keys_body(keys: list[bytes]) -> bytes:
    """Body of a multi-get; put together by hand where no key needs an escape, in half the time."""
    if _UNESCAPED.fullmatch(b"".join(keys)):
        return b'{"keys":["%b"]}' % b'","'.join(keys)
    import orjson  # noqa: PLC0415 - most reads do without

    try:
        return orjson.dumps({"keys": list(map(bytes.decode, keys))})
    except UnicodeDecodeError:
        return orjson.dumps({"keys": [_json_key(key) for key in keys]})


def _json_key(key: bytes) -> object:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(key).decode()}
