"""Sources of Kafka's properties, for the clients of this process and of its children.

    --kafka-config FILE  >  environment LOGSTORE_KAFKA_<NAME>  >  [kafka] in logstore.toml

Names are librdkafka's; in the environment their dots are underscores. `LOGSTORE_KAFKA_<NAME>_FILE`, or `<name>_file` in
a file, names a file that holds the value. What Kubernetes says of a service `logstore-kafka` is no property. The flag
reaches children as LOGSTORE_KAFKA_CONFIG: no secret is ever a process argument.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logstore import settings
from logstore.log.connect.checks import normal
from logstore.model.errors import UsageError

PREFIX = "LOGSTORE_KAFKA_"
CONFIG = f"{PREFIX}CONFIG"
_OF_SETTINGS = (CONFIG, f"{PREFIX}PORT", f"{PREFIX}HEAP_MB")
_FILE = "_file"
_ADDRESS = "bootstrap.servers"
_NO_SECRETS = frozenset(
    {
        _ADDRESS, "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope", "ssl.endpoint.identification.algorithm", "client.id", "client.rack",
    }
)  # fmt: skip
_UNDERSCORED = {"log.level": "log_level"}  # the names that keep theirs


def process_properties() -> dict[str, Any]:
    """Properties of all clients of this process that were not given others. Raises UsageError."""
    return {name: value for name, value in _all().items() if name != _ADDRESS}


def process_bootstrap() -> str | None:
    """Kafka's address where these sources name it. Raises UsageError."""
    return _all().get(_ADDRESS)


def described(config: str | None) -> list[tuple[str, str, str]]:
    """Name, value and source of each property; the value only where it is known to be no secret. Raises UsageError."""
    path = settings.config_file(os.environ)
    section, named = settings.kafka_section(path)
    variables = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
    file = config or variables.get(CONFIG) or named
    layers = [
        (_files_read(section), f"{path}, [{settings.KAFKA}]"),
        (_files_read(_from_environment(variables)), f"environment {PREFIX}<NAME>"),
        (properties_in(Path(file).expanduser()) if file else {}, str(file)),
    ]
    found = {name: (value, where) for layer, where in layers for name, value in normal(layer).items()}
    return [(name, _if_no_secret(name, value), where) for name, (value, where) in sorted(found.items())]


def _if_no_secret(name: str, value: Any) -> str:
    return str(value) if name in _NO_SECRETS or name.endswith((".location", ".ms")) else "(set, not shown)"


def publish(config: Path | None) -> None:
    """Make a file of properties that of this process and of its children; None changes nothing."""
    if config is not None:
        os.environ[CONFIG] = str(config)


def _all() -> Mapping[str, Any]:
    variables = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
    return _read(tuple(sorted(variables.items())), settings.config_file(os.environ))


@functools.lru_cache(maxsize=4)
def _read(variables: tuple[tuple[str, str], ...], config_file: Path | None) -> Mapping[str, Any]:
    """Properties of all three sources; files are read once a process."""
    section, config = settings.kafka_section(config_file)
    config = dict(variables).get(CONFIG) or config
    found = normal(_files_read(section)) | normal(_files_read(_from_environment(dict(variables))))
    return found | (normal(properties_in(Path(config).expanduser())) if config else {})


def properties_in(path: Path) -> dict[str, Any]:
    """Properties of a file with lines NAME=VALUE, as librdkafka's and Java's clients have them. Raises UsageError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read Kafka's properties in {path}: {getattr(error, 'strerror', 'no text')}"
        ) from error
    found: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise UsageError(f"{path}, line {number}: wants NAME=VALUE")
        if name in found:
            raise UsageError(f"{path}, line {number}: {name} is given twice")
        found[name] = value
    return _files_read(found)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for variable, text in environ.items():
        if variable in _OF_SETTINGS or settings.is_service_link(variable, text):
            continue
        if text and variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            stem, file = (name.removesuffix(_FILE), _FILE) if name.endswith(_FILE) else (name, "")
            dotted = stem.replace("_", ".")
            found[_UNDERSCORED.get(dotted, dotted) + file] = text
    return found


def _files_read(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties in which every `<name>_file` is `<name>`, with what the file holds."""
    found = {name: value for name, value in properties.items() if not name.endswith(_FILE)}
    for given, place in properties.items():
        name = given.removesuffix(_FILE)
        if name == given:
            continue
        if name in found:
            raise UsageError(f"Kafka's property {name} is given twice, as {given} too; leave one out")
        try:
            found[name] = Path(place).expanduser().read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", "no text")
            raise UsageError(f"cannot read {place}, which Kafka's {given} names: {why}") from error
    return found
