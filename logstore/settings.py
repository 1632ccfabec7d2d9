"""Settings: every knob of nodes and commands, and the sources of its value.

    flag  >  environment LOGSTORE_<NAME>  >  logstore.toml  >  default

`logstore.toml` is the file named by LOGSTORE_CONFIG, else the one in the current directory, else the one in the user's
configuration directory; it holds plain `name = value` lines, and in its last part, `[kafka]`, properties of Kafka's
clients (`log.connect.sources`). A name nobody knows, or a value of the wrong kind, is an error that names it.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints
from urllib.parse import urlsplit

import platformdirs

from logstore.model.errors import SetupError, UsageError
from logstore.model.log_levels import parse_levels
from logstore.model.slots import DEFAULT_SLOTS
from logstore.model.storage_url import SCHEMES

FILE = "logstore.toml"
KAFKA = "kafka"  # the part of it with Kafka's properties
SYNC = ("none", "commit")
_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_LINK = re.compile(r"(tcp|udp|sctp)://")
LOCAL_RECORDS, LOCAL_MB = 5_000_000, 2_048
TASK_BYTES = 8 << 30
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}  # of 1,000, or of 1,024
_SIZE = re.compile(r"([0-9]{1,18}) ?(?:([kmgtp]?)(i?)b?)?", re.IGNORECASE)
LOG_FORMATS = ("auto", "console", "json")


def own_folder(of: Callable[[str], Path], instead: str) -> Path:
    """Return a user's folder for logstore, such as `platformdirs.user_data_path`.

    Raises SetupError, which says what to do `instead`, for a user who has no home.
    """
    try:
        return of("logstore")
    except RuntimeError as error:
        raise SetupError(
            f"there is no home directory: HOME is not set, and the user {os.getuid()} has no name; set it, or {instead}"
        ) from error


def default_data_dir() -> Path:
    """The user's data directory for logstore. Raises SetupError."""
    return own_folder(platformdirs.user_data_path, "give --data-dir (LOGSTORE_DATA_DIR)") / "dev"


class _OnDemand:
    """A data directory: the one that was given, else the user's, which is looked for when somebody wants it.

    A field of a data class, as a descriptor: who reads from a URL has no use for a home.
    """

    def __get__(self, settings: "Settings | None", _owner: type) -> Path | None:
        if settings is None:
            return None  # nothing was given, to the data class
        given: Path | None = settings.__dict__["given_data_dir"]
        return given if given is not None else default_data_dir()

    def __set__(self, settings: "Settings", given: Path | None) -> None:
        settings.__dict__["given_data_dir"] = given


def _places() -> Iterator[Path]:
    """Folders in which a settings file is looked for: none of a user without a home, nor a current one that is gone."""
    with contextlib.suppress(FileNotFoundError):
        yield Path.cwd()
    with contextlib.suppress(RuntimeError):
        yield platformdirs.user_config_path("logstore")


def _is_file(path: Path) -> bool:
    """False also where nobody may look: such a home is not this user's."""
    try:
        return path.is_file()
    except PermissionError:
        return False


class Address(NamedTuple):
    """A host and a port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as an HTTP URL."""
        return f"http://{self}"


