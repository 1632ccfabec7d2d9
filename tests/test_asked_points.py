"""What workers tell of logs that they asked about: an end or a barrier, or why there is none."""

import pytest

from logstore.model.errors import LogUnreachable
from streaming.control.demands import asked_ends, barriers


def test_a_log_that_ends_below_what_is_applied_is_no_answer():
    ended, barrier = asked_ends._point(7, 99, 100, ""), barriers._point(7, 100, 99)
    for point in (ended, barrier):
        assert (point.asked_ns, point.next_offset) == (7, -1)
        assert "cut back, or is another" in point.why
    assert asked_ends._point(7, 100, 100, "").next_offset == 100
    assert barriers._point(7, 100, 100).next_offset == 101


@pytest.mark.parametrize(
    "point",
    [asked_ends._point(7, None, 100, "no leader"), barriers._point(7, 100, LogUnreachable("no leader"))],
)
def test_a_log_that_does_not_tell_says_why(point):
    assert (point.asked_ns, point.next_offset) == (7, -1)
    assert "no leader" in point.why
