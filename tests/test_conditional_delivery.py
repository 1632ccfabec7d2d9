"""The delivery of a conditional write: what is sent again and what is told, step by step, without a clock."""

import asyncio

import orjson
import pytest
from support_http_node import running_node

from logstore import EpochChanged, LogUnreachable, Overloaded, Position, Stopped, Store, Unknown, WriteFailed
from logstore.client.conditional.delivery import Append, Learn, Rest, deliver, deliver_async, delivery
from logstore.client.conditional.outcome import Outcome, outcome_of_answer
from logstore.client.conditional.record import Expected, append_record, cas_record, incr_record, put_record, read_id
from logstore.client.transport.answer import HttpAnswer
from logstore.model.errors import ConsistencyTimeout, NotOwner, NotRetained, ServerError, StillPending, UsageError
from logstore.model.folding.mutation import KeyedRecord, sort_out
from logstore.model.folding.terms import Condition, Terms

EPOCH = "ab" * 16
WRITTEN = Position.of_write(EPOCH, 1, 41)
RECORD = incr_record("hits", 1, None)
APPLIED = Outcome("applied", 41, None, None, None, 1, 41, WRITTEN.token, RECORD.id)
LOST = Unknown("no acknowledgement came")


class Walk:
    """A delivery whose clock goes on by what is waited for, and whose answers are in a script."""

    def __init__(self, *script, deadline_s=60.0):
        self.now_s, self.script, self.steps = 0.0, list(script), []
        self.delivery = delivery(RECORD, deadline_s, lambda: self.now_s)

    def run(self):
        step = next(self.delivery)
        while True:
            self.steps.append(step)
            answer = None
            if isinstance(step, Rest):
                self.now_s += step.seconds
            else:
                takes_s, answer = self.script.pop(0)
                self.now_s += takes_s
            try:
                step = self.delivery.send(answer)
            except StopIteration as end:
                assert not self.script
                return end.value


def test_a_write_is_appended_once_and_its_outcome_is_learnt():
    walk = Walk((1, WRITTEN), (1, APPLIED))
    assert walk.run() == APPLIED
    assert walk.steps == [Append(60.0), Learn(WRITTEN, 30_000)]


def test_a_lost_acknowledgement_is_answered_with_the_same_record_again():
    walk = Walk((1, LOST), (0, LogUnreachable("away")), (3, StillPending("slow")), (1, WRITTEN), (0, APPLIED))
    assert walk.run() == APPLIED
    assert [type(step) for step in walk.steps] == [Append, Rest, Append, Rest, Append, Rest, Append, Learn]
    assert walk.steps[-2].timeout_s < 60 - 4


@pytest.mark.parametrize("error", [WriteFailed("refused"), Overloaded("full"), LogUnreachable("away")])
def test_a_first_attempt_that_is_not_in_the_log_is_an_error_as_of_a_put(error):
    with pytest.raises(type(error)) as raised:
        Walk((1, error)).run()
    assert raised.value is error


@pytest.mark.parametrize("error", [WriteFailed("refused"), UsageError("closed")])
def test_a_later_attempt_that_fails_for_good_leaves_the_first_one_unknown(error):
    with pytest.raises(Unknown) as raised:
        Walk((1, LOST), (1, error)).run()
    assert (raised.value.id, raised.value.position, raised.value.__cause__) == (RECORD.id, None, error)


def test_a_write_is_unknown_with_its_id_at_the_deadline_and_not_before():
    walk = Walk(*[(9, LOST)] * 6, deadline_s=50.0)
    with pytest.raises(Unknown, match=RECORD.id.hex()) as raised:
        walk.run()
    assert (raised.value.id, walk.now_s > 50) == (RECORD.id, True)
    assert [round(step.timeout_s) for step in walk.steps if isinstance(step, Append)] == [50, 41, 32, 23, 14, 4]


def test_an_outcome_is_asked_for_until_the_deadline():
    walk = Walk((20, WRITTEN), (30, ConsistencyTimeout("behind")), (5, ConsistencyTimeout("behind")), (1, APPLIED))
    assert walk.run() == APPLIED
    assert [step.deadline_ms for step in walk.steps if isinstance(step, Learn)] == [30_000, 9_980, 4_940]
    with pytest.raises(Unknown) as raised:
        Walk((31, WRITTEN), (29, ConsistencyTimeout("behind"))).run()
    assert (raised.value.id, raised.value.position) == (RECORD.id, WRITTEN)


