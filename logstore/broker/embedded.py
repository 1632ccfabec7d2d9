"""Embedded: a real Apache Kafka broker, in KRaft mode, in one process on loopback, with nothing to install by hand.

with EmbeddedKafka(Path("data")) as kafka:
    Store(kafka.bootstrap)

It ends with the process that started it, however that ends (`process.child`), unless it is `detached`; killed at
any instant, it starts again on the same data. Kafka's jars come from `jars`, Java from `java`, the data directory is
drawn in `data_dir`; what a secured one asks of its clients, in `security`.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from string import Template
from types import TracebackType
from typing import NamedTuple, Self

from logstore.broker.class_archive import ClassArchive
from logstore.broker.data_dir import LOOPBACK, BrokerDataDir, BrokerIdentity
from logstore.broker.jars import VERSION, kafka_jars
from logstore.broker.java import find_java
from logstore.broker.security import BrokerSecurity
from logstore.log.connect.cluster import Cluster
from logstore.log.connect.sources import properties_in
from logstore.log.kafka import clients
from logstore.model.errors import SetupError
from logstore.process import child, environment
from logstore.process.progress import Progress

START_S = 60.0  # without an answer, and without progress
FORMAT_LOOK_S = 1.0
_HERE = Path(__file__).parent
# Serial: the least memory; large requests are no special case, as they are for G1 in a small heap.
_JVM = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]


KAFKAS_PORT = 9092  # where clients look when nobody tells them


class EmbeddedKafka:
    """A real Apache Kafka 4.1 broker (KRaft, one process) on loopback, with its data below `data_dir`.

    `port`: 0 keeps the port of the last start, or finds a free one; None tries KAFKAS_PORT before that. `heap_mb`: the
    Java heap; the process takes about 200 MB more. `detached`: the broker outlives this process. `secure`: it asks for
    passwords or certificates over TLS, and keeps ACLs; `bootstrap` then is a Cluster of its user `admin`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = 0,
        heap_mb: int = 512,
        detached: bool = False,
        secure: bool = False,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.bootstrap = Cluster("")  # "127.0.0.1:PORT" once started
        self.security = BrokerSecurity(self.data_dir) if secure else None
        self._dir = BrokerDataDir(self.data_dir)
        self._port = port
        self._heap_mb = heap_mb
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None
        self._archive: ClassArchive | None = None

    @property
    def pid(self) -> int | None:
        """The broker's process id; None while it does not run."""
        return self._process.pid if self._process is not None and self.alive() else None

    def alive(self) -> bool:
        """True while the broker's process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = START_S) -> Self:
        """Return when the broker answers; at once if it runs already.

        Raises SetupError: no Java, no jars, port taken, data of another version, data in use, or neither an answer nor
        progress for `timeout_s`: a broker that works through its log on a slow machine is waited for. Nothing is left
        running after an error.

        1. Find Java and the jars; 2. lock the directory; 3. settle version and ports; 4. format new storage; 5. start;
        6. wait.
        """
        if self.alive():
            return self
        java, jars = find_java(), kafka_jars()  # 1
        with self._dir.lock() as fd:  # 2
            first_choice = 0 if self._port == 0 else KAFKAS_PORT
            identity = self._dir.claim(VERSION, self._port, first_choice, secure=self.security is not None)  # 3
            self._write_settings(identity)
            launch = [
                str(java.path),
                *_JVM,
                f"-Dlog4j2.configurationFile={_HERE / 'kafka_log4j2.properties'}",
                "-cp",
                f"{jars}/*",
            ]
            self._archive = ClassArchive(java, jars, self.data_dir)
            if not identity.formatted:
                identity = self._format([*launch, *self._archive.use()], identity, timeout_s)  # 4
            sharing = (
                self._archive.use() if self._detached else self._archive.use_or_write()
            )  # nobody would keep what it writes
            self._process = self._spawn([*launch, *sharing], fd)  # 5
            self._dir.hand_over(fd, self._process.pid)
        self._port = identity.port
        self.bootstrap = _cluster(self.data_dir, identity)
        try:
            self._wait(identity, timeout_s)  # 6
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout_s: float = 20) -> None:
        """End the broker in good order, and by force if that takes longer than `timeout_s`.

        Does nothing when it does not run.
        """
        if self._process is None or not self.alive():
            return
        self._process.terminate()
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            if self._archive is not None:
                self._archive.share(status)

    def kill(self) -> None:
        """End the broker at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop the broker if it runs; start it on the same data and the same port. Raises what `start` does."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_settings(self, identity: BrokerIdentity) -> None:
        listeners = "kafka_secure.properties" if identity.secure else "kafka_open.properties"
        template = "".join((_HERE / name).read_text() for name in ("kafka.properties", listeners))
        settings = Template(template).substitute(identity._asdict())
        if self.security is not None:
            self.security.prepare(identity)
            settings += self.security.broker_settings()
        path = self.data_dir / "server.properties"
        path.touch(mode=0o600)
        path.write_text(settings)

    def _format(self, launch: list[str], identity: BrokerIdentity, timeout_s: float) -> BrokerIdentity:
        shutil.rmtree(self.data_dir / "log", ignore_errors=True)  # of a format that did not get to its end
        tool = [
            *launch,
            "-XX:TieredStopAtLevel=1",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            identity.cluster_id,
            "-c",
            "server.properties",
            *([f"@{self.security.format_arguments}"] if self.security else []),  # passwords are no process arguments
        ]
        with subprocess.Popen(
            tool,
            cwd=self.data_dir,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment.for_java(),
        ) as formatting:
            progress, said = Progress(formatting.pid, timeout_s), None
            while said is None:
                try:
                    said, _ = formatting.communicate(timeout=FORMAT_LOOK_S)
                except subprocess.TimeoutExpired:
                    if progress.hangs():
                        formatting.kill()
                        raise SetupError(
                            f"Kafka has not formatted its storage in {self.data_dir} and has done nothing for "
                            f"{timeout_s:g} s"
                        ) from None
        if formatting.returncode:
            raise SetupError(f"Kafka cannot format its storage in {self.data_dir}:\n{_last_lines(said)}")
        return self._dir.formatted(identity)

    def _spawn(self, launch: list[str], fd: int) -> subprocess.Popen[bytes]:
        argv = [*launch, f"-Xmx{self._heap_mb}m", "-XX:+ExitOnOutOfMemoryError", "kafka.Kafka", "server.properties"]
        with (self.data_dir / "kafka.out").open("wb") as out:
            if not self._detached:
                return child.spawn(argv, output=out, cwd=self.data_dir, pass_fds=[fd], env=environment.for_java())
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.data_dir,
                env=environment.for_java(),
                pass_fds=[fd],
                start_new_session=True,
            )

    def _wait(self, identity: BrokerIdentity, timeout_s: float) -> None:
        """Wait until the broker answers.

        Raises SetupError with the end of its log when it dies, or does nothing for `timeout_s`.
        """
        assert self._process is not None, "it was started"
        progress = Progress(self._process.pid, timeout_s, self.data_dir / "kafka.log")
        while not _answers(self.data_dir, identity):
            if not self.alive():
                raise SetupError(f"Kafka ended while it started:\n{self._log_end()}")
            if progress.hangs():
                raise SetupError(
                    f"Kafka does not answer on {self.bootstrap} and has done nothing for {timeout_s:g} s; the end of "
                    f"its log:\n{self._log_end()}"
                )
            time.sleep(0.02)

    def _log_end(self) -> str:
        texts = [
            path.read_text(errors="replace")
            for path in (self.data_dir / "kafka.log", self.data_dir / "kafka.out")
            if path.exists()
        ]
        return _last_lines("\n".join(texts)) + f"\n({self.data_dir / 'kafka.log'} has more)"


