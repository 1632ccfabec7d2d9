"""Reads as of a position or a time: what is provable is answered, the rest names `restore`."""

import threading
from datetime import datetime

import pytest
from support_based import adopt, row, token
from support_wait import until

from logstore.cli import status
from logstore.client.store import Store
from logstore.client.transport.node_pages import NodePages
from logstore.model.errors import NotRetained, UsageError
from logstore.view.feed.acknowledgement import MarkKey, MarkRecord, WantedTick
from logstore.view.feed.log_records import LogKey, LogRecord
from logstore.view.feed.position_records import StoodAt, TimesKey, TimesRecord
from tests.support_serve import problem


def test_as_of_answers_what_is_provable_and_names_restore_for_the_rest(one_table):
    node, reader = one_table
    node.put_many("t", {b"a": b"1", b"b": b"1", b"doomed": b"1"})  # 0, 1, 2
    first = adopt(node, reader)
    node.put_many("t", {b"a": b"2", b"doomed": None})  # 3, 4
    second = adopt(node, reader)
    node.put("t", b"a", b"3")  # 5
    assert (first.cut, second.cut) == (3, 5)
    at = {offset: token(node, offset) for offset in range(9)}
    for offset, value in ((3, b"1"), (5, b"2"), (6, b"3")):
        assert row(reader, "a", LS_As_Of=at[offset]).content == value
    assert row(reader, "doomed", LS_As_Of=at[3]).content == b"1"  # a kept snapshot's own cut
    problem(row(reader, "doomed", LS_As_Of=at[5]), 404, "not-found")
    refused = problem(row(reader, "doomed", LS_As_Of=at[4]), 400, "bad-level")
    assert f"logstore batch restore t --at {at[4]} --as t_then" in refused["detail"]
    assert [cut["cut"] for cut in refused["cuts"]] == [5, 3]
    assert row(reader, "b", LS_As_Of=at[4]).content == b"1"  # unchanged since
    problem(row(reader, "a", LS_As_Of=at[4]), 400, "bad-level")
    problem(row(reader, "a", LS_As_Of=at[8], LS_Deadline="50"), 504, "consistency-timeout")
    assert {one["key"] for one in reader.get(f"/v1/tables/t/rows?as_of={at[3]}").json()["rows"]} == {"a", "b", "doomed"}
    assert problem(reader.get(f"/v1/tables/t/rows?as_of={at[4]}"), 400, "bad-level")["key"] == "a"
    many = {"keys": ["b", "a"]}
    assert reader.http.post(f"/v1/tables/t/rows:get?as_of={at[3]}", json=many).json()["results"][1]["value"] == "1"
    assert problem(reader.http.post(f"/v1/tables/t/rows:get?as_of={at[4]}", json=many), 400, "bad-level")["key"] == "a"


@pytest.mark.parametrize("word", ["unproved", "refused"])
def test_the_past_is_not_answered_from_a_snapshot_that_is_not_proved(one_table, word):
    node, reader = one_table
    table = node.tables["t"]
    node.put_many("t", {b"a": b"1", b"b": b"1"})  # 0, 1
    adopt(node, reader)
    node.put("t", b"a", b"2")  # 2
    newer = adopt(node, reader)
    node.put("t", b"a", b"3")  # 3
    times = (StoodAt(1, 4),)
    node.publish(TimesKey(table.epoch, 0), TimesRecord(times))
    node.put("t", b"c", b"3", at_ms=5_000)  # 4
    at = {offset: token(node, offset) for offset in range(6)}
    past, said = "1970-01-01T00:00:00.001Z", 0
    everything = {2: b"1", 3: b"2", 4: b"3"}

    def answers(as_of):
        return row(reader, "a", LS_As_Of=as_of)

    def stand(*proofs):
        nonlocal said
        said += 1
        node.say_proofs(table, 0, *proofs)
        node.publish(MarkKey(), MarkRecord("proofs", said))
        until(f"they are heard: {proofs}", lambda: [a and a.mark for a in node.acks()] == [MarkRecord("proofs", said)])

    assert {offset: answers(at[offset]).content for offset in everything} == everything
    assert answers(past).content == b"3"

    # the view's own snapshot: what is answered through it is refused, another one's own cut is not
    stand(word, "proved")
    for as_of in (at[3], at[4], at[5], past):
        document = problem(answers(as_of), 400, "bad-level")
        assert f"snapshot {newer.snapshot}, which is {word}" in document["detail"]
        assert "`logstore batch audit t`" in document["detail"]
        assert [cut["cut"] for cut in document["cuts"]] == [2]
    problem(reader.get(f"/v1/tables/t/rows?as_of={at[4]}"), 400, "bad-level")
    assert answers(at[2]).content == b"1"
    assert row(reader, "a").content == b"3"  # of now, as every page says of what

    # one beside it: its cut is as any other offset
    stand("proved", word)
    document = problem(answers(at[2]), 400, "bad-level")
    assert [cut["cut"] for cut in document["cuts"]] == [3]
    assert {offset: answers(at[offset]).content for offset in (3, 4)} == {3: b"2", 4: b"3"}

    # nobody has looked yet: to be asked again
    stand(None, None)
    problem(answers(at[4]), 503, "starting")
    stand("proved", "proved")
    assert {offset: answers(at[offset]).content for offset in everything} == everything


