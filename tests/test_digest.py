"""The digest: the same whatever the order, additive, and sensitive to every byte."""

import random

import xxhash

from logstore.model.folding.digest import Digest, digest, pair
from logstore.model.folding.entry import TOMBSTONE, VALUE, Entry

PAIRS = [(b"k%d" % n, Entry(VALUE, n, 7, b"v" * (n % 5)).encode()) for n in range(500)]


def test_golden_value():
    entry = Entry(VALUE, 1, 2, b"x").encode()
    assert pair(b"ab", entry) == xxhash.xxh3_128_intdigest(b"\0\0\0\2ab" + entry)
    assert digest([(b"ab", entry)]).hex == "e485595a88e67b25880ac534ada49ec0"


def test_order_does_not_matter_and_sets_add_up():
    shuffled = random.Random(5).sample(PAIRS, len(PAIRS))
    whole = digest(PAIRS)
    assert digest(shuffled) == whole == digest(PAIRS[:200]).plus(digest(PAIRS[200:]))
    assert whole.minus(digest(PAIRS[:200])) == digest(PAIRS[200:])
    assert whole.minus(whole) == Digest()


def test_every_single_changed_byte_changes_it():
    rng, whole = random.Random(6), digest(PAIRS)
    for _ in range(200):
        at = rng.randrange(len(PAIRS))
        key, entry = PAIRS[at]
        place, bit = rng.randrange(1, len(entry)), 1 << rng.randrange(8)
        damaged = entry[:place] + bytes([entry[place] ^ bit]) + entry[place + 1 :]
        assert digest([*PAIRS[:at], (key, damaged), *PAIRS[at + 1 :]]) != whole


def test_where_key_and_entry_part_matters():
    assert pair(b"ab", b"c") != pair(b"a", b"bc")


def test_tombstones_do_not_count():
    assert digest([*PAIRS, (b"gone", Entry(TOMBSTONE, 9, 9).encode())]) == digest(PAIRS)


def test_text_form_reads_back():
    whole = digest(PAIRS)
    assert Digest.from_hex(whole.hex, whole.entries) == whole
