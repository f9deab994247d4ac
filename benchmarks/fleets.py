"""Simulated fleets as the frames that training reads, made by the platform's own transforms, for quality.py and search.py."""

import datetime as dt
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv
from pyspark.sql import DataFrame, SparkSession

from pdm_assets.engine.duckdb.types import arrow_type
from pdm_assets.models.backtest import fold_settings
from pdm_assets.models.fitting import Fitter
from pdm_assets.models.training import TrainedModel, train
from pdm_assets.schemas.raw import FILE_COLUMNS
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import ModelType, Settings
from pdm_assets.simulator.writer import simulate
from pdm_assets.transforms.features import observe_machines
from pdm_assets.transforms.labels import label_observations

END = dt.date(2026, 1, 1)
DAYS = 540
MACHINES = 200


@dataclass(frozen=True)
class Fleet:
    """A fleet's whole history, each frame cached on disk."""

    name: str
    files: Path
    first_day: dt.date
    machines: DataFrame
    observations: DataFrame
    failures: DataFrame
    maintenance: DataFrame

    def labels(self, settings: Settings) -> DataFrame:
        """What became of the observations within the settings' horizon."""
        return label_observations(
            self.machines,
            self.failures,
            cadence_hours=settings.cadence_hours,
            horizon=settings.horizon,
            known_until=dt.datetime.combine(END, dt.time(), dt.UTC),
        )

    def train(
        self, fitter: Fitter, cutoff: dt.date, settings: Settings, kind: ModelType, **parameters: float | str
    ) -> TrainedModel:
        """A model of this fleet's history before a cutoff."""
        return train(
            self.observations,
            self.labels(settings),
            self.failures,
            self.maintenance,
            cutoff=cutoff,
            settings=fold_settings(cutoff, self.first_day, settings),
            model_type=kind,
            data_versions={},
            code_version="benchmark",
            version=f"{kind}-{cutoff}",
            fitter=fitter,
            folder=self.files / "models" / uuid.uuid4().hex,
            parameters=parameters,
        )


def cutoffs(folds: int) -> list[dt.date]:
    """The first days of the last months, as many as there are to be folds, the earliest first."""
    days = [END - dt.timedelta(days=n) for n in range(31 * folds)]
    return sorted(day for day in days if day.day == 1)[-folds:]


def make(
    spark: SparkSession, root: Path, name: str, *, seed: int, harder: bool = False, machines: int = MACHINES, days: int = DAYS
) -> Fleet:
    """Simulate a fleet and observe it."""
    files = root / name
    simulate(files, machines=machines, days=days, end=dt.datetime.combine(END, dt.time(), dt.UTC), seed=seed, harder=harder)
    first = END - dt.timedelta(days=days)
    raw = {key: _raw(spark, files, key) for key in ("raw/telemetry", "raw/errors", "raw/maintenance", "raw/failures")}
    fleet = _raw(spark, files, "raw/machines")
    of_days = spark.createDataFrame(_of_days(fleet.toArrow(), [first + dt.timedelta(days=n) for n in range(days)]))
    observed = observe_machines(
        of_days,
        raw["raw/telemetry"],
        raw["raw/errors"],
        raw["raw/maintenance"],
        cadence_hours=Settings().cadence_hours,
    )
    path = str(files / "observations.parquet")
    pq.write_table(observed.toArrow(), path)
    observations = spark.read.schema(observed.schema).parquet(path)
    return Fleet(name, files, first, of_days, observations, raw["raw/failures"], raw["raw/maintenance"])


def _of_days(machines: pa.Table, days: list[dt.date]) -> pa.Table:
    """Each machine on each of the days."""
    rows = machines.take(np.repeat(np.arange(machines.num_rows), len(days)))
    return rows.append_column("date", pa.array(days * machines.num_rows, pa.date32()))


def _raw(spark: SparkSession, files: Path, key: str) -> DataFrame:
    """A file of the simulator as its raw table, with the day of each row where it has a time."""
    table = TABLES[key]
    names = {landed: column for landed, column in FILE_COLUMNS[key].items() if column in table.column_names}
    stem = {"raw/maintenance": "maint"}.get(key, table.name)
    kinds = {field.name: arrow_type(field.dataType) for field in table.struct.fields}
    given = {
        landed: pa.timestamp("us") if pa.types.is_timestamp(kinds[column]) else kinds[column]
        for landed, column in names.items()
    }
    rows = csv.read_csv(
        files / f"{stem}.csv", convert_options=csv.ConvertOptions(column_types=given, include_columns=list(names))
    )
    rows = rows.rename_columns(list(names.values()))
    instants = [name for name in names.values() if pa.types.is_timestamp(kinds[name])]
    for name in instants:
        rows = rows.set_column(rows.schema.get_field_index(name), name, pc.assume_timezone(rows[name], "UTC"))
    if instants:
        rows = rows.append_column("date", rows[instants[0]].cast(pa.timestamp("us")).cast(pa.date32()))
    pq.write_table(rows, files / f"{stem}.parquet")
    frame = spark.createDataFrame(rows.slice(0, 0))
    return spark.read.schema(frame.schema).parquet(str(files / f"{stem}.parquet"))
