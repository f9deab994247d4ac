"""The same DataFrame code on both engines, and what of its results must be equal."""

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

Make = Callable[[SparkSession], DataFrame]


@dataclass(frozen=True)
class Result:
    """Columns and rows of a frame, or the error that came instead."""

    columns: tuple[tuple[str, str], ...] = ()
    nullable: tuple[bool, ...] = ()
    rows: tuple[Any, ...] = ()
    error: str | None = None


def result_of(session: SparkSession, make: Make, *, in_order: bool = False) -> Result:
    """What a frame holds; rows in any order unless their order is promised."""
    try:
        frame = make(session)
        schema = frame.schema
        rows = [tuple(map(exact, row)) for row in frame.collect()]
    except PySparkException as error:
        return Result(error=f"{type(error).__name__} {error.getCondition()}")
    if not in_order:
        rows = sorted(rows, key=repr)
    columns = tuple((f.name, f.dataType.simpleString()) for f in schema.fields)
    return Result(columns, tuple(f.nullable for f in schema.fields), tuple(rows))


def exact(value: Any) -> Any:
    """A value that is equal to another only if every bit is: -0.0 is not 0.0, NaN is NaN."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value.hex()
    if isinstance(value, T.Row):
        return tuple((name, exact(each)) for name, each in value.asDict(recursive=False).items())
    if isinstance(value, list):
        return tuple(map(exact, value))
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return value


def assert_same(duck: Result, real: Result) -> None:
    """Equal rows, columns and errors; a column is nullable here wherever it is in Spark, and where it holds nulls."""
    assert duck.error == real.error
    assert duck.columns == real.columns
    assert duck.rows == real.rows
    for place, (here, there) in enumerate(zip(duck.nullable, real.nullable, strict=True)):
        assert here or not any(row[place] is None for row in duck.rows), f"{duck.columns[place]} holds nulls"
        assert here >= there or here == there, f"{duck.columns[place]} may be null in Spark"
