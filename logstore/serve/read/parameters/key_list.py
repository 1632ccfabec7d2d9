"""Key list: the body of a multi-get, `{"keys": [...]}` in JSON or msgpack.

Nothing is built before its size is known: a few bytes of JSON or msgpack make an object of a hundred, so that a body of
some megabytes could fill the memory and hold up every other request. A body is bounded, then its elements are counted,
then it is parsed; a large one beside the event loop.
"""

import asyncio
import base64
import binascii
import re
from typing import Any

import msgpack
import orjson

from logstore.model.key import check_key
from logstore.serve.read.parameters.row_key import encoded
from logstore.serve.settings import MAX_BODY_BYTES, MAX_PAGE_ROWS, MAX_PARSED_BYTES
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request

_KINDS = (media_types.JSON, media_types.MSGPACK)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPENING = (b",", b"[", b"{")  # as many as there are elements, at most
_MAX_ELEMENTS = 3 * MAX_PAGE_ROWS + 3  # a key is a string or an object of one field
_TOO_MANY = f"a request has 1 to {MAX_PAGE_ROWS:,} keys, this one has more"
_SHAPE = 'the body is an object with the one field "keys", a list: {"keys": ["a", "b"]}'


async def read_keys(request: Request, params: dict[str, bytes]) -> list[bytes]:
    """The keys of the body, 1 to MAX_PAGE_ROWS; raises Problem or BadKey."""
    kind = (request.header(b"content-type") or media_types.JSON).partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise Problem("unsupported-media-type", f"keys come as {' or '.join(_KINDS)}, not {kind[:60]!r}")
    body = await request.body(MAX_BODY_BYTES)
    if len(body) <= MAX_PARSED_BYTES:
        return _read(kind, body, params)
    return await asyncio.to_thread(_read, kind, body, params)


def _read(kind: str, body: bytes, params: dict[str, bytes]) -> list[bytes]:
    try:
        keys = _of_json(body) if kind == media_types.JSON else _of_msgpack(body)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Problem("bad-request", f"the body is not {kind}: {str(error)[:200]}; {_SHAPE}") from error
    if not 1 <= len(keys) <= MAX_PAGE_ROWS:
        raise Problem("bad-request", f"a request has 1 to {MAX_PAGE_ROWS:,} keys, this one has {len(keys):,}")
    return [check_key(_key(key, params)) for key in keys]


def _of_json(body: bytes) -> list[Any]:
    if sum(map(body.count, _OPENING)) > _MAX_ELEMENTS and _elements(body) > _MAX_ELEMENTS:
        raise Problem("bad-request", _TOO_MANY)
    match orjson.loads(body):
        case {"keys": list(keys), **rest} if not rest:
            return keys
    raise Problem("bad-request", _SHAPE)


def _elements(body: bytes) -> int:
    """Bound on the elements of a JSON text: signs outside of strings that open or part them; ends past a bound."""
    found = at = 0
    for string in _STRING.finditer(body):
        found += sum(body.count(sign, at, string.start()) for sign in _OPENING) + 1
        if found > 2 * _MAX_ELEMENTS:
            return found
        at = string.end()
    return found + sum(body.count(sign, at) for sign in _OPENING)


def _of_msgpack(body: bytes) -> list[Any]:
    """The list, element by element: how long it says it is proves nothing."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(body) or 1, max_array_len=0, max_map_len=1, max_ext_len=0)
    unpacker.feed(body)
    try:
        if unpacker.read_map_header() != 1 or unpacker.unpack() != "keys":
            raise Problem("bad-request", _SHAPE)
        count = unpacker.read_array_header()
        if count > MAX_PAGE_ROWS:
            raise Problem("bad-request", _TOO_MANY)
        keys = [unpacker.unpack() for _ in range(count)]
    except msgpack.OutOfData as error:
        raise Problem("bad-request", f"the body ends too early; {_SHAPE}") from error
    if unpacker.tell() != len(body):
        raise Problem("bad-request", f"something follows the list of keys; {_SHAPE}")
    return keys


def _key(key: Any, params: dict[str, bytes]) -> bytes:
    match key:
        case bytes():
            return key
        case str():
            return encoded(key.encode(), params)
        case {"base64": str(text), **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise Problem("bad-key", f"not base64: {text[:60]!r}; it is padded and uses + and /") from error
    raise Problem("bad-key", 'a key is a string, bytes (msgpack) or {"base64": "..."}')
