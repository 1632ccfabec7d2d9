import random

import pytest

from logstore.model.errors import BadKey, UsageError
from logstore.model.key import MAX_KEY_BYTES, after_prefix, check_key, from_base64url, to_base64url, to_bytes


@pytest.mark.parametrize("key", [b"a", b"\0", b"\xff" * 511, b"x" * MAX_KEY_BYTES])
def test_any_bytes_up_to_the_limit_are_a_key(key):
    assert check_key(key) is key


@pytest.mark.parametrize("key", [b"", b"x" * (MAX_KEY_BYTES + 1)])
def test_empty_and_too_long_keys_are_refused(key):
    with pytest.raises(BadKey, match="65,535"):
        check_key(key)


def test_text_is_utf8_and_bytes_stay_as_they_are():
    assert to_bytes("schlüssel") == "schlüssel".encode()
    assert to_bytes(b"\xff") == b"\xff"


@pytest.mark.parametrize("other", [1, None, 1.5, ["a"], bytearray(b"a")])
def test_other_types_are_refused_by_name(other):
    with pytest.raises(UsageError, match=type(other).__name__):
        to_bytes(other)


def test_base64url_round_trips_without_padding():
    seeded = random.Random(7)
    for length in range(1, 40):
        key = seeded.randbytes(length)
        text = to_base64url(key)
        assert "=" not in text
        assert from_base64url(text) == key


@pytest.mark.parametrize("text", ["a+b/", "ä", "a b", "abcde"])
def test_what_is_not_base64url_is_refused(text):
    with pytest.raises(UsageError):
        from_base64url(text)


def test_the_end_of_a_prefix_is_above_all_its_keys_and_below_all_others():
    assert after_prefix(b"ab") == b"ac"
    assert after_prefix(b"a\xff\xff") == b"b"
    assert after_prefix(b"\xff") is None
    assert after_prefix(b"") is None
