"""Tiers of the suite: which tests each runs, in which order two processes share them, and what it may cost.

quick   nothing runs but readers and small programs: the pure core, views, SSTables, HTTP
test    and Kafka, workers, a shared `logstore dev`, one shared Spark session
rest    what `test` leaves out: whole stores, Spark in processes of their own, what is slow, long forms; all properties
all     everything but the containers
"""

import functools
import re
import resource
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support_needs import needs


class Tier(NamedTuple):
    """Tests by their markers, examples of a property, and CPU seconds of all its processes (two cores, 2 GHz)."""

    expression: str
    examples: int
    cpu_s: int

    @property
    def limit_s(self) -> float:
        """Where the tier fails: half as much again."""
        return self.cpu_s * 1.5


LEFT_OUT = "store or spark_alone or slow or long"
PROPERTY = "hypothesis"  # the mark that Hypothesis gives to its tests
TIERS = {
    "quick": Tier(f"not (kafka or spark or dev or {LEFT_OUT} or containers)", 100, 240),
    "test": Tier(f"not ({LEFT_OUT} or containers)", 250, 1_400),
    "rest": Tier(f"({LEFT_OUT} or {PROPERTY}) and not containers", 1_000, 2_400),
    "all": Tier("not containers", 1_000, 3_600),
}
ROOT = Path(__file__).parent.parent
SHARES_SPARK = re.compile(r"^from support_spark import|\bsupport_spark\.(context|engine|spark)\(", re.MULTILINE)
USES_DEV = re.compile(r"^def [a-z]\w*\([^)]*\b(dev|users)\b", re.MULTILINE)  # as a fixture
DEVS = 2  # `logstore dev`s that share the files which use one: a single one would be what all others wait for
# Files with a test of a minute or more: begun last, all other processes would have ended long before it.
LONGEST = tuple(f"tests/test_{name}.py" for name in ("round_trip", "demo", "s3", "secured_store", "standalone"))
HEAVIEST = ("spark", "dev", "store", "spark_alone", "kafka")


def ordered(items: list[pytest.Item]) -> list[pytest.Item]:
    """Tests with the heavy groups first, the longest before all others, so that the light ones even out the end."""
    weights: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for item in items:
        weight = min([HEAVIEST.index(need) for need in needs(item)], default=len(HEAVIEST))
        group = group_of(item.nodeid)
        weight = -1 if group in LONGEST else weight
        weights[group] = min(weight, weights.get(group, weight))
        sizes.setdefault(group, item.path.stat().st_size)
    return sorted(items, key=lambda item: (weights[group := group_of(item.nodeid)], -sizes[group], group))


def group_of(nodeid: str) -> str:
    """Tests that one process takes: those of one file, as they share its fixtures; of the Spark session; of `dev`."""
    return _group_of_file(nodeid.partition("::")[0])


@functools.cache
def _group_of_file(name: str) -> str:
    text = (ROOT / name).read_text()
    if SHARES_SPARK.search(text):
        return "spark"
    return f"dev {zlib.crc32(name.encode()) % DEVS}" if USES_DEV.search(text) else name


def short_and_long(name: str, short: Any, long: Any) -> pytest.MarkDecorator:
    """A parameter of a test that takes rounds: its short form is everyday, its long form is marked `long`."""
    return pytest.mark.parametrize(
        name, [pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.long)]
    )


def few_and_many(few: int, many: int) -> list[Any]:
    """Seeds of a test that is the same with each: the few are everyday, the many are marked `long`."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(few, many))]


class CpuBudget:
    """CPU seconds of the test processes and of every child that they waited for, held against the tier's budget."""

    def __init__(self, config: pytest.Config, tier: Tier) -> None:
        self._config, self._tier = config, tier
        self._cpu_s = 0.0

    def pytest_testnodedown(self, node: Any) -> None:
        """Take the figure of a process that ran tests (pytest-xdist)."""
        self._cpu_s += getattr(node, "workeroutput", {}).get("cpu_s", 0.0)

    @pytest.hookimpl(trylast=True)  # after session fixtures have ended what they started
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Add what this process used, and fail the run that used too much."""
        own_s, children_s = _cpu_s(resource.RUSAGE_SELF), _cpu_s(resource.RUSAGE_CHILDREN)
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["cpu_s"] = own_s + children_s
            return
        self._cpu_s += own_s + (0.0 if self._cpu_s else children_s)  # processes that ran tests are children, too
        if self._cpu_s > self._tier.limit_s and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say both."""
        over = self._cpu_s > self._tier.limit_s
        terminalreporter.write_line(
            f"CPU seconds of tests and what they started: {self._cpu_s:.0f}; budget {self._tier.cpu_s},"
            f" limit {self._tier.limit_s:.0f}{': EXCEEDED' if over else ''}",
            red=over,
        )


def _cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime
