"""The desk that asks for outcomes, and the writes of a pipeline that wait at it; no log and no reader."""

import threading
import time
from contextlib import contextmanager
from queue import SimpleQueue
from types import SimpleNamespace

import orjson
import pytest
from support_wait import until

from logstore import LogUnreachable, Unknown, UsageError, WriteFailed
from logstore.client.conditional.asking import AskedWrite, outcome_or_error
from logstore.client.conditional.outcome import Outcome, outcomes_of_answer
from logstore.client.conditional.outcome_desk import MOST_ASKED, AskedPlace, OutcomeDesk
from logstore.client.conditional.pending_outcome import PendingOutcome, Undecided
from logstore.client.conditional.record import incr_record
from logstore.client.transport.answer import HttpAnswer
from logstore.client.write.pending import Shared
from logstore.log.connect.access import Access
from logstore.log.connect.cluster import Cluster
from logstore.model.errors import ConsistencyTimeout, NotRetained, ServerError, Stopped

EPOCH = "ab" * 16
HERE, THERE = AskedPlace("t", EPOCH, 0), AskedPlace("t", EPOCH, 1)
RECORD = incr_record("hits", 1, None)
PATIENCE_S = 60


def applied(place, offset, mutation_id=RECORD.id):
    token = f"{place.epoch}-{place.partition}-{offset + 1}"
    return Outcome("applied", offset, None, None, None, place.partition, offset, token, mutation_id)


class Node:
    """Tells that every write was applied, one request at a time and place, when it is let."""

    def __init__(self):
        self.asked, self.gates, self.errors = SimpleQueue(), {}, []

    def __call__(self, writes, end_s):
        place, offsets = writes[0].place, [write.offset for write in writes]
        assert {write.place for write in writes} == {place}
        assert end_s == min(write.end_s for write in writes)
        self.asked.put((place, offsets))
        if (gate := self.gates.get(place)) is not None:
            assert gate.acquire(timeout=PATIENCE_S)
        if self.errors:
            raise self.errors.pop(0)
        return [applied(place, offset) for offset in offsets]


@contextmanager
def desk_of(node):
    desk = OutcomeDesk(node)
    try:
        yield desk
    finally:
        for gate in node.gates.values():
            gate.release(1_000)
        desk.close()


def asked_write(found, place, offset):
    return AskedWrite(place, offset, RECORD, time.monotonic() + PATIENCE_S, found.put)


def test_what_comes_while_one_asks_is_asked_for_together():
    node, found = Node(), SimpleQueue()
    node.gates[HERE] = threading.Semaphore(0)
    with desk_of(node) as desk:
        desk.want(asked_write(found, HERE, 0))
        assert node.asked.get(timeout=PATIENCE_S) == (HERE, [0])
        for offset in range(1, MOST_ASKED + 3):
            desk.want(asked_write(found, HERE, offset))
        desk.want(asked_write(found, THERE, 7))
        assert node.asked.get(timeout=PATIENCE_S) == (THERE, [7]), "another partition waits for nobody"
        assert found.get(timeout=PATIENCE_S) == applied(THERE, 7)
        node.gates[HERE].release(3)
        assert node.asked.get(timeout=PATIENCE_S) == (HERE, [*range(1, MOST_ASKED + 1)])
        assert node.asked.get(timeout=PATIENCE_S) == (HERE, [MOST_ASKED + 1, MOST_ASKED + 2])
        told = [found.get(timeout=PATIENCE_S) for _ in range(MOST_ASKED + 3)]
        assert sorted(one.offset for one in told) == [*range(MOST_ASKED + 3)]


def test_who_leads_asks_alone_and_others_come_after():
    node, found = Node(), SimpleQueue()
    with desk_of(node) as desk:
        with desk.lead(HERE) as leads, desk.lead(HERE) as again:
            assert (leads, again) == (True, False)
            desk.want(asked_write(found, HERE, 1))
            desk.want(asked_write(found, THERE, 2))
            assert node.asked.get(timeout=PATIENCE_S) == (THERE, [2])
            assert node.asked.empty()
        assert node.asked.get(timeout=PATIENCE_S) == (HERE, [1])
        until("the turn is over", lambda: led(desk, HERE))


