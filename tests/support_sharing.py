"""Groups of tests that processes share (pytest-xdist)."""

from support_tiers import group_of
from xdist.scheduler import LoadScopeScheduling


class Sharing(LoadScopeScheduling):
    """Groups of tests, each taken whole by the next process that is free, in the order of the tests.

    xdist's own groups by marker do nothing with pytest 9.2: they set a name of the test that it no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
