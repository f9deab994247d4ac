"""Four weeks of a small plant, taken in by a running platform: where journeys begin, and how they look at what came of it."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from pdm_assets.resources.landing import land
from pdm_assets.simulator.writer import simulate
from pdm_assets_tests.builders import day
from pdm_assets_tests.journeys.daemon import Platform

FIRST, HISTORY_END, END = day("2015-01-01"), day("2015-01-29"), day("2015-02-03")
SETTINGS = {
    "PDM_FIRST_DAY": "2015-01-01",
    "PDM_LAST_DAY": "2015-02-02",
    "PDM_TRAIN_DAYS": "12",
    "PDM_CALIBRATION_DAYS": "4",
    "PDM_TEST_DAYS": "3",
    "PDM_MODEL_TYPE": "decision_tree",
}


def fleet(folder: Path, end: dt.date) -> Path:
    """The files of the plant from FIRST to an end."""
    simulate(folder, machines=12, days=(end - FIRST).days, end=dt.datetime.combine(end, dt.time(), dt.UTC), seed=3)
    return folder


def take_in(it: Platform, files: Path) -> None:
    """Land the history as five files and wait until it is scored."""
    land(files, it.data / "landing")
    it.wait_for("the history", lambda: it.all_done(1))


def content(data: Path, table: str) -> pa.Table:
    """A table but for what each writing of it makes anew, in the order of its keys."""
    rows = DeltaTable(str(data / "lake" / table)).to_pyarrow_table().drop_columns(["scored_at", "features_version"])
    return rows.sort_by([("machine_id", "ascending"), ("observed_at", "ascending"), ("component", "ascending")])


def days_with_rows(data: Path, table: str) -> set[dt.date]:
    """The days that a table has rows of."""
    files = DeltaTable(str(data / "lake" / table)).get_add_actions(flatten=True)
    days, rows = files.column("partition.date").to_pylist(), files.column("num_records").to_pylist()
    return {d for d, n in zip(days, rows, strict=True) if n}