def led(desk, place):
    with desk.lead(place) as leads:
        return leads


def test_an_error_is_told_to_all_and_the_desk_goes_on():
    node, found = Node(), SimpleQueue()
    node.errors = [Stopped("gap"), ZeroDivisionError()]
    with desk_of(node) as desk:
        for kind in (Stopped, ServerError):
            desk.want(asked_write(found, HERE, 1))
            told = found.get(timeout=PATIENCE_S)
            with pytest.raises(kind):
                outcome_or_error(told)
        desk.want(asked_write(found, HERE, 1))
        assert outcome_or_error(found.get(timeout=PATIENCE_S)) == applied(HERE, 1)


def test_who_waits_when_it_closes_is_told():
    node, found = Node(), SimpleQueue()
    node.gates[HERE] = threading.Semaphore(0)
    with desk_of(node) as desk:
        desk.want(asked_write(found, HERE, 0))
        node.asked.get(timeout=PATIENCE_S)
        desk.want(asked_write(found, HERE, 1))
        desk.later(3_600, lambda: found.put("later"))
        desk.close()
        assert found.get(timeout=PATIENCE_S) == "later"
        node.gates[HERE].release()
        desk.want(asked_write(found, THERE, 1))
        told = [found.get(timeout=PATIENCE_S) for _ in range(3)]  # in no certain order
        assert applied(HERE, 0) in told, "what is asked is told"
        assert sum(isinstance(one, UsageError) for one in told) == 2
        assert not led(desk, THERE)


def test_what_is_due_later_is_done_then():
    done, due_s = SimpleQueue(), time.monotonic() + 0.05
    with desk_of(Node()) as desk:
        for number in range(3):
            desk.later(0.05, lambda number=number: done.put((number, time.monotonic())))
        numbers, times_s = zip(*[done.get(timeout=PATIENCE_S) for _ in range(3)], strict=True)
    assert sorted(numbers) == [0, 1, 2]
    assert min(times_s) >= due_s


# the writes of a pipeline


class Log:
    """Takes records again, and keeps who wants to hear of them."""

    delivery_timeout_s, access = 60.0, Access(Cluster("127.0.0.1:1"))

    def __init__(self):
        self.sent, self.errors = SimpleQueue(), []

    def send(self, topic, key, value, delivered, partition, headers=None, patience_s=None):
        assert (topic, key, partition, headers, patience_s) == ("topic", b"hits", 0, [*RECORD.own], 0.0)
        if self.errors:
            raise self.errors.pop(0)
        self.sent.put(delivered)

    def release(self):
        pass

    def check_process(self, _):
        pass


def message(offset):
    return SimpleNamespace(offset=lambda: offset, partition=lambda: 0, topic=lambda: "topic")


class Walk:
    """A write that is about to be queued, in a pipeline of two."""

    def __init__(self, desk, log, within_s=60.0):
        self.shared, self.undecided = Shared(EPOCH, log), Undecided("t", desk, most=2)
        assert self.undecided.enter(0.0, lambda: None)
        self.pending = PendingOutcome.begun(self.undecided, RECORD, time.monotonic() + within_s, self.shared)
        self.pending.aim("topic", 0)

    def result(self):
        try:
            return self.pending.result(PATIENCE_S)
        finally:
            assert self.pending.done()
            assert self.undecided.wait(PATIENCE_S) == 0


LOST = SimpleNamespace(code=lambda: -187, str=lambda: "lost", fatal=lambda: False, name=lambda: "_FATAL")


@pytest.fixture
def lost(monkeypatch):
    """Delivery reports with an error are those of an acknowledgement that was lost."""
    monkeypatch.setattr(
        "logstore.client.conditional.pending_outcome.delivery_error", lambda *_: Unknown("no acknowledgement")
    )


def test_a_write_of_a_pipeline_is_told_its_outcome():
    with desk_of(Node()) as desk:
        walk = Walk(desk, Log())
        walk.pending(None, message(5))
        assert walk.result() == applied(HERE, 5)
        assert (walk.pending.exception(), walk.shared.failed, walk.shared.unknown) == (None, 0, 0)


