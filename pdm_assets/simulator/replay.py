"""Lands the days of a folder's five files one by one, as a plant would send them: a file a table and day, or hour."""

import datetime as dt
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pdm_assets.simulator.writer import FILES

# Telemetry last: what makes a day's observations is then seen together with the day's events.
FOLDERS = {
    "machines.csv": "machines",
    "errors.csv": "errors",
    "maint.csv": "maintenance",
    "failures.csv": "failures",
    "telemetry.csv": "telemetry",
}


class Replayer:
    """The rows of a folder's files by time, and where to land them.

    Only rows from `first_day` on are held in memory: a demo replays the last days of a long life.
    """

    def __init__(self, source: Path, landing_root: Path, first_day: dt.date = dt.date.min) -> None:
        self.source, self.landing_root = source, landing_root
        self._tables = {name: _rows(source / name, first_day) for name in FOLDERS if name != "machines.csv"}

    def land_machines(self) -> list[Path]:
        """Land the list of the fleet, without which no row can be told from one of an unknown machine."""
        folder = self.landing_root / FOLDERS["machines.csv"]
        final = folder / "machines.csv"
        if final.exists() and final.read_bytes() == (self.source / "machines.csv").read_bytes():
            return []
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / ".machines.csv.part"
        partial.unlink(missing_ok=True)
        with (self.source / "machines.csv").open("rb") as source, partial.open("xb") as target:  # never through a link
            shutil.copyfileobj(source, target)
        os.replace(partial, final)
        return [final]

    def land_day(self, day: dt.date) -> list[Path]:
        """Land the rows of a whole UTC day; the files that were written."""
        start = dt.datetime.combine(day, dt.time())
        return self._land(day.isoformat(), start, start + dt.timedelta(days=1))

    def land_hours(self, day: dt.date, first: int, last: int) -> list[Path]:
        """Land the rows of the hours first to last of a day, one file an hour."""
        midnight = dt.datetime.combine(day, dt.time())
        landed = []
        for hour in range(first, last + 1):
            start = midnight + dt.timedelta(hours=hour)
            landed += self._land(f"{day.isoformat()}T{hour:02d}", start, start + dt.timedelta(hours=1))
        return landed

    def _land(self, label: str, start: dt.datetime, end: dt.datetime) -> list[Path]:
        landed = []
        for name, (times, rows) in self._tables.items():
            first, last = np.searchsorted(times, [np.datetime64(start, "s"), np.datetime64(end, "s")])
            if first == last:
                continue
            folder = self.landing_root / FOLDERS[name]
            folder.mkdir(parents=True, exist_ok=True)
            final, partial = (
                folder / f"{folder.name}-{label}.csv",
                folder / f".{folder.name}-{label}.csv.part",
            )
            partial.unlink(missing_ok=True)
            with partial.open("xb") as target:
                csv.write_csv(
                    rows.slice(first, last - first), target, csv.WriteOptions(quoting_style="none", quoting_header="none")
                )
            if final.exists() and final.read_bytes() == partial.read_bytes():
                partial.unlink()  # landed before: a new time would make it news
                continue
            os.replace(partial, final)
            landed.append(final)
        return landed


def _rows(path: Path, first_day: dt.date) -> tuple[np.ndarray, pa.Table]:
    """The rows from a day on, in the order of time, and their times."""
    kinds = {field.name: field.type for field in FILES[path.name]}
    start = pa.scalar(dt.datetime.combine(first_day, dt.time()), pa.timestamp("s"))
    with csv.open_csv(path, convert_options=csv.ConvertOptions(column_types=kinds)) as batches:
        kept = [batch.filter(pc.greater_equal(batch["datetime"], start)) for batch in batches]
    rows = pa.Table.from_batches(kept, schema=FILES[path.name]).sort_by([("datetime", "ascending"), ("machineID", "ascending")])
    return rows["datetime"].to_numpy(), rows
