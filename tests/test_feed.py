"""The feed: a dictionary that others see, the newest value wins."""

import contextlib
import os
import resource
import select
import socket
import threading
import time

import pytest
from support_log import until

from logstore.view.feed.acknowledgement import Acknowledgement, MarkKey, MarkRecord, WantedTick
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.server import MAX_SUBSCRIBERS, FeedServer
from logstore.view.feed.stream import FeedReader, connect
from logstore.view.feed.view_records import ViewKey, ViewRecord

MARK, LATE = MarkKey(), ViewKey("t", "e", 7)


def mark(number):
    return MarkRecord("k", number)


class Subscriber:
    """Keeps the dictionary as it was told."""

    def __init__(self, path):
        self.sock, self.reader, self.values = connect(path), FeedReader(), {}

    def hear(self, until_holds, timeout_s=90):
        deadline = time.monotonic() + timeout_s
        while not until_holds(self.values):
            assert select.select([self.sock], [], [], max(0, deadline - time.monotonic()))[0], self.values
            for key, value in self.reader.decode(self.sock.recv(1 << 16)):
                self.values.pop(key, None) if value is None else self.values.update({key: value})
        return self.values


@pytest.fixture
def subscribe():
    """Connects subscribers, and hangs up on all of them at the end."""
    connected = []

    def connect(path):
        connected.append(Subscriber(path))
        return connected[-1]

    yield connect
    for subscriber in connected:
        subscriber.sock.close()


@pytest.fixture
def server(tmp_path):
    opened = FeedServer(tmp_path / "feed")
    yield opened
    opened.close()


def test_first_the_whole_dictionary_then_every_change(server, tmp_path, subscribe):
    key = AppliedKey("e", 0)
    server.publish(MARK, mark(1))
    server.publish(key, AppliedRecord(5, 9))
    subscriber = subscribe(tmp_path / "feed")
    assert subscriber.hear(lambda values: len(values) == 2) == {MARK: mark(1), key: AppliedRecord(5, 9)}
    server.publish(key, AppliedRecord(6, 9))
    subscriber.hear(lambda values: values[key] == AppliedRecord(6, 9))
    server.publish(MARK, None)
    subscriber.hear(lambda values: MARK not in values)
    assert (server.get(MARK), server.get(key)) == (None, AppliedRecord(6, 9))


def test_two_subscribers_hear_the_same(server, tmp_path, subscribe):
    both = [subscribe(tmp_path / "feed") for _ in range(2)]
    server.publish(MARK, mark(1))
    assert [subscriber.hear(lambda values: MARK in values) for subscriber in both] == [{MARK: mark(1)}] * 2


def test_several_records_are_told_at_once(server, tmp_path, subscribe):
    subscriber = subscribe(tmp_path / "feed")
    stands = {AppliedKey("e", partition): AppliedRecord(partition, 9) for partition in range(3)}
    server.publish_all(stands)
    heard = subscriber.hear(lambda values: AppliedKey("e", 2) in values)
    assert {key: heard[key] for key in stands} == stands
    assert {key: server.get(key) for key in stands} == stands


def test_who_is_slow_gets_the_newest_and_nothing_queues_up(server, tmp_path, subscribe):
    slow = subscribe(tmp_path / "feed")
    server.publish(MARK, MarkRecord("x" * (1 << 20)))  # more than the socket takes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(20_000):
        server.publish(LATE, ViewRecord(slot=number, reason="y" * 5_000))
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    )  # kilobytes; all values together are 100 MB
    slow.hear(lambda values: values.get(LATE, ViewRecord()).slot == 19_999)


def test_acknowledgements_are_the_latest_of_who_is_there(tmp_path, subscribe):
    changes = []
    server = FeedServer(tmp_path / "feed", on_ack=lambda: changes.append(1))
    first, second = subscribe(tmp_path / "feed"), subscribe(tmp_path / "feed")
    until("both are there", lambda: server.acks() == [None, None])
    first.sock.sendall(Acknowledgement(tables=1).encode() + Acknowledgement(tables=2).encode())
    until("the newest counts", lambda: set(server.acks()) == {None, Acknowledgement(tables=2)})
    second.sock.close()
    until("who has left does not count", lambda: server.acks() == [Acknowledgement(tables=2)])
    assert changes
    server.close()


@pytest.mark.parametrize("rubbish", [b"\xc1", b"\xdd\xff\xff\xff\xff" + b"x" * 1_000_000, b"\x81\xa4mark\xa1x"])
def test_who_sends_rubbish_is_hung_up_on_and_the_others_go_on(server, tmp_path, subscribe, rubbish):
    good, bad = subscribe(tmp_path / "feed"), subscribe(tmp_path / "feed")
    until("both are there", lambda: len(server.acks()) == 2)
    bad.sock.setblocking(True)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        bad.sock.sendall(rubbish)
    until("one is left", lambda: len(server.acks()) == 1)
    server.publish(MARK, mark(1))
    good.hear(lambda values: MARK in values)
    assert subscribe(tmp_path / "feed").hear(lambda values: MARK in values) == {MARK: mark(1)}


