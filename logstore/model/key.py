"""Row keys: 1 to 65,535 arbitrary bytes, and their base64url text form; and how long a value beside one may be."""

import base64
import binascii

from logstore.model.errors import BadKey, UsageError

MAX_KEY_BYTES = 65_535
MAX_MAX_VALUE_BYTES = 64 * 1024 * 1024  # of a value, whatever its table allows
_OTHER_ALPHABET = str.maketrans("+/", "!!")  # plain base64: b64decode would let it pass beside its own


def check_key(key: bytes) -> bytes:
    """Return `key`; raises BadKey when it is empty or too long."""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise BadKey(len(key))
    return key


def to_bytes(text: bytes | str) -> bytes:
    """Encode text as UTF-8 and leave bytes as they are; raises UsageError for anything else."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"not text that UTF-8 can hold: {text[:40]!r}; give bytes") from error
    raise UsageError(f"keys and values are bytes or str, this one is {type(text).__name__}")


def to_base64url(key: bytes) -> str:
    """Encode without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decode with or without padding; raises UsageError when `text` is not base64url."""
    try:
        padded = text.translate(_OTHER_ALPHABET).rstrip("=").encode("ascii")
        return base64.b64decode(padded + b"=" * (-len(padded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise UsageError(f"not base64url: {text[:40]!r}") from error


def after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above every key that begins with `prefix`; None when there is none (empty, or all 0xFF)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None