@pytest.mark.usefixtures("lost")
def test_a_lost_acknowledgement_sends_the_same_record_again():
    log = Log()
    log.errors = [LogUnreachable("away")]
    with desk_of(Node()) as desk:
        walk = Walk(desk, log)
        walk.pending(LOST, message(None))
        log.sent.get(timeout=PATIENCE_S)(LOST, message(None))
        again = log.sent.get(timeout=PATIENCE_S)
        again(None, message(8))
        again(None, message(9))  # librdkafka reports once; a second one would change nothing
        assert walk.result() == applied(HERE, 8)


@pytest.mark.usefixtures("lost")
def test_a_write_that_nobody_acknowledges_is_unknown_with_its_id():
    with desk_of(Node()) as desk:
        walk = Walk(desk, Log(), within_s=0.2)
        walk.pending(LOST, message(None))
        with pytest.raises(Unknown) as raised:
            walk.result()
        assert (raised.value.id, raised.value.position, walk.shared.unknown) == (RECORD.id, None, 1)


def test_a_write_that_is_refused_is_not_in_the_log(monkeypatch):
    monkeypatch.setattr("logstore.client.conditional.pending_outcome.delivery_error", lambda *_: WriteFailed("refused"))
    with desk_of(Node()) as desk:
        walk = Walk(desk, Log())
        walk.pending(LOST, message(None))
        with pytest.raises(WriteFailed, match="refused"):
            walk.result()
        assert (walk.shared.failed, walk.shared.unknown) == (1, 0)


def test_an_outcome_is_asked_for_again_while_it_may_come():
    node = Node()
    node.errors = [ConsistencyTimeout("behind")] * 2
    with desk_of(node) as desk:
        walk = Walk(desk, Log())
        walk.pending(None, message(5))
        assert walk.result() == applied(HERE, 5)
        assert node.asked.qsize() == 3


def test_an_outcome_that_nobody_tells_is_unknown_with_its_place():
    node = Node()
    node.errors = [Stopped("gap")]
    with desk_of(node) as desk:
        walk = Walk(desk, Log())
        walk.pending(None, message(5))
        with pytest.raises(Unknown) as raised:
            walk.result()
        assert (raised.value.id, raised.value.position.offset) == (RECORD.id, 5)


def test_only_so_many_writes_are_undecided():
    with desk_of(Node()) as desk:
        walk, released = Walk(desk, Log()), []
        assert walk.undecided.enter(0.0, released.append)
        assert not walk.undecided.enter(0.01, lambda: released.append(1))
        assert released == [1]
        threading.Timer(0.05, lambda: walk.pending(None, message(5))).start()
        assert walk.undecided.enter(PATIENCE_S, lambda: released.append(2)), "there is room once one is decided"
        assert walk.undecided.wait(0.0) == 2


# answers of a reader


def entry(**odd):
    told = {"offset": 5, "outcome": "applied", "version": 5, "reason": None, "first": None, "first_outcome": None}
    return orjson.dumps({"outcomes": [told | odd]})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b'{"outcomes": []}', b'{"outcomes": [{"offset": 6}]}', b'{"outcomes": [{"offset": 5}]}',
        entry(outcome="odd"), entry(first=1), entry(outcome="rejected", version="5"), entry(outcome="duplicate"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_list_of_outcomes_is_an_error_of_the_server(body):
    with pytest.raises(ServerError, match="no outcome of the read API"):
        outcomes_of_answer(HttpAnswer(200, {}, body, 0.0), EPOCH, 0, [(5, RECORD.id)])


def test_entries_without_an_outcome_say_why():
    body = b'{"outcomes": [{"offset": 5, "error": "not-found"}, {"offset": 6, "error": "not-retained"}]}'
    none, gone = outcomes_of_answer(HttpAnswer(200, {}, body, 0.0), EPOCH, 0, [(5, RECORD.id), (6, RECORD.id)])
    assert none is None
    assert isinstance(gone, NotRetained)
