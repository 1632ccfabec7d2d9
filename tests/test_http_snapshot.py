import random
import re
import shutil
import threading
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import msgpack
import pytest
from support_wait import until

from batch.jobs.node_adoptions import adoptions_at
from logstore.cli import status
from logstore.client.store import Store
from logstore.model.errors import NotRetained, UsageError
from logstore.model.key import to_base64url
from logstore.model.partitioner import partition_of
from logstore.view.feed_records import (
    AdoptionKey,
    AdoptionRecord,
    DigestRecord,
    LocalSnapshotRecord,
    LogKey,
    LogRecord,
    MarkKey,
    MarkRecord,
    SnapshotPlace,
    StoodAt,
    TimesKey,
    TimesRecord,
    WantedTick,
)
from tests.support_serve import Node, Reader, problem, serving, write_snapshot

SEED = 20_261_128
MSGPACK = {"Accept": "application/msgpack"}
FAST_AND_SLOW = [
    b"GET /v1/tables/t/rows/%b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/tables/t/rows/%b? HTTP/1.1\r\nhost: x\r\n\r\n",
]


@pytest.fixture
def store(tmp_path):
    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        reader.wait_ready()
        yield node, reader


def adopt(node: Node, reader: Reader, name: str = "t", partition: int = 0, keep: int = 1) -> LocalSnapshotRecord:
    """Adopt a snapshot and wait until the reader answers from it."""
    base = node.adopt(name, partition, keep)
    shown = {"snapshot": base.snapshot, "cut": base.cut, "proof": "proved"}
    until("the base is served", lambda: base_of(reader, name, partition) == shown)
    return base


def base_of(reader: Reader, name: str, partition: int) -> object:
    rows = reader.get("/v1/partitions").json()["partitions"]
    return next(row["base"] for row in rows if (row["table"], row["partition"]) == (name, partition))


