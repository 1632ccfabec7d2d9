"""The wait of the tests says what it last saw."""

from types import SimpleNamespace

import pytest
import support_wait
from support_wait import until


def seen_by_two(number):
    return {"answer": number}


def test_the_first_true_value_is_returned():
    values = iter([0, "", None, "there"])
    assert until("it is there", lambda: next(values)) == "there"


def test_what_was_seen_last_is_said():
    with pytest.raises(AssertionError, match=r"after 0.01 s still not: it is 43; seen last: .*'answer': 42"):
        until("it is 43", lambda: any(seen_by_two(number)["answer"] == 43 for number in (41, 42)), 0.01)
    with pytest.raises(AssertionError, match=r"seen last: \[\]"):
        until("something is there", [].copy, 0.01)


def test_what_comes_true_at_the_last_look_counts():
    looks = iter([False, True])
    assert until("it is there", lambda: next(looks), 0) is True


def test_an_error_of_the_condition_ends_the_wait():
    with pytest.raises(ZeroDivisionError):
        until("never", lambda: 1 / 0)


def test_looks_get_rarer_the_longer_the_wait_takes_down_to_a_fifth(monkeypatch):
    now, pauses = [100.0], []

    def sleep(pause_s):
        pauses.append(pause_s)
        now[0] += pause_s

    monkeypatch.setattr(support_wait, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    until("ten seconds are over", lambda: now[0] >= 110.0)
    assert pauses[0] == 0.02
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(0.1)
    assert 100 < len(pauses) < 150  # of 500 that are as quick as the first
