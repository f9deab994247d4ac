"""A toy fleet that a model can learn: component N fails within the horizon where errorN is seen."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from pdm_assets.models.fitting import Fitter
from pdm_assets.models.training import TrainedModel, train
from pdm_assets.schemas.features import COMPONENT_FAILURES, OBSERVATIONS, READINGS_COUNT
from pdm_assets.schemas.raw import COMPONENTS, FAILURES, MAINTENANCE
from pdm_assets.settings import Settings

SETTINGS = Settings(train_days=20, calibration_days=8, test_days=8, horizon_hours=48, seed=7)
FIRST_DAY = dt.date(2015, 1, 1)
CUTOFF = dt.date(2015, 2, 14)  # 2 days of look-back, then 20 + 2 + 8 + 2 + 8 + 2 days
DAYS = 60
MACHINES = 6

ARROW_TYPES = {
    T.LongType(): pa.int64(),
    T.IntegerType(): pa.int32(),
    T.DoubleType(): pa.float64(),
    T.BooleanType(): pa.bool_(),
    T.StringType(): pa.string(),
    T.TimestampType(): pa.timestamp("us", tz="UTC"),
}


def fleet_columns() -> dict[str, list]:
    """Columns of features/observations: two observations a day and machine, DAYS days from FIRST_DAY."""
    rng = np.random.default_rng(1)
    start = dt.datetime.combine(FIRST_DAY, dt.time(6), dt.UTC)
    rows = MACHINES * DAYS * 2
    columns: dict[str, list] = {
        "machine_id": [machine for machine in range(MACHINES) for _ in range(DAYS * 2)],
        "observed_at": [start + dt.timedelta(hours=12 * n) for n in range(DAYS * 2)] * MACHINES,
    }
    for field in OBSERVATIONS.columns[2:]:
        if field.dataType == T.DoubleType():
            columns[field.name] = rng.normal(100, 10, rows).tolist()
        elif field.name.startswith("error"):
            columns[field.name] = (rng.random(rows) < 0.15).astype(int).tolist()
        elif field.dataType == T.BooleanType():
            columns[field.name] = [False] * rows
    columns["age_years"] = [machine * 3 for machine in columns["machine_id"]]
    columns["machine_model"] = [f"model{machine % 2 + 1}" for machine in columns["machine_id"]]
    columns[READINGS_COUNT] = [36] * rows
    return columns


def observations_of(spark: SparkSession, columns: dict[str, list]) -> DataFrame:
    """The columns as a frame of features/observations."""
    return _frame(spark, OBSERVATIONS.columns, columns)


def labels_of(spark: SparkSession, columns: dict[str, list], never: tuple[str, ...] = (), horizon_hours: int = 48) -> DataFrame:
    """What becomes of the observations; components in `never` do not fail."""
    rows = len(columns["machine_id"])
    long = {name: [value for component in COMPONENTS for value in columns[name]] for name in ("machine_id", "observed_at")}
    long["component"] = [component for component in COMPONENTS for _ in range(rows)]
    long["fails_within_horizon"] = [
        bool(count) and component not in never
        for component in COMPONENTS
        for count in columns[f"{component.replace('comp', 'error')}_count_24h"]
    ]
    long["horizon_hours"] = [horizon_hours] * len(long["component"])
    return _frame(spark, COMPONENT_FAILURES.columns, long)


def trained_tree(spark: SparkSession, version: str, fitter: Fitter, folder: Path) -> TrainedModel:
    """A tree that knows the toy fleet, in which nothing was repaired."""
    columns = fleet_columns()
    return train(
        observations_of(spark, columns),
        labels_of(spark, columns),
        spark.createDataFrame([], FAILURES.struct),
        spark.createDataFrame([], MAINTENANCE.struct),
        cutoff=CUTOFF,
        settings=SETTINGS,
        model_type="decision_tree",
        data_versions={"features/observations": 3},
        code_version="test",
        version=version,
        fitter=fitter,
        folder=folder,
        parameters={"maxDepth": 2},
    )


def _frame(spark: SparkSession, fields: tuple[T.StructField, ...], columns: dict[str, list]) -> DataFrame:
    arrays = [pa.array(columns[field.name], ARROW_TYPES[field.dataType]) for field in fields]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, names=[field.name for field in fields]))