def row(reader: Reader, key: str, **headers: str) -> httpx.Response:
    return reader.get(
        f"/v1/tables/t/rows/{key}", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def token(node: Node, offset: int, name: str = "t", partition: int = 0) -> str:
    return f"{node.tables[name].epoch}-{partition}-{offset}"


def test_the_view_wins_over_the_snapshot_and_its_tombstone_is_an_answer(store):
    node, reader = store
    node.put_many("t", {b"old": b"1", b"changed": b"1", b"gone": b"1"})
    adopt(node, reader)
    node.put_many("t", {b"changed": b"2", b"gone": None, b"new": b"2"})
    for key, value, source in (("old", b"1", "snapshot"), ("changed", b"2", "view"), ("new", b"2", "view")):
        answer = row(reader, key)
        assert (answer.content, answer.headers["ls-source"]) == (value, source)
        assert answer.headers["ls-applied"] == "6"
    assert problem(row(reader, "gone"), 404, "not-found")["deleted"] is True
    assert "deleted" not in problem(row(reader, "never"), 404, "not-found")
    etag = row(reader, "old").headers["etag"]
    assert row(reader, "old", If_None_Match=etag).status_code == 304
    assert reader.http.head("/v1/tables/t/rows/old").headers["ls-source"] == "snapshot"


@pytest.mark.parametrize("key", [b"below", b"above", b"over", b"%FF", b"absent", b"deleted", b"long" * 300])
def test_both_ways_give_the_same_bytes_over_a_snapshot(store, key):
    node, reader = store
    node.put_many("t", {b"below": b"1", b"over": b"1", b"\xff": b"1", b"deleted": b"1", b"long" * 300: b"x" * 10_000})
    adopt(node, reader)
    node.put_many("t", {b"above": b"2", b"over": b"2", b"deleted": None})
    fast, slow = (
        re.sub(rb"(date|x-request-id): [^\r]*\r\n", b"", reader.raw(request % key)) for request in FAST_AND_SLOW
    )
    assert fast == slow


def test_reads_are_counted_by_where_the_entry_was(store):
    node, reader = store
    node.put("t", b"below", b"1")
    adopt(node, reader)
    node.put("t", b"above", b"1")
    for request in FAST_AND_SLOW:
        for key in (b"below", b"below", b"above"):
            reader.raw(request % key)
    text = reader.get("/metrics").text
    assert re.search(r'logstore_reads_total\{reader="0",source="snapshot"\} 4.0', text)
    assert re.search(r'logstore_reads_total\{reader="0",source="view"\} 2.0', text)
    for name, value in (("cut", 1.0), ("adopted", 1.0), ("refused", 0.0), ("fetched_bytes", 0.0)):
        assert f'logstore_snapshot_{name}{{partition="0",table="t"}} {value}' in text


def test_a_view_without_its_snapshot_answers_nothing(store):
    node, reader = store
    table = node.tables["t"]
    node.put("t", b"below", b"1")
    base = adopt(node, reader)
    node.put("t", b"above", b"1")
    wrong = [
        None,
        base._replace(path=None),
        base._replace(path=f"{base.path}-absent"),
        base._replace(snapshot="another"),
    ]
    for said in wrong:
        node.bases[table.epoch, 0] = [said]
        node.say_view(table, 0)
        until("it answers 503", lambda: row(reader, "above").status_code == 503)
        for key in ("above", "below", "never"):
            assert (
                "snapshot" in problem(row(reader, key), 503, "starting")["detail"]
                or "SSTables" in row(reader, key).text
            )
        problem(reader.get("/v1/tables/t/rows"), 503, "starting")
        node.bases[table.epoch, 0] = [base]
        node.say_view(table, 0)
        until("it answers 200", lambda: row(reader, "below").status_code == 200)


def flip_bytes(directory: Path) -> None:
    """Damage the data blocks of the SSTables, and leave what opening reads."""
    for file in directory.glob("*.sst"):
        raw = bytearray(file.read_bytes())
        for place in range(0, len(raw) * 3 // 5, 97):
            raw[place] ^= 0x55
        file.unlink()  # a hard link elsewhere keeps its bytes
        file.write_bytes(raw)


def stopped(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and answer.json()["type"] == "urn:logstore:partition-stopped"


def test_a_damaged_snapshot_is_never_answered_from_and_the_worker_is_told(store):
    node, reader = store
    source = random.Random(SEED)
    rows = {b"%05d" % i: source.randbytes(200) for i in range(2_000)}
    node.put_many("t", rows)
    sound = node.entries("t", 0)
    node.bases.clear()
    base = node.adopt("t", 0)
    reader.kill()
    flip_bytes(Path(base.path))
    reader.start()
    reader.wait_listening()
    until("the partition is stopped", lambda: stopped(row(reader, "00000")))
    node.put("t", b"00001", b"newer")
    answers = {key: row(reader, key.decode()) for key in list(rows)[::50]}
    assert all(answer.content == rows[key] for key, answer in answers.items() if answer.status_code == 200)
    assert any(answer.status_code == 503 for answer in answers.values())
    wanted = SnapshotPlace("t", node.tables["t"].epoch, 0, base.snapshot)
    until("the damage is reported", lambda: any(ack and wanted in ack.damaged for ack in node.acks()))
    again = write_snapshot(Path(f"{base.path}~2"), sound)
    node.bases[node.tables["t"].epoch, 0] = [base._replace(path=str(again))]
    node.say_view(node.tables["t"], 0)
    until("it answers 200", lambda: row(reader, "00000").status_code == 200)
    assert row(reader, "00001").content == b"newer"
    assert row(reader, "00050").content == rows[b"00050"]
    until(
        "the damage is reported",
        lambda: [ack.damaged for ack in node.acks() if ack] == [()] or node.publish(MarkKey(), MarkRecord("r", 1)),
    )


def test_what_a_point_reads_from_a_broken_block_is_a_typed_error(store):
    node, reader = store
    source = random.Random(SEED)
    rows = {b"%05d" % i: source.randbytes(400) for i in range(3_000)}
    node.put_many("t", rows)
    base = adopt(node, reader)
    file = next(Path(base.path).glob("*.sst"))
    with file.open("r+b") as raw:  # under the open reader: nothing of it is in its cache yet
        for place in range(0, file.stat().st_size // 2, 61):
            raw.seek(place)
            raw.write(b"\xaa")
    answers = {key: row(reader, key.decode()) for key in list(rows)[:1_000:25]}
    bad = [answer for answer in answers.values() if answer.status_code != 200]
    assert bad
    for answer in bad:
        document = problem(answer, 503, "partition-stopped")
        assert "logstore snapshot verify t" in document["detail"]
        assert document["snapshot"] == base.snapshot
    problem(reader.get("/v1/tables/t/rows"), 503, "partition-stopped")
    many = reader.http.post("/v1/tables/t/rows:get", json={"keys": ["00000"]}).json()
    assert [one["reason"] for one in many["unprocessed"]] == ["partition-stopped"]
    until("the damage is reported", lambda: any(ack and ack.damaged for ack in node.acks()))


def test_flips_of_generations_fail_no_request_and_cursors_go_on(store):
    node, reader = store
    rows = {b"%04d" % i: b"%d" % i for i in range(600)}
    node.put_many("t", rows)
    found, cursor, flips = [], None, 0
    while True:
        answer = reader.get(
            "/v1/tables/t/rows", params={"limit": 37, **({"cursor": cursor} if cursor else {})}, headers=MSGPACK
        )
        assert answer.status_code == 200, answer.text
        page = msgpack.unpackb(answer.content)
        found += [(one["key"], one["value"]) for one in page["rows"]]
        cursor = page["cursor"]
        if cursor is None:
            break
        if flips < 4:
            node.adopt("t", 0)
            flips += 1
        if flips == 2:
            reader.restart()
            reader.wait_ready()
        assert row(reader, "0001").content == b"1"
    assert found == sorted(rows.items())
    assert flips == 4


def test_snapshots_are_told_as_the_worker_tells_them(store):
    node, reader = store
    node.put("t", b"k", b"v")
    assert reader.get("/v1/snapshots").json()["snapshots"][0]["state"] == "none"
    base = adopt(node, reader)
    epoch = node.tables["t"].epoch
    shown = reader.get("/v1/snapshots").json()["snapshots"]
    assert [(one["table"], one["epoch"], one["partition"], one["base"], one["cut"], one["state"]) for one in shown] == [
        ("t", epoch, 0, base.snapshot, 1, "adopted")
    ]
    digests = (DigestRecord(1, "ab" * 16, 1),)
    said = AdoptionRecord(base.snapshot, 1, "x", "refused", "digests differ", 5, 9, digests, "proved")
    node.publish(AdoptionKey("t", epoch, 0), said)
    until("the snapshot is refused", lambda: reader.get("/v1/snapshots").json()["snapshots"][0]["state"] == "refused")
    (one,) = reader.get("/v1/snapshots").json()["snapshots"]
    assert one == {
        "table": "t",
        "epoch": epoch,
        "partition": 0,
        **{name: value for name, value in said._asdict().items() if name != "local"},
        "digests": [{"cut": 1, "digest": "ab" * 16, "entries": 1}],
        "proof": "proved",
    }
    assert adoptions_at(reader.url, node.tables["t"]) == {0: said}  # as batch jobs read the page
    assert adoptions_at(f"{reader.url}/absent", node.tables["t"]) == {}
    assert 'logstore_snapshot_refused{partition="0",table="t"} 1.0' in reader.get("/metrics").text


def test_as_of_answers_what_is_provable_and_names_restore_for_the_rest(store):
    node, reader = store
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
def test_the_past_is_not_answered_from_a_snapshot_that_is_not_proved(store, word):
    node, reader = store
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


def test_a_view_on_its_first_way_over_a_proved_snapshot_answers_for_the_past_alone(store):
    node, reader = store
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
def test_points_that_cannot_be(store, as_of, headers, word):
    node, reader = store
    as_of = as_of.replace("e" * 32, node.tables["t"].epoch)
    problem(row(reader, "k", **{"LS-As-Of": as_of, **headers}), 400, word)


def test_times_are_answered_as_far_as_they_can_be_proved(store):
    node, reader = store
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


def test_a_time_is_waited_for_until_a_record_with_a_later_one_was_applied(store):
    node, reader = store
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


def test_the_client_asks_for_the_past_and_status_shows_the_base(store):
    node, reader = store
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
    (row,) = status.gather(reader.http, reader.url)["partitions"]
    assert (row["base"], row["snapshot"]["state"]) == (
        {"snapshot": base.snapshot, "cut": 1, "proof": "proved"},
        "adopted",
    )


def history(node: Node, reader: Reader, source: random.Random) -> list[tuple[int, bytes, bytes | None]]:
    """Write the same log to "flat" and "deep", and put snapshots under the latter.

    Returns (partition, key, value) of each mutation.
    """
    stems = [b"", b"a", b"ab", b"\xff", b"x" * 495, b"y" * 600]
    keys = sorted({source.choice(stems) + source.randbytes(source.randrange(3)) for _ in range(250)} - {b""})
    log = []
    for _ in range(6):
        for key in source.choices(keys, k=source.randrange(30, 120)):
            value = None if source.random() < 0.3 else source.randbytes(source.randrange(30))
            for name in ("flat", "deep"):
                node.put_many(name, {key: value})
            log.append((partition_of(key, 2), key, value))
        if source.random() < 0.8:
            adopt(node, reader, "deep", source.randrange(2), keep=3)
    return log


def list_of(reader: Reader, name: str, **params: object) -> list[dict]:
    found, cursor = [], None
    while True:
        answer = reader.get(
            f"/v1/tables/{name}/rows", params={**params, **({"cursor": cursor} if cursor else {})}, headers=MSGPACK
        )
        assert answer.status_code == 200, answer.text
        page = msgpack.unpackb(answer.content)
        found += page["rows"]
        cursor = page["cursor"]
        if cursor is None:
            return found


def values_of(reader: Reader, name: str, keys: list[bytes]) -> list[tuple]:
    """What a multi-get says.

    A row that was deleted below a snapshot's cut has left no tombstone, so those are not compared.
    """
    headers = {**MSGPACK, "Content-Type": "application/msgpack"}
    answer = reader.http.post(f"/v1/tables/{name}/rows:get", content=msgpack.packb({"keys": keys}), headers=headers)
    return [
        (one["key"], one["found"], one.get("value"), one["found"] and one["version"])
        for one in msgpack.unpackb(answer.content)["results"]
    ]


def test_a_store_over_snapshots_reads_like_one_without(tmp_path):
    print("seed", SEED)
    source = random.Random(SEED)
    with serving(tmp_path) as (node, reader):
        for name in ("flat", "deep"):
            node.create(name, 2)
        reader.wait_ready()
        log = history(node, reader, source)
        keys = sorted({key for _, key, _ in log})
        for _ in range(40):
            low, high = sorted(source.sample(keys, 2))
            params = {"limit": source.choice([3, 7, 50, 1000]), "reverse": str(source.random() < 0.5).lower()}
            if source.random() < 0.7:
                params |= {"key_encoding": "base64url", "start": to_base64url(low), "end": to_base64url(high)}
            assert list_of(reader, "deep", **params) == list_of(reader, "flat", **params)
        asked = [*keys[::2], b"never"]
        assert values_of(reader, "deep", asked) == values_of(reader, "flat", asked)
        for key in keys[::5]:
            deep, flat = (reader.get(f"/v1/tables/{name}/rows/{quote(key, safe='')}") for name in ("deep", "flat"))
            assert deep.status_code == flat.status_code
            assert flat.status_code == 404 or deep.content == flat.content
        check_the_past(node, reader, log, keys, source)


def check_the_past(node: Node, reader: Reader, log: list, keys: list[bytes], source: random.Random) -> None:
    """Whatever is answered about a position is what the log says; a retained cut is always answered."""
    told = {True: 0, False: 0}
    for _ in range(400):
        key = source.choice(keys)
        partition = partition_of(key, 2)
        mine = [(k, v) for p, k, v in log if p == partition]
        cuts = [base.cut for base in node.bases.get((node.tables["deep"].epoch, partition), [])]
        at = source.choice([*cuts, source.randrange(len(mine) + 1)])
        expected = None
        for k, v in mine[:at]:
            expected = v if k == key else expected
        answer = reader.get(
            f"/v1/tables/deep/rows/{quote(key, safe='')}", headers={"LS-As-Of": token(node, at, "deep", partition)}
        )
        told[answer.status_code != 400] += 1
        if answer.status_code == 400:
            assert at not in cuts
            problem(answer, 400, "bad-level")
        else:
            assert (answer.content if answer.status_code == 200 else None) == expected, (key, at, cuts)
    assert told[True] > 100
    assert told[False] > 10


def open_files(reader: Reader, below: str) -> list[str]:
    links = [str(link.resolve()) for link in Path(f"/proc/{reader.process.pid}/fd").iterdir()]
    return [link for link in links if link.startswith(below)]


def test_snapshots_that_are_no_longer_named_are_closed(store):
    node, reader = store
    node.put("t", b"k", b"v")
    first = adopt(node, reader, keep=0)
    assert open_files(reader, first.path)
    node.put("t", b"l", b"v")
    adopt(node, reader, keep=0)
    until("its files are closed", lambda: not open_files(reader, first.path))
    shutil.rmtree(first.path)
    assert row(reader, "k").content == b"v"