DEFAULT_HTTP = Address("127.0.0.1", 8480)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values of all knobs. `data_dir` raises SetupError for a user without a home who gave none."""

    # Where the store is
    bootstrap: str | None = (
        None  # Kafka, host:port[,host:port]; None: the broker of the node that runs on data_dir, if one does
    )
    # file with librdkafka's properties, by which one proves to Kafka who one is; None: LOGSTORE_KAFKA_<NAME>, [kafka]
    kafka_config: Path | None = None
    url: str | None = (
        None  # any node's read API; None: that of the node that runs on data_dir, else http://127.0.0.1:8480
    )
    # A node
    # views, logs, embedded Kafka: as large as the tables, twice with Kafka
    data_dir: Path = _OnDemand()  # type: ignore[assignment]  # a descriptor gives the path
    http: Address = DEFAULT_HTTP  # where the readers of a node listen; port 0: any free one
    advertise: str | None = None  # the URL under which other machines reach this node; None: that of `http`
    workers: int = 1  # processes that follow the log; each takes a core under load and some 150 MB
    readers: int = 2  # processes that answer HTTP; each takes a core under load and some 80 MB
    sync: str = (
        "none"  # "commit": views are flushed at every commit, a third of the speed; "none": rebuilt after a power cut
    )
    group: str = "default"  # replica group: each group holds every partition once more
    zone: str = ""  # label of the place of this node
    insecure: bool = (
        False  # serve beyond loopback although there is no authentication: everybody who reaches it reads everything
    )
    writes: bool = False  # readers take writes over HTTP, and make a producer of Kafka with the first one
    # What a node says
    log_format: str = "auto"  # of its stderr: "console", "json", or by whether it is a terminal; its children's is JSON
    log_level: str = "info"  # or "info,streaming.lane=debug": debug costs a line a batch
    slow_ms: int = 1_000  # a request that takes longer is logged with its id
    access_log: bool = (
        False  # a line for every request, which then goes the ordinary way: a third of the reads a second
    )
    # A store, at its first start
    slots: int = DEFAULT_SLOTS  # units of placement, fixed at the first start: more workers than this stay idle
    storage: str | None = (
        None  # where archive and snapshots lie, an fsspec URL; None: under data_dir, for one machine only
    )
    # what a storage URL may begin with: nodes open whatever the store's definition names
    storage_schemes: tuple[str, ...] = SCHEMES
    # megabytes a second that a worker copies from the storage at most: more takes disk and network from reads
    fetch_mb_s: float = 200.0
    # A batch job, scheduled ones too: up to so many records and megabytes that it reads it runs in processes of one
    # machine, above either with Spark, whose start takes seconds (`logstore batch --engine auto`)
    local_records: int = LOCAL_RECORDS
    local_mb: int = LOCAL_MB
    # bytes of archive and snapshot that one task folds at most: a larger partition is folded by ranges of its keys
    task_bytes: int = TASK_BYTES
    # Embedded Kafka (`logstore dev`)
    secure: bool = False  # it asks for passwords over TLS and keeps ACLs; fixed at its first start
    kafka_port: int | None = None  # that of the last start, else 9092 where it is free; 0: else any free one
    kafka_heap_mb: int = 512  # Java heap; the process takes some 200 MB more
    # Patience
    stall_s: float = (
        15.0  # a child silent for so long is killed and started again; less mistakes a busy machine for a stall
    )
    drain_s: float = (
        40.0  # what a child may take to end at SIGTERM; then SIGKILL, and views are opened without a clean mark
    )
    deadline_ms: int = 2_000  # of one read, 1 to 30,000
    timeout_s: float = 30.0  # how long table commands wait for every live reader to serve the change

    def find_data_dir(self) -> Path | None:
        """The data directory; None for a user without a home who gave none."""
        try:
            return self.data_dir
        except SetupError:
            return None


class SettingSource(NamedTuple):
    """A setting as it holds, and where its value comes from, in words."""

    name: str
    value: Any
    where: str


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directories: tuple[Path, ...] | None = None,
) -> Settings:
    """Settings as of now.

    A flag that is None was not given. Raises UsageError that names the key and where it stands.
    """
    given = _given(flags or {}, os.environ if environ is None else environ, directories)
    return Settings(**{name: value for name, (value, _) in given.items()})


def chosen(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directories: tuple[Path, ...] | None = None,
) -> list[SettingSource]:
    """Every setting as `load` gives it, and where it comes from. Raises UsageError as `load` does."""
    environ = os.environ if environ is None else environ
    given = _given(flags or {}, environ, directories)
    lines = _lines(config_file(environ, directories))
    found = []
    for one in fields(Settings):
        value, where = given.get(one.name, (None, ""))
        if where.startswith("--"):
            where = f"option {where}"
        elif where.startswith("LOGSTORE_"):
            where = f"environment {where}"
        elif where:
            where = f"{where.removesuffix(f', {one.name}')}, line {lines.get(one.name, '?')}"
        found.append(
            SettingSource(one.name, value, where) if where else SettingSource(one.name, _default(one), "default")
        )
    return found


def _default(one: "Field[Any]") -> Any:
    return load({}, {}, ()).find_data_dir() if one.name == "data_dir" else one.default


def _lines(path: Path | None) -> dict[str, int]:
    """Line of each setting in a configuration file."""
    text = "" if path is None else path.read_text()
    matches = ((number, re.match(r"\s*(\w+)\s*=", line)) for number, line in enumerate(text.splitlines(), 1))
    return {found[1]: number for number, found in matches if found}


def _given(
    flags: Mapping[str, Any], environ: Mapping[str, str], directories: tuple[Path, ...] | None
) -> dict[str, tuple[Any, str]]:
    """Value of each setting that was given, and where: the last one counts."""
    given = _from_file(environ, directories)
    for name in _PARSERS:
        where = f"LOGSTORE_{name.upper()}"
        text = environ.get(where)
        if text and not is_service_link(where, text):
            given[name] = _parse(name, text, where), where
    for name, value in flags.items():
        where = "--" + name.replace("_", "-")
        if value is not None:
            given[name] = _parse(name, value, where), where
    return given


def is_service_link(variable: str, text: str) -> bool:
    """True for what Kubernetes tells each container about a service, such as one that is called `logstore-kafka`.

    LOGSTORE_KAFKA_SERVICE_HOST, LOGSTORE_KAFKA_PORT=tcp://10.0.0.1:9092 and their like are nobody's settings.
    """
    return bool(_SERVICE.search(variable) or (variable.endswith("_PORT") and _LINK.match(text)))


def config_file(environ: Mapping[str, str], directories: tuple[Path, ...] | None = None) -> Path | None:
    """The file that is read; None when there is none. Raises UsageError when LOGSTORE_CONFIG names none."""
    named = environ.get("LOGSTORE_CONFIG")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"LOGSTORE_CONFIG names {named}, and there is no such file")
        return Path(named)
    places = directories if directories is not None else _places()
    return next((place / FILE for place in places if _is_file(place / FILE)), None)


def kafka_section(path: Path | None) -> tuple[dict[str, Any], str | None]:
    """The properties in `[kafka]` of a configuration file, and the file that its `kafka_config` names."""
    found = _toml(path)
    section = found.get(KAFKA, {})
    if not isinstance(section, dict):
        raise UsageError(f"{path}: [{KAFKA}] is a part of its own, with librdkafka's properties")
    return dict(_dotted(section)), found.get("kafka_config")


def _dotted(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """TOML reads `ssl.ca.location = ...` as parts within parts."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import tomllib  # noqa: PLC0415 - most have no such file

    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _from_file(environ: Mapping[str, str], directories: tuple[Path, ...] | None) -> dict[str, tuple[Any, str]]:
    path = config_file(environ, directories)
    found = {name: value for name, value in _toml(path).items() if name != KAFKA}
    for name in found:
        if name not in _PARSERS:
            raise UsageError(f"{path}: there is no setting {name!r}; there are {', '.join(sorted(_PARSERS))}")
    return {name: (_parse(name, value, where), where) for name, value in found.items() for where in [f"{path}, {name}"]}


