import fcntl
import gc
import os
import random
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support_faults import create, hardy_store
from support_forked import close_all
from support_http import share_tls_settings
from support_java import use_quick_compiler
from support_needs import needs
from support_tiers import TIERS, CpuBudget, ordered
from support_worker import Scheduled, forget_tables

from logstore import Store
from logstore.broker.embedded import EmbeddedKafka
from logstore.model.table import Table
from tests.support_dev import Dev

CONTAINERS = Path(__file__).parent / "integration"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=TIERS, help="run one tier of the suite, within its budget of CPU seconds")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("LOGSTORE_KAFKA_PORT", "0")  # several stores start at once, and one alone can have 9092
    share_tls_settings()
    tier = config.getoption("--tier")
    if tier != "quick" and not hasattr(config, "workerinput"):  # those have this one's environment
        use_quick_compiler()
    for name, each in TIERS.items():
        settings.register_profile(name, derandomize=True, deadline=None, max_examples=each.examples)
    settings.load_profile(tier or "quick")
    if tier is not None:
        config.option.markexpr = TIERS[tier].expression
        config.option.ignore = [*(config.option.ignore or []), str(CONTAINERS)]  # in no tier, and dear to import
        config.pluginmanager.register(CpuBudget(config, TIERS[tier]), "cpu-budget")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which one process alone does without
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from support_sharing import Sharing  # noqa: PLC0415 - only who needs it waits for its import

    config.option.loadscopereorder = False  # the order is that of the tests
    return Sharing(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for need in sorted(needs(item)):
            item.add_marker(need)
    if hasattr(config, "workerinput"):
        items[:] = ordered(items)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In a fresh checkout one process prepares a file's assertions; the others, which read what it left, wait."""
    if not isinstance(collector, pytest.Module) or not hasattr(collector.config, "workerinput"):
        return (yield)
    with collector.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


def pytest_collection_finish() -> None:
    """The thousands of tests stay: no garbage collection of a test looks at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def settings_end_with_the_test() -> Iterator[None]:
    """Settings that a command has published in this process, for its children, are not those of the next test."""
    before = {name: value for name, value in os.environ.items() if name.startswith("LOGSTORE_")}
    yield
    for name in [name for name in os.environ if name.startswith("LOGSTORE_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _forked_processes_end() -> Iterator[None]:
    """What forks processes for the tests ends after them, so that what these used is counted."""
    yield
    close_all()


_BROKERS: list[str] = []  # addresses of brokers that tests of all files share


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real broker for all tests of a process; each test makes topics of its own."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), heap_mb=384) as broker:
        _BROKERS.append(broker.bootstrap)
        yield broker
        _BROKERS.remove(broker.bootstrap)


@pytest.fixture(scope="module", autouse=True)
def _tables_end_with_their_file(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tables of a file are not those that workers of the next file find, whoever ran them before."""
    yield
    if any("kafka" in item.fixturenames for item in request.session.items if item.path == request.path):
        for bootstrap in _BROKERS:
            forget_tables(bootstrap)


@pytest.fixture
def scheduled(kafka: EmbeddedKafka) -> Iterator[Callable[..., Table]]:
    """Makes tables with a schedule, of partitions and limits; after the test no worker compacts them."""
    with Scheduled(kafka.bootstrap) as tables:
        yield tables.make


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real broker that asks for proof; each test makes users of its own."""
    with EmbeddedKafka(tmp_path_factory.mktemp("secured"), heap_mb=256, secure=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One `logstore dev` for all tests of the command; each test makes tables of its own."""
    running = Dev(tmp_path_factory.mktemp("dev") / "data", "--writes")
    yield running
    running.end()


@pytest.fixture(scope="session")
def users(dev: Dev) -> str:
    """A table that tests share, each with keys of its own."""
    dev("table", "create", "users", "--partitions", "2")
    return "users"


_SHARED: list[Any] = []  # workers that the tests of a file share


@pytest.fixture(scope="module")
def file_worker(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One worker for the tests of a file: a start of its own for each costs them more than all that they do."""
    from support_worker import running_worker  # noqa: PLC0415 - only who has a worker

    with running_worker(kafka.bootstrap, tmp_path_factory.mktemp("worker") / "node") as process:
        _SHARED.append(process)
        yield process
        _SHARED.remove(process)


@pytest.fixture(autouse=True)
def _no_other_node(request: pytest.FixtureRequest) -> None:
    """A test with workers of its own has no shared one beside them, whose word on its snapshots would count too."""
    if "worker" not in request.fixturenames:
        for process in _SHARED:
            process.kill()


@pytest.fixture
def worker(file_worker: Any) -> Iterator[Any]:
    """A worker that runs, whatever the test before did to it; each test makes tables of its own."""
    before = len(file_worker.log())
    yield file_worker.running()
    print(file_worker.log()[before:])


@pytest.fixture(scope="module")
def fault_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One `logstore dev` for the faults that it survives."""
    with hardy_store(tmp_path_factory.mktemp("faults") / "store") as store:
        yield store


@pytest.fixture
def fault_table(fault_store: Any) -> str:
    """A table of one test on the store that faults are done to."""
    return create(fault_store, f"t{uuid.uuid4().hex[:12]}")


@pytest.fixture
def fixed_table(kafka: EmbeddedKafka) -> Any:
    """A table of which no definition is in the log."""
    from support_producer import make_table  # noqa: PLC0415 - only who writes without definitions

    return make_table(kafka.bootstrap)


@pytest.fixture
def fixed_store(kafka: EmbeddedKafka, fixed_table: Any) -> Iterator[Store]:
    """A client that knows one table, by heart."""
    from support_producer import Fixed  # noqa: PLC0415 - only who writes without definitions

    with Store(kafka.bootstrap, definitions=Fixed(fixed_table)) as store:
        yield store


@pytest.fixture
def http_node() -> Iterator[Any]:
    """A node of which there is only the read API, with the rows that a test gives it."""
    from support_http_node import running_node  # noqa: PLC0415 - only who reads over HTTP

    with running_node() as node:
        yield node


@pytest.fixture
def digest_client() -> Iterator[Any]:
    """A running digester, and its client."""
    from support_digest import running_digester  # noqa: PLC0415 - only who has digests computed

    with running_digester() as client:
        yield client


@pytest.fixture
def one_table(tmp_path: Path) -> Iterator[Any]:
    """A node of the tests with a table `t` of one partition, and a reader that is ready."""
    from tests.support_serve import serving  # noqa: PLC0415 - only who has a reader

    with serving(tmp_path) as (node, reader):
        node.create("t", 1)
        reader.wait_ready()
        yield node, reader


@pytest.fixture
def rng() -> random.Random:
    """Random numbers whose seed a failure shows."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)
