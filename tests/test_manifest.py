"""The manifest's bytes, and that damage to any of them is found."""

import random
from dataclasses import replace

import orjson
import pytest
from xxhash import xxh3_128_hexdigest

from logstore.model.errors import Corrupted
from logstore.snapshot.manifest import DECISIONS, FileFacts, Manifest, PartFacts, levels_of

EPOCH = "ab" * 16
LAST = "6-" + "2" * 32
MADE = Manifest(
    "00000000000001-aaaaaaaa", "t", "topic", EPOCH, 1, 100, "compact", None, 1, 2, "job", "1.0",
    {0: PartFacts(7, 5, 3, "0" * 32, {"null-key": 1}, [(2, "null-key")], 3, LAST)},
    [FileFacts(0, "00000000000001-aaaaaaaa/p00000-00000.sst", 3, 900, b"a", b"\xff", "1" * 32)],
)  # fmt: skip
GOLDEN = (
    b'{"build":"1.0","checksum":"CHECKSUM","created_ms":1,"entry_format":1,"epoch":"abababababababababababababababab","files":[{"checksum":'
    b'"11111111111111111111111111111111","entries":3,"first_key":"YQ==","last_key":"/w==","level":0,"partition":0,"path":'
    b'"00000000000001-aaaaaaaa/p00000-00000.sst","size_bytes":900}],"format":2,"job":"job","kind":"compact","max_value_bytes":100,"name":'
    b'"00000000000001-aaaaaaaa","parent":null,"partitions":1,"parts":{"0":{"cut":7,"digest":"00000000000000000000000000000000","entries":3,'
    b'"last":"6-22222222222222222222222222222222","leader_epoch":3,"log_time_ms":5,"quarantine_counts":{"null-key":1},"quarantine_records":[[2,"null-key"]]}},"sst_format":5,"table":"t","topic":"topic",'
    b'"verified_ms":2}'
)


def test_golden_bytes():
    raw = MADE.to_json()
    at = raw.index(b'"checksum":"') + 12
    assert raw[:at] + b"CHECKSUM" + raw[at + 32 :] == GOLDEN


def test_a_partition_with_outcomes_names_their_file_apart_from_those_of_its_rows():
    facts = FileFacts(0, "s/p00000-d.sst", 2, 90, b"\3a", b"\4b", "3" * 32, kind=DECISIONS)
    part = MADE.parts[0]._replace(counter=9, decisions=2, rows_digest="4" * 32)
    made = replace(MADE, parts={0: part}, files=[facts, *MADE.files])
    raw = made.to_json()
    assert raw.count(b'"kind":"decisions"') == 1
    assert b'"counter":9,"cut":7,"decisions":2,' in raw
    read = Manifest.from_json(raw)
    assert read == made
    assert (read.files_of(0), read.decisions_of(0)) == (MADE.files, facts)
    assert read.all_files_of(0) == [*MADE.files, facts]
    assert (part.rows.hex, MADE.parts[0].rows.hex) == ("4" * 32, "0" * 32)
    assert MADE.decisions_of(0) is None
    with pytest.raises(Corrupted, match="upgrade"):
        Manifest.from_json(replace(made, files=[facts._replace(kind="history")]).to_json())


def test_it_reads_back_the_same():
    assert Manifest.from_json(MADE.to_json()) == MADE
    assert MADE.position.token == f"{EPOCH}-0-7"


def test_a_manifest_of_the_first_format_still_reads():
    older = replace(MADE, parts={0: MADE.parts[0]._replace(leader_epoch=-1, last="")}, format=1)
    fields = orjson.loads(older.to_json())
    del fields["checksum"], fields["parts"]["0"]["leader_epoch"], fields["parts"]["0"]["last"]
    del fields["files"][0]["level"]
    bare = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    raw = orjson.dumps({**fields, "checksum": xxh3_128_hexdigest(bare)}, option=orjson.OPT_SORT_KEYS)
    assert Manifest.from_json(raw) == older


def test_files_are_ordered_by_level_and_then_by_key():
    facts = MADE.files[0]
    files = [facts._replace(level=level, first_key=key) for level, key in ((2, b"a"), (0, b"m"), (1, b"z"), (0, b"b"))]
    made = replace(MADE, files=[*files, facts._replace(partition=1)])
    assert [(one.level, one.first_key) for one in made.files_of(0)] == [(0, b"b"), (0, b"m"), (1, b"z"), (2, b"a")]
    assert [len(level) for level in levels_of(files)] == [2, 1, 1]


def test_a_flipped_bit_or_a_missing_end_is_found():
    raw, rng = MADE.to_json(), random.Random(3)
    for _ in range(300):
        at, bit = rng.randrange(len(raw)), 1 << rng.randrange(8)
        with pytest.raises(Corrupted):
            Manifest.from_json(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
        with pytest.raises(Corrupted):
            Manifest.from_json(raw[:at])