def test_a_view_on_its_first_way_over_a_proved_snapshot_answers_for_the_past_alone(one_table):
    node, reader = one_table
    table = node.tables["t"]
    node.put_many("t", {b"a": b"1", b"b": b"1"})  # 0, 1
    base = adopt(node, reader)
    node.put_many("t", {b"a": b"2", b"c": b"2"})  # 2, 3
    node.say_view(table, 0, "catching-up", reached=False)
    node.say_applied(table, 0, behind=6)
    until("it answers 503", lambda: row(reader, "a").status_code == 503)
    at = token(node, 2)
    for headers in ({}, {"LS-Consistency": "eventual"}, {"LS-Token": at}):
        detail = problem(row(reader, "b", **headers), 503, "starting")["detail"]
        assert f"at offset 4 of 10, 40%; rows may be missing until then, so it does not answer (as_of={at} " in detail
        assert f"what it held when snapshot {base.snapshot} was made" in detail
    problem(reader.get(f"/v1/tables/t/rows?token={at}"), 503, "starting")
    assert (row(reader, "a", LS_As_Of=at).content, row(reader, "a", LS_As_Of=token(node, 4)).content) == (b"1", b"2")
    problem(row(reader, "c", LS_As_Of=at), 404, "not-found")
    assert [one["value"] for one in reader.get(f"/v1/tables/t/rows?as_of={at}").json()["rows"]] == ["1", "1"]
    page = reader.http.post(f"/v1/tables/t/rows:get?as_of={at}", json={"keys": ["a", "c"]}).json()
    assert [one["found"] for one in page["results"]] == [True, False]
    problem(row(reader, "a", LS_As_Of=token(node, 5), LS_Deadline="50"), 504, "consistency-timeout")
    node.say_proofs(table, 0, "unproved")
    until("nothing of the past is offered", lambda: "as_of" not in row(reader, "a").json()["detail"])


@pytest.mark.parametrize(
    ("as_of", "headers", "word"),
    [
        ("2999-01-01T00:00:00Z", {}, "bad-level"),
        ("2026-01-01T00:00:00", {}, "bad-request"),
        ("2026-13-01T00:00:00Z", {}, "bad-request"),
        ("10:30", {}, "bad-request"),
        ("nonsense", {}, "bad-token"),
        ("e" * 32 + "-1-0", {}, "bad-token"),
        ("2026-01-01T00:00:00Z", {"LS-Consistency": "eventual"}, "bad-request"),
        ("2026-01-01T00:00:00Z", {"LS-Token": "e" * 32 + "-0-0"}, "bad-request"),
    ],
)
def test_points_that_cannot_be(one_table, as_of, headers, word):
    node, reader = one_table
    as_of = as_of.replace("e" * 32, node.tables["t"].epoch)
    problem(row(reader, "k", **{"LS-As-Of": as_of, **headers}), 400, word)


