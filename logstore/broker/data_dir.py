"""Data directory of an embedded broker: its files, and the lock of the process that may use it.

<data>/broker.json         which Kafka wrote the data, the cluster's id, the ports
      /broker.lock         locked (flock) by the broker itself for as long as it lives; its text is the broker's pid
      /server.properties   written at every start
      /secure/             certificates, users and clients' settings of a secured broker; drawn in `security`
      /log/                Kafka's log and metadata
      /kafka.log*          the broker's log, bounded
      /kafka.out           what the Java machine printed since the last start
"""

import contextlib
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from logstore.model.errors import SetupError
from logstore.process.dir_lock import DirLock
from logstore.process.durable import flush

LOOPBACK = "127.0.0.1"
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class BrokerIdentity(NamedTuple):
    """Facts of a broker that stay the same from start to start; the text of broker.json."""

    kafka: str  # version that wrote the data, "4.1.1"
    cluster_id: str
    port: int
    controller_port: int
    formatted: bool = False  # False: a first start did not get to its end, nothing of value is there
    certificates_port: int = 0  # of a secured broker's listener for certificates; 0: the broker is open

    @property
    def secure(self) -> bool:
        """True when the broker lets nobody in without proof."""
        return self.certificates_port != 0


class Holder(NamedTuple):
    """Process that holds the directory: the broker, or the one that is about to start it."""

    pid: int
    starting: bool


class BrokerDataDir:
    """The data directory at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._identity_file = self.path / "broker.json"
        self._lock = DirLock(self.path / "broker.lock")

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """A descriptor that holds the directory; a child that inherits it goes on holding it.

        Raises SetupError while another process does, or when the directory cannot be written.
        """
        with self._lock.hold(self._in_use) as fd:
            self._lock.write(fd, f"{os.getpid()} starting")
            yield fd

    def hand_over(self, fd: int, pid: int) -> None:
        """Note that the process `pid`, which inherited `fd`, holds the directory now."""
        self._lock.write(fd, str(pid))

    def holder(self) -> Holder | None:
        """Process that holds the directory.

        None when nobody does. A pid that is left over from a dead process is never believed.
        """
        words = (self._lock.holder() or "").split()
        return Holder(int(words[0]), len(words) > 1) if words else None

    def _in_use(self, pid: str) -> str:
        return (
            f"{self.path} is in use by the process {pid}; `logstore kafka stop` ends a broker that runs in the "
            "background, --data-dir chooses another directory"
        )

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

    def claim(self, version: str, port: int | None, first_choice: int = 0, *, secure: bool = False) -> BrokerIdentity:
        """The identity to start with.

        Kafka `version` on `port`, else on the port of the last start, else on `first_choice` where that is free, else
        on a free one.

        Requires: the lock is held. Raises SetupError when the data are another version's, not Kafka's, secured or not
        as they should be, or the port is taken.
        """
        known = self.identity()
        if known is None:
            self._refuse_strangers()
            chosen = port or (first_choice if first_choice and _bindable(first_choice) else _free_port())
            known = BrokerIdentity(version, _cluster_id(), chosen, _free_port())
            known = known._replace(certificates_port=_free_port() if secure else 0)
        elif known.kafka.split(".")[:2] != version.split(".")[:2]:
            raise SetupError(
                f"{self.path} holds data of Kafka {known.kafka}, this is Kafka {version}: "
                "use the logstore that wrote it, or begin anew with another --data-dir"
            )
        if known.secure != secure:
            raise SetupError(
                f"the broker of {self.path} was made {'with' if known.secure else 'without'} --secure, and stays so; "
                f"start it {'with' if known.secure else 'without'}, or begin anew with another --data-dir"
            )
        chosen = port or known.port
        if not _bindable(chosen):
            raise SetupError(
                f"port {chosen} of {LOOPBACK} is taken; choose another with --port (`logstore dev`: --kafka-port)"
            )
        controller = _another(known.controller_port, {chosen})  # only the broker itself speaks to it
        certificates = _another(known.certificates_port, {chosen, controller}) if known.secure else 0
        moved = known._replace(port=chosen, controller_port=controller, certificates_port=certificates)
        return self.save(moved._replace(kafka=version))

    def save(self, identity: BrokerIdentity) -> BrokerIdentity:
        """Write broker.json, whole or not at all."""
        part = self._identity_file.with_suffix(".part")
        part.write_text(json.dumps(identity._asdict(), indent=1))
        flush(part)
        part.replace(self._identity_file)
        flush(self.path)
        return identity

    def formatted(self, identity: BrokerIdentity) -> BrokerIdentity:
        """Write down that the broker's storage is formatted, once all of it is on the disk.

        Kafka's tool does not flush: after a power cut its files would be there and empty, and no broker starts on them.
        """
        storage = self.path / "log"
        for path in (*storage.rglob("*"), storage):
            flush(path)
        return self.save(identity._replace(formatted=True))

    def _refuse_strangers(self) -> None:
        strangers = [path.name for path in self.path.iterdir() if path != self._lock.path]
        if strangers:
            raise SetupError(
                f"{self.path} is not empty ({sorted(strangers)[0]}) and not an embedded broker's; choose another "
                "directory with --data-dir"
            )


def _another(port: int, taken: set[int]) -> int:
    """`port` where nobody listens on it, else a free one."""
    while port in taken or not _bindable(port):
        port = _free_port()
    return port


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
