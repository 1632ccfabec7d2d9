"""Reads over snapshots: the view wins, damage is found, and a store over snapshots reads like one without."""

import random
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import httpx
import msgpack
import pytest
from support_based import adopt, row, token
from support_wait import until

from batch.jobs.node_adoptions import adoptions_at
from logstore.model.key import to_base64url
from logstore.model.partitioner import partition_of
from logstore.view.feed.acknowledgement import MarkKey, MarkRecord, SnapshotPlace
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord, DigestRecord
from logstore.view.feed.table_records import ScheduleKey, ScheduleRecord
from tests.support_serve import Node, Reader, problem, serving, write_snapshot

SEED = 20_261_128
MSGPACK = {"Accept": "application/msgpack"}
FAST_AND_SLOW = [
    b"GET /v1/tables/t/rows/%b HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/tables/t/rows/%b? HTTP/1.1\r\nhost: x\r\n\r\n",
]


def test_the_view_wins_over_the_snapshot_and_its_tombstone_is_an_answer(one_table):
    node, reader = one_table
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
def test_both_ways_give_the_same_bytes_over_a_snapshot(one_table, key):
    node, reader = one_table
    node.put_many("t", {b"below": b"1", b"over": b"1", b"\xff": b"1", b"deleted": b"1", b"long" * 300: b"x" * 10_000})
    adopt(node, reader)
    node.put_many("t", {b"above": b"2", b"over": b"2", b"deleted": None})
    fast, slow = (
        re.sub(rb"(date|x-request-id): [^\r]*\r\n", b"", reader.raw(request % key)) for request in FAST_AND_SLOW
    )
    assert fast == slow


def test_reads_are_counted_by_where_the_entry_was(one_table):
    node, reader = one_table
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


def test_a_view_without_its_snapshot_answers_nothing(one_table):
    node, reader = one_table
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


def test_a_damaged_snapshot_is_never_answered_from_and_the_worker_is_told(one_table):
    node, reader = one_table
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


def test_what_a_point_reads_from_a_broken_block_is_a_typed_error(one_table):
    node, reader = one_table
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


def test_flips_of_generations_fail_no_request_and_cursors_go_on(one_table):
    node, reader = one_table
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


def test_snapshots_are_told_as_the_worker_tells_them(one_table):
    node, reader = one_table
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


def test_snapshots_that_are_no_longer_named_are_closed(one_table):
    node, reader = one_table
    node.put("t", b"k", b"v")
    first = adopt(node, reader, keep=0)
    assert open_files(reader, first.path)
    node.put("t", b"l", b"v")
    adopt(node, reader, keep=0)
    until("its files are closed", lambda: not open_files(reader, first.path))
    shutil.rmtree(first.path)
    assert row(reader, "k").content == b"v"


def test_a_schedule_is_told_by_the_node_that_leads_it_and_taken_back(tmp_path):
    with serving(tmp_path) as (node, reader):
        table = node.create("t", 1, schedule={"every_mutations": 100, "every_minutes": None})
        key = ScheduleKey("t", table.epoch)
        reader.wait_ready()

        def told():
            return reader.get("/v1/snapshots").json()["schedules"]

        assert told() == []
        node.publish(ScheduleKey("gone", table.epoch), ScheduleRecord(done=1))
        node.publish(key, ScheduleRecord(done=2, begun_ms=5, ended_ms=9, took_ms=4, mutations=30, snapshot_ms=9))
        (one,) = until("it is told", told)
        assert (one["table"], one["result"], one["took_ms"], one["next_mutations"]) == ("t", "done", 4, 70)
        node.publish(key, None)
        until("it is taken back", lambda: told() == [])
        node.publish(key, ScheduleRecord())
        (one,) = until("it is told again", told)
        assert (one["result"], one["mutations"], one["next_ms"], one["next_mutations"]) == (None, None, None, None)
        node.close_feed()
        until("who does not speak leads nothing", lambda: told() == [])