def test_there_is_a_limit_to_subscribers(server, tmp_path, subscribe):
    for _ in range(MAX_SUBSCRIBERS):
        subscribe(tmp_path / "feed")
    until("all are there", lambda: len(server.acks()) == MAX_SUBSCRIBERS)
    late = subscribe(tmp_path / "feed")
    assert select.select([late.sock], [], [], 10)[0]
    assert late.sock.recv(1) == b""


def test_embedded_readers_do_not_count_and_leave_room_for_others(server, tmp_path, subscribe, monkeypatch):
    monkeypatch.setattr("logstore.view.feed.server.MAX_EMBEDDED", 2)
    wants = Acknowledgement(3, ticks=(WantedTick("e", 0, 7),), embedded=True)
    for _ in range(2):
        subscribe(tmp_path / "feed").sock.sendall(wants.encode())
    until("they are heard", lambda: server.demands() == [wants] * 2)
    assert server.acks() == []
    late = subscribe(tmp_path / "feed")
    late.sock.sendall(wants.encode())
    assert select.select([late.sock], [], [], 60)[0]
    assert late.sock.recv(1) == b""
    subscribe(tmp_path / "feed").sock.sendall(Acknowledgement(4, tables=1).encode())
    until("a reader is let in", lambda: server.acks() == [Acknowledgement(4, tables=1)])
    assert server.demands() == [wants, wants, Acknowledgement(4, tables=1)]


@contextlib.contextmanager
def no_descriptors():
    """Nothing more can be opened in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_who_comes_when_there_are_no_descriptors_is_let_in_later_and_the_others_go_on(
    server, tmp_path, subscribe, caplog, monkeypatch
):
    monkeypatch.setattr("logstore.view.feed.server.DEAF_S", 0.01)  # many attempts
    early = subscribe(tmp_path / "feed")
    until("one is there", lambda: len(server.acks()) == 1)
    late, folder = socket.socket(socket.AF_UNIX), os.open(tmp_path, os.O_RDONLY)
    with late:
        with no_descriptors():
            late.connect(f"/proc/self/fd/{folder}/feed")
            until("it is said", lambda: "lets nobody in" in caplog.text)
            early.sock.sendall(Acknowledgement(tables=1).encode())
            until("the other one is heard", lambda: server.acks() == [Acknowledgement(tables=1)])
        server.publish(MARK, mark(1))
        until("it is let in", lambda: len(server.acks()) == 2)
        assert FeedReader().decode(late.recv(1 << 16)) == [(MARK, mark(1))]
    os.close(folder)
    assert server.thread.is_alive()
    assert caplog.text.count("lets nobody in") == 1


def test_many_threads_publish_and_everybody_ends_up_with_the_newest(server, tmp_path, subscribe):
    subscribers = [subscribe(tmp_path / "feed") for _ in range(3)]

    def publish(name):
        for number in range(500):
            server.publish(AppliedKey(name, number % 7), None if number % 5 == 3 else AppliedRecord(number))

    threads = [threading.Thread(target=publish, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    server.publish(LATE, ViewRecord())
    for subscriber in [*subscribers, subscribe(tmp_path / "feed")]:
        assert subscriber.hear(lambda values: LATE in values) == server.snapshot()


def test_the_server_comes_back_on_the_same_path(tmp_path, subscribe):
    first = FeedServer(tmp_path / "feed")
    subscriber = subscribe(tmp_path / "feed")
    first.close()
    assert subscriber.sock.fileno() >= 0
    until("the end is heard", lambda: select.select([subscriber.sock], [], [], 0)[0])
    assert subscriber.sock.recv(10) == b""
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "feed")
    second = FeedServer(tmp_path / "feed")
    second.publish(MARK, mark(2))
    assert subscribe(tmp_path / "feed").hear(lambda values: MARK in values) == {MARK: mark(2)}
    second.close()


def test_the_path_may_be_longer_than_a_socket_name(tmp_path, subscribe):
    path = tmp_path / ("d" * 100) / ("e" * 100) / "worker-0.sock"
    server = FeedServer(path)
    server.publish(MARK, mark(1))
    assert subscribe(path).hear(lambda values: MARK in values) == {MARK: mark(1)}
    server.close()


def test_what_has_not_changed_is_not_said_again(server, tmp_path, subscribe):
    subscriber = subscribe(tmp_path / "feed")
    server.publish_changed(MARK, mark(1))
    subscriber.hear(lambda values: MARK in values)
    server.publish_changed(MARK, mark(1))
    server.publish(LATE, ViewRecord())
    heard = []
    while LATE not in dict(heard):
        heard += (
            subscriber.reader.decode(subscriber.sock.recv(1 << 16))
            if select.select([subscriber.sock], [], [], 5)[0]
            else []
        )
    assert [key for key, _ in heard] == [LATE]
