"""`logstore batch schedule`: what is set is what the definition says."""

import orjson
from support_dev import call
from support_worker import make_table

from logstore.log.tables.registry import Registry


def test_a_schedule_is_set_shown_and_taken_back(kafka):
    table = make_table(kafka.bootstrap, partitions=1)

    def schedule(*argv, status=0):
        done = call("batch", "schedule", table.name, *argv, LOGSTORE_BOOTSTRAP=kafka.bootstrap)
        assert done.returncode == status, done.stderr.decode()
        return done

    assert b"never" in schedule().stdout
    shown = orjson.loads(schedule("--every-mutations", "1000", "--json").stdout)
    assert shown["schedule"] == {"every_mutations": 1_000, "every_minutes": None}
    assert Registry(kafka.bootstrap).table(table.name).schedule == shown["schedule"]
    assert b"1,000 mutations" in schedule().stdout
    assert b"--off takes no limits" in schedule("--off", "--every-minutes", "5", status=2).stderr
    assert b"never" in schedule("--off").stdout
    assert Registry(kafka.bootstrap).table(table.name).schedule is None
    schedule("--every-minutes", "0", status=2)
