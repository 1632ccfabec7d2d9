import pytest

from logstore.model.errors import BadToken
from logstore.model.position import Position

A, B = "0123456789abcdef" * 2, "f" * 32


def test_the_token_of_a_write_is_its_offset_plus_one():
    position = Position.of_write(A, 3, 41)
    assert position.token == str(position) == f"{A}-3-42"
    assert (position.partition, position.offset) == (3, 41)


def test_tokens_round_trip_in_one_order():
    position = Position({(B, 0): 1, (A, 10): 5, (A, 2): 0})
    assert position.token == f"{A}-2-0,{A}-10-5,{B}-0-1"
    assert Position.parse(position.token) == position


def test_merging_is_joining_with_a_comma():
    one, two = Position({(A, 0): 5, (A, 1): 2}), Position({(A, 0): 3, (B, 1): 9})
    assert (
        Position.parse(f"{one.token},{two.token}")
        == one | two
        == two | one
        == Position({(A, 0): 5, (A, 1): 2, (B, 1): 9})
    )


def test_a_merged_position_covers_both_and_neither_covers_it():
    one, two = Position({(A, 0): 5}), Position({(A, 1): 2})
    both = one | two
    assert both.covers(one)
    assert both.covers(two)
    assert both.covers(Position())
    assert not one.covers(both)
    assert not Position({(B, 0): 5}).covers(one), "another epoch says nothing"


def test_equal_positions_hash_alike_and_the_empty_one_is_false():
    assert len({Position({(A, 0): 1}), Position.parse(f"{A}-0-1")}) == 1
    assert not Position()
    assert Position({(A, 0): 0})


@pytest.mark.parametrize(
    "token",
    ["", ",", f"{A}-0", f"{A}-0-", f"{A}-0--1", f"{A}-00-1", f"{A}-0-01", f"{A.upper()}-0-1", f"{A[:-1]}-0-1",
     f"{A}-0-{2**63}",
     f"{A}-{2**31}-1", f"{A}-0-1,", f"{A}-0-1;{A}-1-1", f"{A}-0-\u0661", "x" * 70_000],
)  # fmt: skip
def test_what_is_not_a_token_is_refused(token):
    with pytest.raises(BadToken):
        Position.parse(token)


def test_the_greatest_offset_and_partition_are_tokens():
    token = f"{A}-{2**31 - 1}-{2**63 - 1}"
    assert Position.parse(token).token == token
