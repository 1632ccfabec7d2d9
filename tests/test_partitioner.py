import base64
import json
import random
from pathlib import Path

import pytest

from logstore.log.write import librdkafka
from logstore.log.write.librdkafka import agrees_on_murmur2, placing
from logstore.model.errors import SetupError
from logstore.model.partitioner import murmur2, partition_of, partitions_of
from logstore.model.partitioning.partitioning import Partitioning

VECTORS = json.loads((Path(__file__).parent / "vectors" / "partitioner.json").read_text())["keys"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["key"][:12])
def test_keys_are_placed_as_kafkas_java_client_places_them(vector):
    key = base64.b64decode(vector["key"])
    assert murmur2(key) == vector["murmur2"]
    assert {count: partition_of(key, int(count)) for count in vector["partition"]} == vector["partition"]


@pytest.mark.parametrize("partitions", [1, 3, 4, 16, 64, 1000])
def test_many_keys_at_once_are_placed_like_one_by_one(partitions):
    keys = [base64.b64decode(vector["key"]) for vector in VECTORS] * 30
    expected = [vector["partition"][str(partitions)] for vector in VECTORS] * 30
    assert partitions_of(keys, partitions).tolist() == expected


def test_random_keys_of_every_length_are_placed_the_same_both_ways():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    seeded = random.Random(seed)
    keys = [seeded.randbytes(seeded.randrange(1, 40)) for _ in range(3000)]
    assert partitions_of(keys, 7).tolist() == [partition_of(key, 7) for key in keys]


def test_the_running_librdkafka_agrees():
    assert agrees_on_murmur2(), "the library of the wheel can be asked on this platform"


def test_a_librdkafka_that_disagrees_is_refused(monkeypatch):
    monkeypatch.setattr(
        librdkafka, "partition_of", lambda key, partitions: (partition_of(key, partitions) + 1) % partitions
    )
    with pytest.raises(SetupError, match="nothing was written"):
        agrees_on_murmur2()


def test_what_places_single_keys_quickly_gives_the_same_partitions(rng):
    place = placing(Partitioning(4))
    keys = [rng.randbytes(length) for length in (*range(1, 70), 4_096, 65_535)] + [bytes(9), b"\0a\0", b"\xff" * 17]
    for key in keys:
        for partitions in (1, 3, 4, 1_000, 2**31 - 1):
            assert place(None, key, len(key), partitions, None, None) == partition_of(key, partitions), (
                key,
                partitions,
            )
