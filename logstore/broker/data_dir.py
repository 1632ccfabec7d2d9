"""Data directory of an embedded broker: its files, and the lock of the process that may use it.

<data>/broker.json         which Kafka wrote the data, the cluster's id, the ports
      /broker.lock         locked (flock) by the broker itself for as long as it lives; its text is the broker's pid
      /server.properties   written at every start
      /log/                Kafka's log and metadata
      /kafka.log*          the broker's log, bounded
      /kafka.out           what the Java machine printed since the last start
"""

import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import SetupError
from logstore.process.private_files import private_dir

LOOPBACK = "127.0.0.1"
LOCK_WAIT_S = 3.0  # a broker that was just killed needs a moment to be gone
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class BrokerIdentity(NamedTuple):
    """Facts of a broker that stay the same from start to start; the text of broker.json."""

    kafka: str  # version that wrote the data, "4.1.1"
    cluster_id: str
    port: int
    controller_port: int
    formatted: bool = False  # False: a first start did not get to its end, nothing of value is there


class Holder(NamedTuple):
    """Process that holds the directory: the broker, or the one that is about to start it."""

    pid: int
    starting: bool


class BrokerDataDir:
    """The data directory at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._identity_file = self.path / "broker.json"
        self._lock_file = self.path / "broker.lock"

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """A descriptor that holds the directory; a child that inherits it goes on holding it.

        Raises SetupError while another process does, or when the directory cannot be written.
        """
        try:
            private_dir(self.path)
            fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(
                f"cannot use the data directory {self.path}: {error.strerror}; choose another with --data-dir"
            ) from error
        try:
            self._acquire(fd)
            _write(fd, f"{os.getpid()} starting")
            yield fd
        finally:
            os.close(fd)

    def hand_over(self, fd: int, pid: int) -> None:
        """Note that the process `pid`, which inherited `fd`, holds the directory now."""
        _write(fd, str(pid))

    def holder(self) -> Holder | None:
        """Process that holds the directory.

        None when nobody does. A pid that is left over from a dead process is never believed.
        """
        try:
            fd = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _try_lock(fd, fcntl.LOCK_SH):
                return None
            words = os.pread(fd, 64, 0).decode().split()
            return Holder(int(words[0]), len(words) > 1) if words else None
        finally:
            os.close(fd)

    def _acquire(self, fd: int) -> None:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _try_lock(fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                words = os.pread(fd, 64, 0).decode().split()
                raise SetupError(
                    f"{self.path} is in use by the process {words[0] if words else '?'}; "
                    "`logstore kafka stop` ends a broker that runs in the background, --data-dir chooses another "
                    "directory"
                )
            time.sleep(0.02)

    def identity(self) -> BrokerIdentity | None:
        """Facts in broker.json; None when the directory is new. Raises SetupError when the file is not sensible."""
        try:
            return BrokerIdentity(**json.loads(self._identity_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise SetupError(
                f"{self._identity_file} is damaged ({error}); restore it, or begin anew with another --data-dir"
            ) from error

    def claim(self, version: str, port: int | None) -> BrokerIdentity:
        """The identity to start with.

        Kafka `version` on `port`, else on the port of the last start, else on a free one.

        Requires: the lock is held. Raises SetupError when the data are another version's, not Kafka's, or the port is
        taken.
        """
        known = self.identity()
        if known is None:
            self._refuse_strangers()
            known = BrokerIdentity(version, _cluster_id(), port or _free_port(), _free_port())
        elif known.kafka.split(".")[:2] != version.split(".")[:2]:
            raise SetupError(
                f"{self.path} holds data of Kafka {known.kafka}, this is Kafka {version}: "
                "use the logstore that wrote it, or begin anew with another --data-dir"
            )
        chosen = port or known.port
        if not _bindable(chosen):
            raise SetupError(
                f"port {chosen} of {LOOPBACK} is taken; choose another with --port (`logstore dev`: --kafka-port)"
            )
        controller = known.controller_port  # only the broker itself speaks to it: any other will do
        while controller == chosen or not _bindable(controller):
            controller = _free_port()
        return self.save(known._replace(kafka=version, port=chosen, controller_port=controller))

    def save(self, identity: BrokerIdentity) -> BrokerIdentity:
        """Write broker.json, whole or not at all."""
        part = self._identity_file.with_suffix(".part")
        part.write_text(json.dumps(identity._asdict(), indent=1))
        part.replace(self._identity_file)
        return identity

    def _refuse_strangers(self) -> None:
        strangers = [path.name for path in self.path.iterdir() if path != self._lock_file]
        if strangers:
            raise SetupError(
                f"{self.path} is not empty ({sorted(strangers)[0]}) and not an embedded broker's; choose another "
                "directory with --data-dir"
            )


def _write(fd: int, text: str) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, text.encode(), 0)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cluster_id() -> str:
    """16 random bytes as Kafka's Uuid prints them; it must not begin with a dash, which would be an option."""
    return "L" + secrets.token_urlsafe(16)[1:]


def _free_port() -> int:
    """A port nobody listens on, below those that Linux gives to outgoing connections.

    A client that keeps connecting to a broker that is down can be given that very port for its own end, and then nobody
    can listen on it.
    """
    lowest = int(_PORT_RANGE.read_text().split()[0])
    for port in (
        random.SystemRandom().sample(range(max(1024, lowest - 12_000), lowest), k=100) if lowest > 2048 else [0]
    ):
        if _bindable(port):
            return port
    raise SetupError(f"100 ports below {lowest} of {LOOPBACK} are taken; choose one with --port")


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java does: a former connection's TIME_WAIT is no hindrance
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
