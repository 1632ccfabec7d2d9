"""Row keys as they stand in paths, parameters and JSON bodies."""

from collections.abc import Mapping

from logstore.model.key import check_key, from_base64url
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import percent_decode, text


def decode_key(raw: bytes, params: Mapping[str, bytes]) -> bytes:
    """The row key of a path; raises Problem or BadKey."""
    return check_key(encoded(percent_decode(raw, "bad-key"), params))


def encoded(raw: bytes, params: Mapping[str, bytes]) -> bytes:
    """`raw` read as the parameter `key_encoding` says; raises Problem."""
    encoding = params.get("key_encoding")
    if encoding is None:
        return raw
    if encoding != b"base64url":
        raise Problem(
            "bad-request", "key_encoding is base64url, or absent for percent-encoded bytes", parameter="key_encoding"
        )
    try:
        return from_base64url(text(raw, "key"))
    except ValueError as error:
        raise Problem("bad-key", f"{error}; the alphabet is A-Z a-z 0-9 - _, without padding") from error