def test_times_are_answered_as_far_as_they_can_be_proved(one_table):
    node, reader = one_table
    node.put_many("t", {b"a": b"1", b"b": b"1"})  # the log time of the tests is 1 ms
    adopt(node, reader)
    node.put("t", b"b", b"2")
    past, before = "1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.000Z"
    # perhaps the log holds more of that time, whatever any clock but the broker's says
    problem(row(reader, "b", LS_As_Of=past, LS_Deadline="100"), 504, "consistency-timeout")
    where = (node.tables["t"].epoch, 0)
    node.publish(TimesKey(*where), TimesRecord((StoodAt(1, node.views[where].next_offset),)))
    node.put("t", b"c", b"3", at_ms=5_000)
    assert row(reader, "b", LS_As_Of=past).content == b"2"  # log time has gone beyond it, and nothing else came between
    node.publish(LogKey(), LogRecord(reachable=False))
    until("the log is away", lambda: reader.get("/v1/cluster").json()["log"]["reachable"] is False)
    problem(row(reader, "b", LS_As_Of="1970-01-01T00:00:05Z"), 503, "log-unreachable")
    problem(row(reader, "c", LS_As_Of=past), 400, "bad-level")
    assert row(reader, "a", LS_As_Of="1970-01-01T02:00:00.001+02:00").content == b"1"
    problem(row(reader, "a", LS_As_Of=before), 400, "bad-level")
    problem(row(reader, "never", LS_As_Of=before), 400, "bad-level")


def test_a_time_is_waited_for_until_a_record_with_a_later_one_was_applied(one_table):
    node, reader = one_table
    node.put("t", b"a", b"1")
    where = (node.tables["t"].epoch, 0)

    def answer_tick():
        until("it asks", lambda: (WantedTick(*where, 8_000),) in [ack and ack.ticks for ack in node.acks()])
        node.put("t", b"a", b"2", at_ms=7_000)
        node.publish(TimesKey(*where), TimesRecord((StoodAt(7_000, node.views[where].next_offset),)))
        node.url = "http://told-behind-it"  # as in a node, where the tick comes back from Kafka, the reader knows first
        node.publish_nodes()
        until("the place is known", lambda: reader.get("/v1/cluster").json()["nodes"][0]["url"] == node.url)
        node.put("t", b"other", b"3", at_ms=9_000)

    later = threading.Thread(target=answer_tick)
    later.start()
    answer = row(reader, "a", LS_As_Of="1970-01-01T00:00:08Z", LS_Deadline="20000")
    later.join()
    assert (answer.status_code, answer.content) == (200, b"2")
    until("nobody asks", lambda: all(not (ack and ack.ticks) for ack in node.acks()))


def test_the_client_asks_for_the_past_and_status_shows_the_base(one_table):
    node, reader = one_table
    node.put("t", b"a", b"1")
    base = adopt(node, reader)
    node.put_many("t", {b"a": b"2"})
    node.put_many("t", {b"a": b"3"})
    with Store(url=reader.url) as client:
        found = client.get("t", "a", as_of=token(node, 1))
        assert (found.value, found.source) == (b"1", "snapshot")
        assert [one.value for one in client.scan("t", as_of=token(node, 1))] == [b"1"]
        assert client.get_many("t", ["a"], as_of=token(node, 3))[0].value == b"3"
        with pytest.raises(NotRetained, match="logstore batch restore t --at"):
            client.get("t", "a", as_of=token(node, 2))
        with pytest.raises(UsageError, match="not both"):
            client.get("t", "a", after=token(node, 1), as_of=token(node, 1))
        with pytest.raises(UsageError, match="time zone"):
            client.get("t", "a", as_of=datetime(2026, 1, 1))
    node.url = reader.url
    node.publish_nodes()
    until("the node's address is told", lambda: reader.get("/v1/cluster").json()["nodes"][0]["url"] == reader.url)
    with NodePages(10.0) as pages:
        (row,) = status.gather(pages, reader.url)["partitions"]
    assert (row["base"], row["snapshot"]["state"]) == (
        {"snapshot": base.snapshot, "cut": 1, "proof": "proved"},
        "adopted",
    )
