import asyncio
import random
import time

import pytest

from logstore.model.errors import SetupError
from logstore.serve.protocol import Stall
from logstore.serve.read.encoding import EncodedRow
from logstore.serve.read.page_merge import PagePart, merge
from logstore.serve.read.parameters import cursor
from logstore.serve.settings import check_bind
from logstore.serve.state.waiters import Waiters
from logstore.serve.wire import media_types
from logstore.serve.wire.one_write import OneWrite
from logstore.serve.wire.problems import WORDS, Problem

SEED = 77


@pytest.mark.parametrize(("accept", "chosen"), [
    (None, "a/x"), ("", "a/x"), ("*/*", "a/x"), ("a/y", "a/y"), ("a/y, a/x;q=0.5", "a/y"), ("a/*", "a/x"),
    ("a/x;q=0, */*", "a/y"),
    ("b/b", None), ("a/x;q=0", None), ("A/Y", "a/y"), ("a/y;q=nonsense", None), ("*/*;q=0.1, a/y;q=0.2", "a/y"),
])  # fmt: skip
def test_the_best_accepted_offer_is_chosen(accept, chosen):
    assert media_types.choose(accept, ("a/x", "a/y")) == chosen


def test_a_cursor_carries_its_key_and_its_query():
    digest = cursor.query_digest("e", b"a", None, False)
    for key in (b"\x00", b"k", b"\xff" * 65_535):
        assert cursor.read(cursor.encode(key, digest), digest) == key
    with pytest.raises(Problem) as refused:
        cursor.read(cursor.encode(b"k", digest), cursor.query_digest("e", b"b", None, False))
    assert refused.value.word == "bad-cursor"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_is_served_without_a_word(host):
    check_bind(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_machines_only_when_it_is_meant(host):
    with pytest.raises(SetupError, match="--insecure"):
        check_bind(host, insecure=False)
    check_bind(host, insecure=True)


def test_every_problem_has_its_status():
    for word, (status, title) in WORDS.items():
        assert 400 <= status < 600 or (word, status) == ("siblings", 300)
        document = Problem(word, "detail").document()
        assert (document["status"], document["title"]) == (status, title)


@pytest.mark.parametrize("reverse", [False, True])
def test_merged_parts_are_the_sorted_rows_as_far_as_all_have_looked(reverse):
    print("seed", SEED)
    source = random.Random(SEED)
    for _ in range(200):
        limit = source.randrange(1, 12)
        keys = sorted((b"%03d" % i for i in source.sample(range(1000), 30)), reverse=reverse)
        homes = {key: source.randrange(3) for key in keys}
        parts = []
        for p in range(3):
            mine = [key for key in keys if homes[key] == p]
            rows = [EncodedRow(key, b"v", 1, p) for key in mine[:limit]]
            parts.append(PagePart(rows, rows[-1].key if len(mine) > limit else None, {p: 1}))
        merged = merge(parts, limit=limit, reverse=reverse)
        assert [row.key for row in merged.rows] == keys[: len(merged.rows)]
        assert len(merged.rows) == min(limit, len(keys))
        assert merged.through == merged.rows[-1].key
        assert merged.positions == {0: 1, 1: 1, 2: 1}


def test_a_part_that_looked_less_far_shortens_the_page():
    here = PagePart([EncodedRow(b"a", b"", 1, 0), EncodedRow(b"z", b"", 1, 0)], None, {0: 2})
    there = PagePart([], b"m", {1: 2})  # only graves so far
    assert merge([here, there], limit=10, reverse=False) == PagePart([EncodedRow(b"a", b"", 1, 0)], b"m", {0: 2, 1: 2})


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 90))


def test_waiters_wake_in_the_order_of_their_offsets():
    async def story():
        waiters, woken = Waiters(100), []

        async def one(offset: int) -> None:
            assert await waiters.wait("p", offset, asyncio.get_running_loop().time() + 10)
            woken.append(offset)

        tasks = [asyncio.create_task(one(offset)) for offset in (5, 1, 3, 3, 9)]
        await asyncio.sleep(0)
        for reached, expected in ((2, [1]), (3, [1, 3, 3]), (3, [1, 3, 3]), (4, [1, 3, 3]), (5, [1, 3, 3, 5])):
            waiters.reached("p", reached)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert woken == expected
        waiters.wake("p")
        await asyncio.gather(*tasks)
        assert waiters.count == 0

    run(story())


def test_waiters_that_gave_up_leave_nothing_behind():
    async def story():
        waiters = Waiters(1_000)
        deadline = asyncio.get_running_loop().time() + 0.05
        assert not any(await asyncio.gather(*(waiters.wait("p", offset, deadline) for offset in range(500))))
        cancelled = [asyncio.create_task(waiters.wait("q", 1, deadline + 10)) for _ in range(200)]
        await asyncio.sleep(0)
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        assert waiters.count == 0
        assert waiters._queues == {}

    began = time.monotonic()
    run(story())
    assert time.monotonic() - began < 60


def test_too_many_waiters_are_refused_and_a_closed_place_takes_none():
    async def story():
        waiters = Waiters(1)
        deadline = asyncio.get_running_loop().time() + 10
        first = asyncio.create_task(waiters.wait("p", 1, deadline))
        await asyncio.sleep(0)
        with pytest.raises(Problem) as full:
            await waiters.wait("p", 1, deadline)
        assert (full.value.word, full.value.status) == ("overloaded", 429)
        waiters.close()
        assert await first
        with pytest.raises(Problem) as closed:
            await waiters.wait("p", 1, deadline)
        assert (closed.value.word, closed.value.status) == ("overloaded", 503)

    run(story())


def test_only_a_client_that_reads_nothing_at_all_is_stalled():
    stall = Stall()
    assert stall.look(0.0, 10_000, waits=False) == 0.0
    slow = [stall.look(float(second), 1_000_000 - second, waits=True) for second in range(1, 100)]
    assert slow == [0.0] * 99  # a byte a second is slow, and goes on
    assert [stall.look(float(second), 999_901, waits=True) for second in (100, 110, 131)] == [1.0, 11.0, 32.0]
    assert stall.look(132.0, 999_900, waits=True) == 0.0
    assert stall.look(140.0, 500, waits=False) == 0.0
    assert stall.look(150.0, 900_000, waits=True) == 0.0  # the next answer


class Written:
    """A transport that notes what is written at once."""

    def __init__(self):
        self.writes, self.closed = [], False

    def write(self, data):
        assert not self.closed
        self.writes.append(data)

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed


def test_the_head_of_an_answer_leaves_with_its_body():
    written = Written()
    answer = OneWrite(written)
    answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    answer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert written.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    answer.write(b"body")
    answer.write(b"more")
    answer.flush()
    assert written.writes[1:] == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]


@pytest.mark.parametrize("end", [OneWrite.flush, OneWrite.close])
def test_a_head_without_a_body_leaves_at_the_end(end):
    written = Written()
    answer = OneWrite(written)
    answer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert written.writes == []
    end(answer)
    answer.flush()
    assert (written.writes, answer.is_closing()) == ([b"HTTP/1.1 200 OK\r\n\r\n"], end is OneWrite.close)
