"""Placement: the slots that a worker follows. Pure: Faust's assignment, others' announcements, and the time decide.

A slot that was taken away is kept until its new owner serves it, so no read fails in between:

    assigned to me                               follow
    taken away, new owner on another node        keep until it announces the slot as live, or the deadline passes
    taken away, and nobody's                     keep: somebody has to follow it, whatever has become of the group
    taken away, new owner on this node           let go at once: it waits for this process to release the views
    followed before a restart                    keep as if just taken away: a killed worker is back before Faust
                                                 has noticed
"""

from collections.abc import Iterable, Mapping

from logstore.log.nodes import Announcement

HANDOVER_S = 30.0


class Placement:
    """The slots of one worker."""

    def __init__(self, node: str, worker: int, before: Iterable[int] = (), now_s: float = 0.0) -> None:
        """`before`: the slots that this worker followed when it ended."""
        self._me = node, worker
        self.assigned: frozenset[int] = frozenset()
        self._leaving: dict[int, float] = dict.fromkeys(
            before, now_s + HANDOVER_S
        )  # slot -> when it is let go at the latest, seconds of a monotonic clock

    @property
    def followed(self) -> frozenset[int]:
        """Assigned slots and those still kept for their next owner."""
        return self.assigned | self._leaving.keys()

    def assign(self, slots: Iterable[int], now_s: float) -> None:
        """Faust has assigned exactly these slots."""
        slots = frozenset(slots)
        lost: Mapping[int, float] = dict.fromkeys(self.assigned - slots, now_s + HANDOVER_S)
        self._leaving = {slot: deadline for slot, deadline in {**lost, **self._leaving}.items() if slot not in slots}
        self.assigned = slots

    def settle(self, announced: Iterable[Announcement], now_s: float) -> bool:
        """Let go of slots whose new owner is ready; True when something changed."""
        others = [a for a in announced if (a.node, a.worker) != self._me]
        ready = {slot for a in others for slot in (a.slots if a.node == self._me[0] else a.live)}
        claimed = {slot for a in others for slot in a.slots}
        before = len(self._leaving)
        self._leaving = {
            slot: deadline
            for slot, deadline in self._leaving.items()
            if slot not in ready and (now_s < deadline or slot not in claimed)
        }
        return len(self._leaving) != before