def _parse(name: str, value: Any, where: str) -> Any:
    try:
        return _PARSERS[name](value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from error


def parse_address(value: Any) -> Address:
    """Read HOST:PORT; an IPv6 address stands in brackets. Raises ValueError."""
    if isinstance(value, Address):
        return value
    try:
        parts = urlsplit(f"//{value}")
        if parts.hostname and parts.port is not None and not parts.path and not parts.username:
            return Address(parts.hostname, parts.port)
    except ValueError:
        pass
    raise ValueError(f"not an address: {str(value)[:80]!r}; write HOST:PORT, such as 127.0.0.1:8480")


def _text(value: Any) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    raise ValueError(f"not a text: {value!r}")


def _url(value: Any) -> str:
    text = _text(value).rstrip("/")
    parts = urlsplit(text)
    if parts.scheme in ("http", "https") and parts.netloc:
        return text
    raise ValueError(f"not a URL: {text[:80]!r}; write http://HOST:PORT")


def _bootstrap(value: Any) -> str:
    for address in _text(value).split(","):
        parse_address(address.strip())
    return str(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise ValueError(f"not true or false: {value!r}")


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if (
            isinstance(value, (int, str))
            and not isinstance(value, bool)
            and str(value).strip().isdigit()
            and least <= int(value) <= most
        ):
            return int(value)
        raise ValueError(f"wants a whole number from {least:,} to {most:,}, not {value!r}")

    return parse


def parse_size(text: str) -> int:
    """Bytes: a whole number, alone or with kB, MB, GB, TB (of 1,000) or KiB, MiB, GiB, TiB (of 1,024).

    Raises ValueError.
    """
    found = _SIZE.fullmatch(text.strip())
    number, prefix, binary = found.groups(default="") if found else ("", "", "")
    if not found or (binary and not prefix):
        raise ValueError(f"wants a size such as 8GiB, 512MiB or 1000000, not {text[:80]!r}")
    unit = 1_024 if binary else 1_000
    return int(int(number) * unit ** _POWERS[prefix.lower()])


def _size(least: int, most: int) -> Callable[[Any], int]:
    whole = _whole(least, most)
    return lambda value: whole(parse_size(value) if isinstance(value, str) else value)


def _seconds(value: Any) -> float:
    seconds = float(value)
    if isinstance(value, bool) or not 0 < seconds <= 86_400:
        raise ValueError(f"wants seconds above 0, up to a day, not {value!r}")
    return seconds


def _rate(value: Any) -> float:
    rate = float(value)
    if isinstance(value, bool) or not 0 < rate <= 100_000:
        raise ValueError(f"wants megabytes a second above 0, up to 100,000, not {value!r}")
    return rate


def _schemes(value: Any) -> tuple[str, ...]:
    found = tuple(value.split(",") if isinstance(value, str) else value)
    if found and all(isinstance(one, str) and one.isalnum() and one.islower() for one in found):
        return found
    raise ValueError(f"wants schemes such as {','.join(SCHEMES)}, not {value!r}")


def _sync(value: Any) -> str:
    if value in SYNC:
        return str(value)
    raise ValueError(f'is "none" or "commit", not {value!r}')


def _log_format(value: Any) -> str:
    if value in LOG_FORMATS:
        return str(value)
    raise ValueError(f"is one of {', '.join(LOG_FORMATS)}, not {value!r}")


def _log_level(value: Any) -> str:
    text = ",".join(_text(piece) for piece in ((value,) if isinstance(value, str) else value))
    parse_levels(text)
    return text


def _path(value: Any) -> Path:
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError("begins with ~, and there is no such home directory; give a whole path") from error


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "bootstrap": _bootstrap, "kafka_config": _path, "url": _url, "data_dir": _path,
    "http": parse_address, "advertise": _url,
    "workers": _whole(1, 64), "readers": _whole(1, 64), "sync": _sync, "group": _text, "zone": _text, "insecure": _flag,
    "writes": _flag,
    "log_format": _log_format, "log_level": _log_level, "slow_ms": _whole(1, 3_600_000), "access_log": _flag,
    "slots": _whole(1, 1024), "storage": _text, "storage_schemes": _schemes,
    "fetch_mb_s": _rate, "local_records": _whole(0, 1 << 53), "local_mb": _whole(0, 1 << 33),
    "task_bytes": _size(1, 1 << 53),
    "kafka_port": _whole(0, 65_535),
    "secure": _flag,
    "kafka_heap_mb": _whole(128, 65_536),
    "stall_s": _seconds, "drain_s": _seconds, "deadline_ms": _whole(1, 30_000), "timeout_s": _seconds,
}  # fmt: skip
assert _PARSERS.keys() == {f.name for f in fields(Settings)} == get_type_hints(Settings).keys()