@pytest.mark.parametrize("error", [Stopped("gap"), NotRetained("gone"), ServerError("odd", 500, {})])
def test_an_outcome_that_nobody_tells_is_unknown_at_once(error):
    with pytest.raises(Unknown) as raised:
        Walk((1, WRITTEN), (1, error)).run()
    assert (raised.value.position, raised.value.__cause__) == (WRITTEN, error)


def test_a_record_that_is_skipped_has_no_effect():
    with pytest.raises(WriteFailed, match="offset 41 of partition 1"):
        Walk((1, WRITTEN), (1, None)).run()


def test_both_ways_of_running_the_steps_do_the_same():
    told = []

    def append(timeout_s):
        told.append(timeout_s)
        if len(told) == 1:
            raise LOST
        return WRITTEN

    def learn(position, deadline_ms):
        return APPLIED if (position, deadline_ms <= 30_000) == (WRITTEN, True) else None

    async def append_async(timeout_s):
        return append(timeout_s)

    async def learn_async(position, deadline_ms):
        return learn(position, deadline_ms)

    assert deliver(delivery(RECORD, 60.0), append, learn) == APPLIED
    assert len(told) == 2
    told.clear()
    assert asyncio.run(deliver_async(delivery(RECORD, 60.0), append_async, learn_async)) == APPLIED
    assert len(told) == 2


def read_as_the_fold_does(record):
    sorted_out = sort_out(record.key, record.value, record.own, max_value_bytes=100, right_partition=lambda _: True)
    assert isinstance(sorted_out, KeyedRecord), sorted_out
    return sorted_out.operation, Terms.of(sorted_out.headers)


def test_records_are_those_of_the_format():
    version = put_record("k", "v", Expected(version=41), None)
    assert version.own[1:] == (("ls.if", b"version:41"),)
    assert read_as_the_fold_does(version) == ("put", Terms(version.id, Condition("version", 41)))
    absent, present = (put_record("k", "v", Expected(absent=a, present=not a), None) for a in (True, False))
    assert (absent.own[1], present.own[1]) == (("ls.if", b"absent"), ("ls.if", b"present"))
    gone = cas_record("k", "ada", None, None)
    assert gone.own[1][1] == b"value:" + bytes.fromhex("93ff3b2c3682a669691d4463952c802f")
    assert read_as_the_fold_does(gone)[0] == "delete"
    added, longer = incr_record("k", -2, None), append_record("k", "v", None)
    assert (added.value, added.own[1:]) == (b"\xff" * 7 + b"\xfe", (("ls.op", b"incr"),))
    assert [read_as_the_fold_does(one) for one in (added, longer)] == [
        ("incr", Terms(added.id)),
        ("append", Terms(longer.id)),
    ]
    assert len({one.id for one in (version, absent, present, gone, added, longer)}) == 6
    assert read_id(added.id.hex()) == added.id


def test_an_answer_that_is_no_outcome_is_an_error_of_the_server():
    told = {"outcome": "duplicate", "version": 3, "reason": None, "first": 3, "first_outcome": "applied"}
    good = orjson.dumps({**told, "partition": 1, "offset": 41, "token": WRITTEN.token})
    found = outcome_of_answer(HttpAnswer(200, {}, good, 0.0), None)
    assert (found.applied, found.version, found.first) == (True, 3, 3)
    for bad in (
        b"", b"[]", b"{}", good.replace(b"duplicate", b"done"), good.replace(b'"first":3', b'"first":null'),
        good.replace(b":41,", b':"41",'), good.replace(EPOCH.encode(), b"x"),
    ):  # fmt: skip
        with pytest.raises(ServerError):
            outcome_of_answer(HttpAnswer(200, {}, bad, 0.0), None)


def test_an_outcome_is_asked_for_at_the_owner():
    with running_node() as owner, running_node() as other, Store(url=other.url) as store:
        other.owned, other.other = set(), owner.url
        assert store.outcome_of("t", "k", b"i" * 16).applied
        path, headers = owner.seen[-1]
        assert path == f"/v1/tables/t/outcomes?key=k&id={(b'i' * 16).hex()}"
        assert headers["ls-consistency"] == "latest"
        other.other = None
        with pytest.raises(NotOwner):
            store.outcome_of("t", "other", "69" * 16, deadline_ms=50)
        for status, word, error in ((410, "not-retained", NotRetained), (409, "epoch-changed", EpochChanged)):
            owner.script.append((status, word))
            with pytest.raises(error):
                store.outcome_of("t", "k", "69" * 16)
        owner.script.append((404, "not-found"))
        assert store.outcome_of("t", "k", "69" * 16) is None
