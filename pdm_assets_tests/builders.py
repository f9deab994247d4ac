"""Small frames for tests, in the columns of the raw tables."""

import datetime as dt
from collections.abc import Iterable

from pyspark.sql import DataFrame, SparkSession

from pdm_assets.schemas.raw import ERRORS, FAILURES, MACHINES, MAINTENANCE, TELEMETRY
from pdm_assets.schemas.table import Table


def utc(text: str) -> dt.datetime:
    """An instant from 'YYYY-MM-DD HH:MM' in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def frame(spark: SparkSession, table: Table, rows: Iterable[tuple]) -> DataFrame:
    """Rows of a table; the partition column, if left out, is the day of the second value."""
    width = len(table.column_names)
    complete = [row if len(row) == width else (*row, row[1].date()) for row in rows]
    return spark.createDataFrame(complete, table.struct)


def telemetry(spark: SparkSession, rows: Iterable[tuple]) -> DataFrame:
    """(machine, time, volt[, rotate, pressure, vibration]); channels left out read 1.0."""
    filled = [(m, utc(at), *(values + (1.0,) * (4 - len(values)))) for m, at, *rest in rows for values in [tuple(rest)]]
    return frame(spark, TELEMETRY, filled)


def errors(spark: SparkSession, rows: Iterable[tuple] = ()) -> DataFrame:
    return frame(spark, ERRORS, [(m, utc(at), code) for m, at, code in rows])


def maintenance(spark: SparkSession, rows: Iterable[tuple] = ()) -> DataFrame:
    return frame(spark, MAINTENANCE, [(m, utc(at), component) for m, at, component in rows])


def failures(spark: SparkSession, rows: Iterable[tuple] = ()) -> DataFrame:
    return frame(spark, FAILURES, [(m, utc(at), component) for m, at, component in rows])


def machines(spark: SparkSession, rows: Iterable[tuple]) -> DataFrame:
    """(machine, day): of model3 and 18 years old."""
    return frame(spark, MACHINES, [(m, "model3", 18, day(on)) for m, on in rows])
