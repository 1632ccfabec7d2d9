"""Cuts: of those in one batch the newest is pinned, and a flood of them is passed over."""

from types import SimpleNamespace

from logstore.model.folding.fold import Records
from logstore.model.table import Table
from streaming.lane.cuts import BURST, Cuts
from streaming.lane.partition import FollowedPartition
from streaming.lane.target import Target

CUT = [("ls.op", b"cut")]
TARGET = Target(Table("t", "t", "e" * 32, 1), 0, 0)


class Helper:
    """Pins at once, and remembers where."""

    def __init__(self) -> None:
        self.pinned: list[str] = []

    def pin(self, path: str, base_dir: str | None, on_end: object, cut: int = -1) -> object:
        self.pinned.append(path)
        return SimpleNamespace(begun=SimpleNamespace(wait=lambda _: True, is_set=lambda: True))


def batch(first: int, kinds: str) -> Records:
    """A record for each letter: `c` a cut, `v` a value."""
    count = range(first, first + len(kinds))
    return Records(
        list(count),
        [None if kind == "c" else b"k%d" % at for at, kind in zip(count, kinds, strict=True)],
        [b"\x80" if kind == "c" else b"v" for kind in kinds],
        [0] * len(kinds),
        [CUT if kind == "c" else None for kind in kinds],
    )


def test_the_newest_cut_of_a_batch_is_pinned_and_every_record_is_applied(tmp_path):
    followed, helper = FollowedPartition(TARGET, tmp_path), Helper()
    found: list[int] = []
    cuts = Cuts(helper, lambda *_: None)

    def reached(one, cut):
        found.append((one.next_offset, cut))  # where the view stands when it is pinned
        return True

    cuts.reached = reached
    try:
        assert cuts.take(followed, batch(0, "vcvccvv"), 0)
        assert (found, followed.next_offset) == ([(4, 4)], 7)
        assert cuts.take(followed, batch(7, "cv"), 0)
        assert (found, followed.next_offset) == ([(4, 4), (7, 7)], 9)
    finally:
        followed.close()


def test_a_flood_of_cuts_is_passed_over_and_applied(tmp_path):
    followed, helper = FollowedPartition(TARGET, tmp_path), Helper()
    cuts = Cuts(helper, lambda *_: None)
    try:
        for number in range(200):
            assert cuts.take(followed, batch(3 * number, "cvc"), 0)
        assert followed.next_offset == 600
        assert BURST <= len(helper.pinned) < 100
    finally:
        followed.close()
