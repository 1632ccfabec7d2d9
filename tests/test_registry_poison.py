"""Records of `logstore.tables` that somebody else wrote: each concerns its own key, and a later one heals it."""

from typing import Any, NamedTuple

import orjson
import pytest

from logstore.log.tables.registry import EMPTY, STORE, Definitions
from logstore.model.errors import Corrupted, NoSuchTable, Unsupported
from logstore.model.table import Table

GOOD = Table("good", "good", "a" * 32, 2)
USERS = Table("users", "users", "b" * 32, 1)
LATER = orjson.dumps({**orjson.loads(USERS.to_json()), "versions": 3})


class Fake(NamedTuple):
    """A record as the client hands it over."""

    at: int
    k: bytes | None
    v: bytes | None

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.k

    def value(self) -> bytes | None:
        return self.v


def folded(*records: tuple[bytes | None, bytes | None]) -> Definitions:
    found: Any = EMPTY
    for offset, record in enumerate([(b"good", GOOD.to_json()), *records]):
        found = found.with_record(Fake(offset, *record))
    assert found.live("good") == Table.from_json(GOOD.to_json(), 0)  # whatever else there is
    assert found.revision == len(records) + 1
    return found


GARBAGE = [b"", b"\xff\x00garbage", b"null", b"[]", b"{}", b"[" * 5_000, USERS.to_json()[:-5], GOOD.to_json()]


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_stops_its_table_alone_and_says_what_helps(value):
    found = folded((b"users", value))
    with pytest.raises(Corrupted, match=r"table users: .*offset 1 .*table repair users --definition"):
        found.live("users")
    assert list(found.tables) == ["good"]


@pytest.mark.parametrize("value", GARBAGE)
def test_the_definition_before_garbage_counts(value):
    found = folded((b"users", USERS.to_json()), (b"users", value))
    assert found.live("users").revision == 1
    assert found.stopped("users") is None
    assert "users" in found.unreadable


def test_a_later_good_record_or_a_tombstone_heals_it():
    assert folded((b"users", b"{"), (b"users", USERS.to_json())).live("users").revision == 2
    withdrawn = folded((b"users", b"{"), (b"users", None))
    assert not withdrawn.unreadable
    with pytest.raises(NoSuchTable):
        withdrawn.live("users")


@pytest.mark.parametrize("before", [[], [(b"users", USERS.to_json())]])
def test_a_definition_of_a_later_build_stops_its_table_whatever_was_before(before):
    found = folded(*before, (b"users", LATER))
    with pytest.raises(Unsupported, match=r"table users is stopped: .*later build.*versions.*upgrade"):
        found.live("users")
    assert folded(*before, (b"users", LATER), (b"users", USERS.to_json())).live("users")


@pytest.mark.parametrize("key", [None, b"", b"../../x", b"/etc", b"\xff\xfe", b"UPPER", b"logstore.tables", b"x" * 200])
def test_records_under_keys_of_no_table_are_counted(key):
    found = folded((key, USERS.to_json()), (key, b"{"), (key, None))
    assert found.foreign == 3
    assert (list(found.tables), dict(found.unreadable)) == (["good"], {})


BAD_STORES = [
    b"not json", b"{}", b"[]", b"null", b'{"format":1,"storage":5}', b'{"format":1,"storage":"http://127.0.0.1:1/b"}',
    b'{"format":1,"storage":"s3://KEY:SECRET@b"}', b'{"format":1,"storage":"file:///a/../../b"}', b"[" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_STORES)
def test_a_storage_that_nobody_may_go_to_does_not_count(value):
    found = folded((STORE, value))
    with pytest.raises(Corrupted, match="logstore node --storage"):
        found.known_storage()
    good = (STORE, b'{"format":1,"storage":"file:///there"}')
    assert folded(good, (STORE, value)).known_storage() == "file:///there"
    assert folded((STORE, value), good).known_storage() == "file:///there"
    assert folded((STORE, value), (STORE, None)).known_storage() is None