class RunningBroker(NamedTuple):
    """A broker that some process started on a data directory."""

    bootstrap: Cluster
    pid: int
    data_dir: str
    version: str
    kafka_config: str | None = None  # file of its user `admin`, where it is secured


def running(data_dir: Path) -> RunningBroker | None:
    """The broker on `data_dir`, whoever started it.

    None when there is none. Raises SetupError when it is just being started.
    """
    directory = BrokerDataDir(data_dir)
    holder = directory.holder()
    if holder is None:
        return None
    if holder.starting:
        raise SetupError(
            f"the broker of {directory.path} is being started by the process {holder.pid}; try again when it is up"
        )
    identity = _known(data_dir)
    config = str(BrokerSecurity(directory.path).client_settings) if identity.secure else None
    return RunningBroker(_cluster(directory.path, identity), holder.pid, str(directory.path), identity.kafka, config)


def attach(data_dir: Path, timeout_s: float = START_S) -> RunningBroker | None:
    """Attach to a broker as `running` does, but only once it answers.

    Raises SetupError when it has done nothing for `timeout_s`.
    """
    progress: Progress | None = None
    while (found := running(data_dir)) and not _answers(data_dir, _known(data_dir)):
        progress = progress or Progress(found.pid, timeout_s, Path(found.data_dir) / "kafka.log")
        if progress.hangs():
            raise SetupError(
                f"the broker with the process id {found.pid} does not answer on {found.bootstrap}; `logstore kafka "
                "stop` ends it"
            )
        time.sleep(0.02)
    return found


def halt(data_dir: Path, timeout_s: float = 20) -> RunningBroker | None:
    """Stop the broker on `data_dir`, whoever started it.

    In good order, by force after `timeout_s`. Returns what was stopped.
    """
    found = running(data_dir)
    if found is not None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            _end(data_dir, found, timeout_s)
    return found


def _known(data_dir: Path) -> BrokerIdentity:
    identity = BrokerDataDir(data_dir).identity()
    if identity is None:
        raise SetupError(
            f"a process holds {data_dir}, but its broker.json is gone; end that process, or choose another --data-dir"
        )
    return identity


def _end(data_dir: Path, found: RunningBroker, timeout_s: float) -> None:
    handle = os.pidfd_open(found.pid)
    try:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if running(data_dir) != found:  # the handle may be that of a later process with the same number
                return
            signal.pidfd_send_signal(handle, sign)
            if select.select([handle], [], [], timeout_s)[0]:
                return
        raise SetupError(
            f"the broker with the process id {found.pid} does not end, not even by SIGKILL: is its disk stuck?"
        )
    finally:
        os.close(handle)


def _cluster(data_dir: Path, identity: BrokerIdentity) -> Cluster:
    """The broker as this process's clients reach it: whatever they are told of other brokers does not count here."""
    properties = properties_in(BrokerSecurity(data_dir.absolute()).client_settings) if identity.secure else {}
    return Cluster(f"{LOOPBACK}:{identity.port}", properties)


def _answers(data_dir: Path, identity: BrokerIdentity) -> bool:
    """True when this very cluster, not another that listens there, names a broker that clients can use."""
    try:
        socket.create_connection((LOOPBACK, identity.port), timeout=1).close()
    except OSError:
        return False
    return clients.cluster_id(_cluster(data_dir, identity), timeout_s=2) == identity.cluster_id


def _last_lines(text: str, count: int = 12) -> str:
    return os.linesep.join([line for line in text.splitlines() if line.strip()][-count:])
