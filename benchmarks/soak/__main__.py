"""`python -m benchmarks.soak --minutes 10`: writers, readers and faults at two nodes; status 1 if anything is wrong.

The seed that is printed gives the same schedule of faults again (not the same run: processes have their own time).
"""

import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import click
import httpx

from benchmarks.soak.clients import KEYS, TABLE, Client, Reader, Writer, key_of
from benchmarks.soak.faults import Faults, SoakNode
from benchmarks.soak.history import History
from benchmarks.soak.log_check import folded, read_log, wrong_in_log
from examples.flights.running import call, command, environment
from logstore import Store
from logstore.broker.embedded import EmbeddedKafka

PARTITIONS = 6
SETTLED_S = 240.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=10.0, show_default=True, help="Of faults.")
@click.option("--writers", default=3, show_default=True)
@click.option("--readers", default=3, show_default=True)
@click.option("--compact/--no-compact", default=True, show_default=True, help="Make snapshots meanwhile (Spark).")
@click.option("--seed", type=int, help="Of the faults.  [default: a random one]")
@click.option("--scratch", type=click.Path(file_okay=False, path_type=Path), help="Keep everything here.")
def main(minutes: float, writers: int, readers: int, compact: bool, seed: int | None, scratch: Path | None) -> None:
    """Soak two nodes."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    click.echo(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="logstore-soak-") as temporary:
        wrong = _soak(scratch or Path(temporary), random.Random(seed), minutes * 60, writers, readers, compact)
    click.echo("nothing lost, nothing wrong" if not wrong else f"{len(wrong)} wrong:")
    for one in wrong[:20]:
        click.echo(f"  {one}")
    raise SystemExit(bool(wrong))


def _soak(scratch: Path, rng: random.Random, seconds: float, writers: int, readers: int, compact: bool) -> list[str]:
    scratch.mkdir(parents=True, exist_ok=True)
    history, counts = History(), Counter[str]()
    with EmbeddedKafka(scratch / "kafka", heap_mb=384) as kafka:
        options = ("--bootstrap", kafka.bootstrap, "--storage", (scratch / "storage").as_uri(), "--workers", "2")
        nodes = [SoakNode(scratch / name, *options) for name in ("first", "second")]
        snapshots = Snapshots(scratch, kafka.bootstrap)
        try:
            for node in nodes:
                node.start()
            call(scratch, "table", "create", TABLE, "--partitions", str(PARTITIONS), "--bootstrap", kafka.bootstrap)
            epoch = httpx.get(f"{nodes[0].url}/v1/tables/{TABLE}", trust_env=False).json()["epoch"]
            faults = Faults(kafka, nodes, random.Random(rng.random()), seconds)
            with Store(kafka.bootstrap, nodes[0].url) as store:
                urls = [node.url for node in nodes]
                threads: list[Client] = [
                    *(Writer(n, store, history, random.Random(rng.random())) for n in range(writers)),
                    *(
                        Reader(n, urls, epoch, history, random.Random(rng.random())).writers(writers)
                        for n in range(readers)
                    ),
                ]
                for thread in (*threads, faults, *([snapshots] if compact else [])):
                    thread.start()
                faults.join()
                for thread in threads:
                    thread.ending.set()
                for thread in threads:
                    thread.join(200)
            snapshots.end()
            wrong = [
                *([f"the faults ended: {faults.error!r}"] if faults.error else []),
                *(f"{thread.name} ended: {thread.error!r}" for thread in threads if thread.error),
                *(f"{thread.name} hangs" for thread in threads if thread.is_alive()),
                *(f"{thread.name}: {one}" for thread in threads for one in thread.wrong),
            ]
            for counted in [*(thread.counts for thread in threads), faults.counts, snapshots.counts]:
                counts.update(counted)
            wrong += _at_the_end(kafka.bootstrap, nodes, history)
        finally:
            snapshots.end()
            statuses = [node.stop() for node in nodes]
    for what, count in sorted(counts.items()):
        click.echo(f"{count:9,} {what}")
    return wrong + [f"a node ended with status {status}" for status in statuses if status != 0]


class Snapshots(threading.Thread):
    """`logstore batch compact` again and again; under faults it may fail, and says so in `counts`."""

    def __init__(self, scratch: Path, bootstrap: str) -> None:
        """Make it; `start` starts it."""
        super().__init__(name="snapshots", daemon=True)
        self._scratch, self._kafka = scratch, bootstrap
        self._ending = threading.Event()
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Make snapshots until the end."""
        storage = (self._scratch / "storage").as_uri()
        words = ("batch", "compact", TABLE, "--bootstrap", self._kafka, "--storage", storage)
        while not self._ending.wait(20):
            with (self._scratch / "compact.log").open("ab") as log:
                done = subprocess.run(
                    command(*words), stdout=log, stderr=log, env=environment(self._scratch), check=False
                )
            self.counts["snapshots" if done.returncode == 0 else "snapshots that failed"] += 1

    def end(self) -> None:
        """Make no more, and wait for the one that is being made."""
        self._ending.set()
        if self.is_alive():
            self.join()


def _at_the_end(bootstrap: str, nodes: list[SoakNode], history: History) -> list[str]:
    """Judgements once nothing is written and killed any more: the log, and every node against a fold of it."""
    logs = read_log(bootstrap, TABLE, PARTITIONS)
    wrong, rows = wrong_in_log(logs, history), folded(logs)
    ends = {partition: log[-1][0] + 1 if log else 0 for partition, log in logs.items()}
    click.echo(f"the log holds {sum(map(len, logs.values())):,} records, which fold to {len(rows):,} rows")
    for node in nodes:
        wrong += [f"{node.url}: {one}" for one in _node_at_the_end(node.url, rows, ends)]
    never = [key for key in rows if key not in history.keys]
    return wrong + [f"in the log and never written: {key}" for key in never]


def _node_at_the_end(url: str, rows: dict[str, tuple[int, str]], ends: dict[int, int]) -> list[str]:
    deadline = time.monotonic() + SETTLED_S
    epoch = ""
    while True:
        try:
            epoch = epoch or httpx.get(f"{url}/v1/tables/{TABLE}", trust_env=False).json()["epoch"]
            token = ",".join(f"{epoch}-{partition}-{end}" for partition, end in ends.items())
            page = httpx.get(
                f"{url}/v1/tables/{TABLE}/rows", params={"limit": 1000, "token": token, "deadline_ms": 20_000},
                trust_env=False, timeout=40,
            )  # fmt: skip
            if page.status_code == 200:
                break
            said = page.text[:300]
        except httpx.TransportError as error:
            said = repr(error)
        if time.monotonic() > deadline:
            return [f"not live {SETTLED_S:g} s after the last fault: {said}"]
        time.sleep(0.5)
    seen = {row["key"]: (row["version"], row["value"]) for row in page.json()["rows"]}
    keys = {key_of(writer, number) for writer in range(20) for number in range(KEYS)}
    return [
        f"{key}: served {seen.get(key)}, the log folds to {rows.get(key)}"
        for key in sorted(seen.keys() | rows.keys() | keys)
        if seen.get(key) != rows.get(key)
    ]


if __name__ == "__main__":
    main()
