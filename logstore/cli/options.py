"""Options that several commands share, and the settings made of them."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from logstore import settings
from logstore.client.read.level import LEVELS
from logstore.log.connect.sources import publish
from logstore.model.errors import UsageError
from logstore.model.key import from_base64url, to_base64url

F = TypeVar("F", bound=Callable[..., Any])
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

KAFKA_CONFIG = click.option(
    "--kafka-config",
    metavar="FILE",
    help="How to prove to Kafka who one is: librdkafka's properties.  [default: LOGSTORE_KAFKA_<NAME>, logstore.toml]",
)
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "bootstrap": click.option(
        "--bootstrap", metavar="HOST:PORT", help="Kafka.  [default: that of the node that runs here]"
    ),
    "kafka_config": KAFKA_CONFIG,
    "url": click.option(
        "--url", metavar="URL", help="Any node's read API.  [default: that of the node that runs here]"
    ),
    "data_dir": click.option(
        "--data-dir", metavar="DIR", help="The node's data directory.  [default: logstore/dev in the user's data]"
    ),
    "deadline_ms": click.option(
        "--deadline-ms", metavar="MS", help="How long a read may wait, 1 to 30,000.  [default: 2,000]"
    ),
    "timeout_s": click.option(
        "--timeout", "timeout_s", metavar="S", help="Seconds to wait until every reader serves it.  [default: 30]"
    ),
}
STORAGE = click.option(
    "--storage",
    metavar="URL",
    envvar="LOGSTORE_STORAGE",
    help="Where archive and snapshots lie.  [default: the store's own]",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
KEY_ENCODING = click.option(
    "--key-encoding",
    type=click.Choice(["text", "base64url"]),
    default="text",
    show_default=True,
    help="How keys are written here.",
)
AS_OF = click.option(
    "--as-of", metavar="TOKEN|TIME", help="What it held then: a token of all partitions read, or a time (RFC 3339)."
)


CONSISTENCY = click.option(
    "--consistency",
    type=click.Choice(LEVELS),
    help="How fresh the answer must be; latest and linearizable hold all that was acknowledged before.",
)
MAX_LAG_MS = click.option(
    "--max-lag-ms", type=click.IntRange(0), metavar="MS", help="With --consistency bounded: how old the answer may be."
)


def with_settings(*names: str) -> Callable[[F], F]:
    """Add the options `names` to a command, which gets `Settings` made of them as its first argument."""
    wanted = [more for name in names for more in ((name, "kafka_config") if name == "bootstrap" else (name,))]

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name) for name in wanted}
            chosen = settings.load(flags)
            publish(chosen.kafka_config)
            return function(chosen, *args, **kwargs)

        wrapped: Any = run
        for name in reversed(wanted):
            wrapped = _OPTIONS[name](wrapped)
        return wrapped  # type: ignore[no-any-return]  # untyped library

    return decorate


def key_bytes(text: str, encoding: str) -> bytes:
    """A key as given on the command line; text may hold any bytes but NUL. Raises UsageError."""
    return from_base64url(text) if encoding == "base64url" else os.fsencode(text)


def key_text(key: bytes, encoding: str) -> bytes:
    """A key as it is printed."""
    return to_base64url(key).encode() if encoding == "base64url" else key


def pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary; raises UsageError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} wants NAME=VALUE, not {text[:80]!r}")
        found[name] = value
    return found


def duration_ms(text: str, option: str) -> int:
    """A time such as 90s, 30m, 24h, 7d or 500ms in milliseconds; raises UsageError."""
    number = text.rstrip("smhd")
    unit = _UNITS_MS.get(text[len(number) :])
    if unit is None or not (number.isascii() and number.isdigit() and len(number) < 16):
        raise UsageError(f"{option} wants a time such as 90s, 30m, 24h or 7d, not {text[:80]!r}")
    return int(number) * unit


class _ByteSize(click.ParamType):
    """Option of bytes, with a unit or without."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of a size such as 8GiB."""
        try:
            return value if isinstance(value, int) else settings.parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


BYTES = _ByteSize()


def read_file(path: Path) -> bytes:
    """A file's content; raises UsageError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
