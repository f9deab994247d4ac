"""Simulated fleets as the frames that training reads, made by the platform's own transforms, for quality.py and search.py."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pdm_assets.models.backtest import fold_settings
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

    def train(self, cutoff: dt.date, settings: Settings, kind: ModelType, **parameters: float | str) -> TrainedModel:
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
    dates = F.explode(F.sequence(F.lit(first), F.lit(END - dt.timedelta(days=1)))).alias("date")
    of_days = fleet.select("*", dates)
    observed = observe_machines(
        of_days,
        raw["raw/telemetry"],
        raw["raw/errors"],
        raw["raw/maintenance"],
        cadence_hours=Settings().cadence_hours,
    )
    path = str(files / "observations")
    observed.write.parquet(path)
    return Fleet(name, first, of_days, spark.read.parquet(path), raw["raw/failures"], raw["raw/maintenance"])


def _raw(spark: SparkSession, files: Path, key: str) -> DataFrame:
    """A file of the simulator as its raw table, with the day of each row where it has a time."""
    table = TABLES[key]
    names = {landed: column for landed, column in FILE_COLUMNS[key].items() if column in table.column_names}
    stem = {"raw/maintenance": "maint"}.get(key, table.name)
    kinds = {field.name: field.dataType for field in table.struct.fields}
    rows = spark.read.option("header", True).csv(str(files / f"{stem}.csv"))
    rows = rows.select(*(F.col(landed).cast(kinds[column]).alias(column) for landed, column in names.items()))
    instants = [name for name in names.values() if kinds[name] == T.TimestampType()]
    return rows.withColumn("date", F.to_date(instants[0])) if instants else rows
