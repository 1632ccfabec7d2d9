"""Partitions that the running librdkafka gives a key, asked from the library itself.

A wrong partitioner would hide rows from every reader.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka

from logstore.model.errors import SetupError
from logstore.model.partitioner import partition_of
from logstore.model.partitioning.partitioning import Partitioning

_SAMPLES = (b"a", b"ab", b"abc", b"abcd", b"key-1", b"\xff\x80\x00", b"JFK/2013-01-01/B6 725", bytes(range(256)))
_PARTITIONS = (1, 3, 4, 64, 1000)
_SYMBOL = "rd_kafka_msg_partitioner_murmur2"
_SIGNATURE = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)

# (None, key, length of key, partitions, None, None) -> partition: the signature of librdkafka, which saves a call
Place = Callable[[None, bytes, int, int, None, None], int]


def placing(partitioning: Partitioning) -> Place:
    """The quickest function that places a table's keys, to be called with its number of partitions."""
    if not partitioning.splits:
        return _hashing()
    between = partitioning.of
    return lambda _topic, key, _length, _partitions, _opaque, _message: between(key)


@functools.cache
def _hashing() -> Place:
    """The function of librdkafka where it can be called, which takes a fifth of the time of ours."""
    library = _library()
    if library is None:
        return lambda _topic, key, _length, partitions, _opaque, _message: partition_of(key, partitions)
    place: Any = getattr(ctypes.PyDLL(library._name), _SYMBOL)  # keeps the interpreter lock: it is over at once
    place.restype = ctypes.c_int32  # and no `argtypes`, which take longer to obey than the key to hash
    return place  # type: ignore[no-any-return]  # untyped library


def agrees_on_murmur2() -> bool:
    """True when librdkafka's murmur2 places keys as `model.partitioner` does; False when the library cannot be asked.

    Raises SetupError when both disagree: writing with either would put rows where the other does not look.
    """
    library = _library()
    if library is None:
        return False
    place = getattr(library, _SYMBOL)
    place.restype = ctypes.c_int32
    place.argtypes = _SIGNATURE
    for key in _SAMPLES:
        for partitions in _PARTITIONS:
            theirs, ours = place(None, key, len(key), partitions, None, None), partition_of(key, partitions)
            if theirs != ours:
                raise SetupError(
                    f"librdkafka {confluent_kafka.libversion()[0]} places the key {key!r} of {partitions} partitions "
                    f"in {theirs}, Kafka's "
                    f"Java client in {ours}; nothing was written. Install the pinned confluent-kafka of constraints.txt"
                )
    return True


def _library() -> ctypes.CDLL | None:
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        if hasattr(library, _SYMBOL):
            return library
    return None


def _candidates() -> list[str]:
    """The library this process has mapped first (it is the one that will run), then the one the wheel bundles."""
    maps = Path("/proc/self/maps")
    mapped = (
        {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if "librdkafka" in line}
        if maps.exists()
        else set()
    )
    package = Path(confluent_kafka.__file__).parent
    bundled = [
        str(path)
        for folder in (package.with_name("confluent_kafka.libs"), package / ".dylibs")
        for path in folder.glob("librdkafka*")
    ]
    return [*sorted(mapped), *bundled]
