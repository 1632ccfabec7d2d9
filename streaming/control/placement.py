"""Placement: the slots that a worker follows. Pure: Faust's assignment and others' announcements decide.

A slot that was taken away is kept until its new owner serves it, so no read fails in between:

    assigned to me                               follow
    taken away, new owner on another node        keep until it announces the slot as live, however long that takes
    taken away, and nobody's                     keep: somebody has to follow it, whatever has become of the group
    taken away, new owner on this node           let go at once: it waits for this process to release the views
    followed before a restart                    keep as if just taken away: a killed worker is back before Faust
                                                 has noticed
"""

from collections.abc import Iterable

from logstore.log.membership.nodes import Announcement


class Placement:
    """The slots of one worker."""

    def __init__(self, node: str, worker: int, before: Iterable[int] = ()) -> None:
        """`before`: the slots that this worker followed when it ended."""
        self._me = node, worker
        self.assigned: frozenset[int] = frozenset()
        self._leaving = frozenset(before)  # slots kept until somebody else serves them

    @property
    def followed(self) -> frozenset[int]:
        """Assigned slots and those still kept for their next owner."""
        return self.assigned | self._leaving

    def assign(self, slots: Iterable[int]) -> None:
        """Faust has assigned exactly these slots."""
        slots = frozenset(slots)
        self._leaving = (self._leaving | self.assigned) - slots
        self.assigned = slots

    def settle(self, announced: Iterable[Announcement]) -> bool:
        """Let go of slots whose new owner is ready; True when something changed."""
        others = [a for a in announced if (a.node, a.worker) != self._me]
        ready = {slot for a in others for slot in (a.slots if a.node == self._me[0] else a.live)}
        before = self._leaving
        self._leaving = before - ready
        return self._leaving != before
