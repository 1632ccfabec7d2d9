"""Verdicts: whose word counts, what an agreement is worth, and what is left when files or snapshots are gone."""

import pytest

from logstore.model.errors import SnapshotRefused
from logstore.snapshot.storage import Storage
from logstore.snapshot.verdicts import (
    AGREE,
    AUDIT,
    AUDITOR,
    CONSISTENT,
    FROM_LOG,
    PIN,
    PROVED,
    REFUSE,
    REFUSED,
    UNPROVED,
    Verdict,
    Verdicts,
)

ROOT = "t/" + "0" * 32 + "/snapshots"


@pytest.fixture
def storage(tmp_path):
    return Storage(f"file://{tmp_path}/storage")


def say(storage, snapshot, judge, word, root=FROM_LOG, partition=0):
    how = AUDIT if judge == AUDITOR else PIN
    Verdicts(storage, ROOT).say(snapshot, judge, {partition: Verdict(word, "0" * 32, 7, 100, how, root)})


def standing(storage, snapshot, partition=0, origin=None):
    return Verdicts(storage, ROOT, origin).proof(snapshot, partition).word


def test_the_bytes_of_a_verdict(storage):
    say(storage, "s1", "0123456789ab", AGREE)
    say(storage, "s1", "0123456789ab", REFUSE, "s0", partition=3)
    assert storage.read(f"{ROOT}/_VERDICTS/s1/0123456789ab.json") == (
        b'{"snapshot":"s1","judge":"0123456789ab","parts":{'
        b'"0":{"word":"agree","digest":"00000000000000000000000000000000","entries":7,"cut":100,"how":"pin","root":""},'
        b'"3":{"word":"refuse","digest":"00000000000000000000000000000000","entries":7,"cut":100,"how":"pin","root":"s0"}},'
        b'"checksum":"e240f58f01e914598e220472c3f13ed6"}'
    )


def test_without_a_word_nothing_is_proved(storage):
    assert standing(storage, "s1") == UNPROVED


def test_of_nodes_one_that_refuses_outweighs_all_that_agree_and_an_audit_settles_it(storage):
    say(storage, "s1", "a", AGREE)
    assert standing(storage, "s1") == PROVED
    assert standing(storage, "s1", partition=1) == UNPROVED
    say(storage, "s1", "b", REFUSE)
    assert standing(storage, "s1") == REFUSED
    with pytest.raises(
        SnapshotRefused, match=r"node a agrees .*; node b refuses it .*`logstore batch audit t --explain`"
    ):
        Verdicts(storage, ROOT).check("s1", [0], "t", "read")
    say(storage, "s1", AUDITOR, AGREE)
    assert standing(storage, "s1") == PROVED
    say(storage, "s1", AUDITOR, REFUSE)
    assert standing(storage, "s1") == REFUSED


def test_an_agreement_is_worth_what_its_root_is_worth(storage):
    say(storage, "s2", "a", CONSISTENT, "s1")
    say(storage, "s3", "a", CONSISTENT, "s2")
    assert [standing(storage, name) for name in ("s1", "s2", "s3")] == [UNPROVED] * 3
    say(storage, "s1", AUDITOR, AGREE)
    assert [standing(storage, name) for name in ("s1", "s2", "s3")] == [PROVED] * 3
    say(storage, "s1", AUDITOR, REFUSE)
    assert [standing(storage, name) for name in ("s1", "s2", "s3")] == [REFUSED, UNPROVED, UNPROVED]


def test_snapshots_do_not_prove_each_other(storage):
    say(storage, "s1", "a", AGREE, "s2")
    say(storage, "s2", "a", AGREE, "s1")
    say(storage, "s3", "a", AGREE, "s3")
    assert [standing(storage, name) for name in ("s1", "s2", "s3")] == [UNPROVED] * 3


def test_who_stands_on_a_refused_snapshot_cannot_refuse_the_right_one(storage):
    say(storage, "wrong", "a", REFUSE)
    say(storage, "right", "b", REFUSE, "wrong")
    assert standing(storage, "right") == UNPROVED
    say(storage, "right", "a", AGREE)
    assert standing(storage, "right") == PROVED


def test_what_a_restored_table_began_with_is_proved_by_definition_unless_it_is_refused(storage):
    assert standing(storage, "base", origin="base") == PROVED
    say(storage, "s1", "a", AGREE, "base")
    assert (standing(storage, "s1", origin="base"), standing(storage, "s2", origin="base")) == (PROVED, UNPROVED)
    say(storage, "base", AUDITOR, REFUSE)
    assert standing(storage, "base", origin="base") == REFUSED


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"null", b"\xff", b'{"parts":{"0":{}}}'])
def test_a_verdict_that_cannot_be_read_counts_as_a_refusal_until_it_is_written_again(storage, damage):
    say(storage, "s1", "a", AGREE)
    say(storage, "s1", "b", AGREE)
    storage.replace(f"{ROOT}/_VERDICTS/s1/b.json", damage)
    assert [standing(storage, "s1", p) for p in (0, 5)] == [REFUSED, REFUSED]
    say(storage, "s1", AUDITOR, AGREE)
    assert standing(storage, "s1") == PROVED
    storage.remove(f"{ROOT}/_VERDICTS/s1/{AUDITOR}.json")
    say(storage, "s1", "b", AGREE)
    assert standing(storage, "s1") == PROVED


def test_a_flipped_bit_in_a_verdict_is_seen(storage):
    say(storage, "s1", "a", REFUSE)
    path = f"{ROOT}/_VERDICTS/s1/a.json"
    storage.replace(path, storage.read(path).replace(b'"word":"refuse"', b'"word":"agree"'))
    assert standing(storage, "s1") == REFUSED


def test_verdicts_stay_as_long_as_somebody_stands_on_them(storage):
    say(storage, "s1", "a", AGREE)
    say(storage, "s2", "a", AGREE, "s1")
    say(storage, "s0", "a", AGREE)
    Verdicts(storage, ROOT).forget_others(["s2"])
    assert storage.list(f"{ROOT}/_VERDICTS") == ["s1", "s2"]
    assert standing(storage, "s2") == PROVED
    storage.remove_tree(f"{ROOT}/_VERDICTS/s1")
    assert standing(storage, "s2") == PROVED  # the word was written when its root was proved
