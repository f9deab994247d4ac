"""Writes a simulated fleet as the reference's five files, a few machines at a time."""

import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pdm_assets.simulator.fleet import HOURS_A_DAY, Life, live, readings

MACHINES_AT_ONCE = 20  # of a year: 175,000 rows, some 40 MB with their text
DECIMALS = 6  # more says nothing about noise of 5 to 50, and is a third of the file
CHANNELS = ("volt", "rotate", "pressure", "vibration")
FILES = {
    "telemetry.csv": pa.schema(
        [
            ("datetime", pa.timestamp("s")),
            ("machineID", pa.int64()),
            *((name, pa.float64()) for name in CHANNELS),
        ]
    ),
    "errors.csv": pa.schema([("datetime", pa.timestamp("s")), ("machineID", pa.int64()), ("errorID", pa.string())]),
    "maint.csv": pa.schema([("datetime", pa.timestamp("s")), ("machineID", pa.int64()), ("comp", pa.string())]),
    "failures.csv": pa.schema([("datetime", pa.timestamp("s")), ("machineID", pa.int64()), ("failure", pa.string())]),
    "machines.csv": pa.schema([("machineID", pa.int64()), ("model", pa.string()), ("age", pa.int64())]),
}

Chunk = dict[str, pa.Table]


def simulate(
    out: Path,
    *,
    machines: int,
    days: int,
    end: dt.datetime,
    seed: int,
    first_machine_id: int = 1,
    harder: bool = False,
    shift: dt.date | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write telemetry.csv, errors.csv, maint.csv, failures.csv and machines.csv, sorted by machine and time.

    Telemetry is hourly over [end - days, end). A file appears under its name when it is whole.

    Args:
        out: folder for the files.
        machines: size of the fleet.
        days: length of telemetry.
        end: first instant after it, UTC midnight.
        seed: another seed, another fleet.
        first_machine_id: number of the first machine.
        harder: without the data set's artefacts, see `fleet.live`.
        shift: the day from which on pressure has a higher level and comp1 fails in a new way.
        progress: called with the number of machines just written.
    """
    out.mkdir(parents=True, exist_ok=True)
    start = end.replace(tzinfo=None) - dt.timedelta(days=days)
    partial = {name: out / f".{name}.part" for name in FILES}
    options = csv.WriteOptions(quoting_style="none", quoting_header="none")
    with ExitStack() as open_files:
        writers = {
            name: open_files.enter_context(csv.CSVWriter(str(partial[name]), schema, write_options=options))
            for name, schema in FILES.items()
        }
        numbers = range(first_machine_id, first_machine_id + machines)
        shift_hour = None if shift is None else (shift - start.date()).days * HOURS_A_DAY
        for chunk in _chunks(numbers, days * HOURS_A_DAY, start, seed, harder, shift_hour):
            for name, table in chunk.items():
                writers[name].write_table(table)
            if progress:
                progress(chunk["machines.csv"].num_rows)
    for name, path in partial.items():
        path.replace(out / name)


def _chunks(numbers: range, hours: int, start: dt.datetime, seed: int, harder: bool, shift_hour: int | None) -> Iterator[Chunk]:
    """The fleet in chunks of machines; one chunk is made while the one before is written."""

    def make(ids: list[int]) -> Chunk:
        lives = [live(machine_id, hours=hours, seed=seed, harder=harder, shift_hour=shift_hour) for machine_id in ids]
        return {"telemetry.csv": _telemetry(lives, hours, start, seed, shift_hour), **events(lives, start)}

    with ThreadPoolExecutor(max_workers=1) as maker:
        rest = iter(numbers)
        pending = None
        while ids := list(islice(rest, MACHINES_AT_ONCE)):
            following = maker.submit(make, ids)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def _telemetry(lives: list[Life], hours: int, start: dt.datetime, seed: int, shift_hour: int | None) -> pa.Table:
    of_all = [readings(life, hours=hours, seed=seed, shift_hour=shift_hour) for life in lives]
    values = np.round(np.concatenate(of_all), DECIMALS)
    times = np.datetime64(start, "s") + np.arange(hours) * np.timedelta64(3600, "s")
    columns = [
        pa.array(np.tile(times, len(lives))),
        pa.array(np.repeat([life.machine_id for life in lives], hours)),
        *(pa.array(np.ascontiguousarray(values[:, n])) for n in range(len(CHANNELS))),
    ]
    return pa.Table.from_arrays(columns, schema=FILES["telemetry.csv"])


def events(lives: list[Life], start: dt.datetime) -> Chunk:
    """All tables but telemetry, which is the costly one."""

    def table(name: str, kind: str, rows: list[tuple[int, int, int]]) -> pa.Table:
        hours = np.array([hour for _, hour, _ in rows], dtype=np.int64)
        times = np.datetime64(start, "s") + hours * np.timedelta64(3600, "s")
        columns = [
            pa.array(times),
            pa.array([m for m, _, _ in rows], pa.int64()),
            pa.array([f"{kind}{n + 1}" for *_, n in rows], pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=FILES[name])

    return {
        "errors.csv": table("errors.csv", "error", [(x.machine_id, *event) for x in lives for event in x.errors]),
        "maint.csv": table("maint.csv", "comp", [(x.machine_id, *event) for x in lives for event in x.replacements]),
        "failures.csv": table("failures.csv", "comp", [(x.machine_id, *event) for x in lives for event in x.failures]),
        "machines.csv": pa.Table.from_arrays(
            [
                pa.array([x.machine_id for x in lives], pa.int64()),
                pa.array([f"model{x.model + 1}" for x in lives], pa.string()),
                pa.array([x.age for x in lives], pa.int64()),
            ],
            schema=FILES["machines.csv"],
        ),
    }
