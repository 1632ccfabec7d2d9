"""The store over HTTP and Kafka: what every store does, held for the one in memory, too (`test_memory_store.py`)."""

import itertools
import random

import pytest
from click.testing import CliRunner
from support_change_rules import CHANGES
from support_conditional import CONDITIONAL
from support_contract import CONTRACT, DEADLINE_MS, Under
from support_siblings import SIBLINGS
from support_wide import WIDE

from logstore import Admin, MemoryStore, Store
from logstore.cli.main import cli

NUMBERS = itertools.count()


@pytest.fixture
def under(dev):
    def make(
        *, partitions=4, max_value_bytes=1_000_000, conditional=False, expiring=False, siblings=False, wide=False,
        multi_row=False, families=(),
    ):  # fmt: skip
        name = f"contract-{next(NUMBERS)}"
        limits = ["--partitions", str(partitions), "--max-value-bytes", str(max_value_bytes)]
        limits += ["--conditional"] if conditional else ["--expiring"] if expiring else []
        limits += ["--siblings"] if siblings else ["--wide"] if wide else []
        limits += ["--multi-row"] if multi_row else []
        for family in families:
            limits += ["--family", f"{family}:versions={families[family].get('versions', 1)}"]
        made = CliRunner().invoke(cli, ["table", "create", name, "--bootstrap", dev.facts["bootstrap"], *limits])
        assert made.exit_code == 0, made.output
        return name

    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store, Admin(dev.facts["bootstrap"]) as admin:
        yield Under(store, make, admin.alter)


@pytest.mark.parametrize("rule", [*CONTRACT, *CONDITIONAL, *SIBLINGS, *WIDE, *CHANGES], ids=lambda rule: rule.__name__)
def test_it_does_what_every_store_does(rule, under, dev):
    rule(under)


def test_both_stores_answer_alike(under, dev):
    rng, table = random.Random(1), under.make(partitions=3)
    memory = MemoryStore()
    memory.create(table, partitions=3)
    keys = [rng.randbytes(rng.randrange(1, 4)) for _ in range(60)]
    pairs = [(rng.choice(keys), rng.choice([None, b"", rng.randbytes(9)])) for _ in range(500)]
    last = under.store.put_many(table, pairs)
    memory.put_many(table, pairs)
    answers = [
        [
            [row and row[:2] for row in store.get_many(table, keys, deadline_ms=DEADLINE_MS, **after)],
            *(
                [row[:2] for row in store.scan(table, deadline_ms=DEADLINE_MS, **scan, **after)]
                for scan in ({}, {"reverse": True, "limit": 7}, {"start": keys[0]}, {"keys_only": True})
            ),
        ]
        for store, after in ((under.store, {"after": last}), (memory, {}))
    ]
    assert answers[0] == answers[1]
    assert any(answers[0][0])
