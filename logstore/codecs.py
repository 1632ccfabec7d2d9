"""Codecs: how a table's values are written as bytes and read again, `store.table("users", codec=codecs.json)`.

    json          what JSON can say (orjson)
    msgpack       what msgpack can say; bytes stay bytes
    text          str, as UTF-8
    counter       int, as `incr` has it: 8 bytes, big-endian and signed
    json_of(T)    dataclasses, TypedDicts, msgspec structs (msgspec), pydantic models: checked when they are read

Whatever has `encode` and `decode` is a codec. Both raise ValueError or TypeError for what they cannot say or read.
"""

from collections.abc import Callable
from math import isfinite
from typing import Any, Generic, Protocol, TypeVar

import orjson

from logstore.model.errors import SetupError, UsageError

T = TypeVar("T")
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


class Codec(Protocol[T]):
    """A way between a program's values and bytes."""

    def encode(self, value: T, /) -> bytes:
        """Bytes of a value. Raises TypeError, ValueError."""
        ...

    def decode(self, payload: bytes, /) -> T:
        """The value that bytes say. Raises ValueError."""
        ...


class _Json:
    """JSON of what JSON has: dataclasses and times are for `json_of`."""

    def encode(self, value: Any, /) -> bytes:
        return _finite(orjson.dumps(value, option=_PLAIN), lambda: value)

    def decode(self, payload: bytes, /) -> Any:
        return orjson.loads(payload)

    def __repr__(self) -> str:
        return "codecs.json"


class _MessagePack:
    """The msgpack format."""

    def encode(self, value: Any, /) -> bytes:
        import msgpack  # noqa: PLC0415 - only who uses it

        packed: bytes = msgpack.packb(value)
        return packed

    def decode(self, payload: bytes, /) -> Any:
        import msgpack  # noqa: PLC0415 - only who uses it

        try:
            return msgpack.unpackb(payload, strict_map_key=False)
        except msgpack.UnpackException as error:
            raise ValueError(str(error) or "it ends too early") from error

    def __repr__(self) -> str:
        return "codecs.msgpack"


class _Text:
    """Text in UTF-8."""

    def encode(self, value: str, /) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"a value is a str, not {type(value).__name__}")
        return value.encode()

    def decode(self, payload: bytes, /) -> str:
        return payload.decode()

    def __repr__(self) -> str:
        return "codecs.text"


class _Counter:
    """Numbers of 8 bytes, as `Store.incr` reads and writes them."""

    def encode(self, value: int, /) -> bytes:
        if type(value) is not int:
            raise TypeError(f"a counter is an int, not {type(value).__name__}")
        return value.to_bytes(8, signed=True)

    def decode(self, payload: bytes, /) -> int:
        if len(payload) != 8:
            raise ValueError(f"a counter has 8 bytes, this value {len(payload):,}")
        return int.from_bytes(payload, signed=True)

    def __repr__(self) -> str:
        return "codecs.counter"


class _Struct(Generic[T]):
    """JSON of what msgspec knows: dataclasses, TypedDicts, NamedTuples, structs, and lists and unions of them."""

    def __init__(self, kind: type[T]) -> None:
        import msgspec  # noqa: PLC0415 - only who uses it

        self._kind = kind
        self._encoder, self._decoder = msgspec.json.Encoder(), msgspec.json.Decoder(kind)
        self._errors, self._plain = (msgspec.MsgspecError, UnicodeError), msgspec.to_builtins

    def encode(self, value: T, /) -> bytes:
        raw: bytes = self._encoder.encode(value)
        self.decode(raw)  # what nobody could read again is not written
        return _finite(raw, lambda: self._plain(value))

    def decode(self, payload: bytes, /) -> T:
        try:
            return self._decoder.decode(payload)
        except self._errors as error:
            raise ValueError(str(error)) from error

    def __repr__(self) -> str:
        return f"codecs.json_of({self._kind!r})"


class _Model(Generic[T]):
    """JSON of a pydantic model."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def encode(self, value: T, /) -> bytes:
        if not isinstance(value, self._kind):
            raise TypeError(f"a value is a {self._kind.__name__}, not {type(value).__name__}")
        return _finite(value.model_dump_json().encode(), value.model_dump)

    def decode(self, payload: bytes, /) -> T:
        return self._kind.model_validate_json(payload)  # type: ignore[no-any-return]  # of Any

    def __repr__(self) -> str:
        return f"codecs.json_of({self._kind!r})"


def _finite(raw: bytes, plain: Callable[[], Any]) -> bytes:
    """JSON whose nulls were None. Raises ValueError: JSON writers make null of floats that JSON does not have."""
    if b"null" in raw:
        _check_finite(plain())
    return raw


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"JSON has no {value}")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        _check_finite(one)


json: Codec[Any] = _Json()
msgpack: Codec[Any] = _MessagePack()
text: Codec[str] = _Text()
counter: Codec[int] = _Counter()


def json_of(kind: type[T]) -> Codec[T]:
    """JSON of a type, which is checked at both edges: a pydantic model, or what msgspec knows.

    Raises UsageError for a type that neither knows, SetupError when msgspec is not installed.
    """
    if hasattr(kind, "model_validate_json"):
        return _Model(kind)
    try:
        return _Struct(kind)
    except ImportError as error:
        raise SetupError(f"a codec of {kind!r} needs msgspec: pip install msgspec") from error
    except TypeError as error:
        raise UsageError(f"there is no codec of {kind!r}: {error}") from error
