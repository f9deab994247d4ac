"""Casts as Spark makes them in ANSI mode: what can't be kept raises, a fraction is cut off and not rounded."""

import math
from decimal import Decimal

from pyspark.sql import types as T

from pdm_assets.engine.duckdb.errors import not_supported
from pdm_assets.engine.duckdb.types import FRACTIONAL, INTEGRAL, NUMERIC, Typed, is_null, sql_type

JAVA_DOUBLE = "java_double_to_text"  # a function of the connection: session.py makes it
DAY_US = 86_400_000_000
LONG_LIMIT = "9223372036854775808.0::DOUBLE"  # 2^63: a double just above the greatest BIGINT, which Spark makes that


def cast(value: Typed, to: T.DataType) -> Typed:
    """The value as another type; its column name stays.

    Raises:
        EngineError: if this engine does not have the cast.
    """
    kind = value.type
    if kind == to:
        return value
    if is_null(kind):
        return Typed(f"NULL::{sql_type(to)}", to, True, value.name)
    return Typed(_cast_sql(value.sql, kind, to), to, value.nullable, value.name)


def _cast_sql(sql: str, kind: T.DataType, to: T.DataType) -> str:
    plain = f"CAST({sql} AS {sql_type(to)})"
    if isinstance(to, T.StringType):
        return _to_text(sql, kind, to)
    return plain if _is_plain(kind, to) else _converted(sql, kind, to)


def _converted(sql: str, kind: T.DataType, to: T.DataType) -> str:
    if isinstance(kind, FRACTIONAL) and isinstance(to, INTEGRAL):
        cut = f"CAST(trunc({sql}) AS {sql_type(to)})"
        return (
            f"(CASE WHEN {sql} = {LONG_LIMIT} THEN 9223372036854775807 ELSE {cut} END)" if isinstance(to, T.LongType) else cut
        )
    if isinstance(kind, T.DateType) and isinstance(to, T.TimestampType):
        return f"make_timestamptz(epoch_us({sql}))"
    if isinstance(kind, T.TimestampType) and isinstance(to, T.DateType):
        return f"CAST(make_timestamp(epoch_us({sql})) AS DATE)"
    return _refused(kind, to)


def _is_plain(kind: T.DataType, to: T.DataType) -> bool:
    """Whether DuckDB's own cast is Spark's."""
    if kind == to or is_null(kind):
        return True
    if isinstance(kind, T.BooleanType):
        return isinstance(to, NUMERIC)
    if isinstance(kind, INTEGRAL):
        return isinstance(to, (*NUMERIC, T.BooleanType))
    if isinstance(kind, T.ArrayType) and isinstance(to, T.ArrayType):
        return _is_plain(kind.elementType, to.elementType)
    if isinstance(kind, T.StructType) and isinstance(to, T.StructType):
        return len(kind.fields) == len(to.fields) and _plain_inside(kind, to)
    return isinstance(kind, T.FloatType) and isinstance(to, T.DoubleType)


def _plain_inside(kind: T.StructType, to: T.StructType) -> bool:
    pairs = zip(kind.fields, to.fields, strict=True)
    return all(_is_plain(one.dataType, other.dataType) and one.name == other.name for one, other in pairs)


def _to_text(sql: str, kind: T.DataType, to: T.DataType) -> str:
    if isinstance(kind, (*INTEGRAL, T.BooleanType, T.DateType)):
        return f"CAST({sql} AS VARCHAR)"
    if isinstance(kind, T.TimestampType):
        return f"CAST(make_timestamp(epoch_us({sql})) AS VARCHAR)"
    if isinstance(kind, T.DoubleType):
        return f"{JAVA_DOUBLE}({sql})"
    return _refused(kind, to)


def _refused(kind: T.DataType, to: T.DataType) -> str:
    raise not_supported(f"a cast of {kind.simpleString()} to {to.simpleString()}")


def java_double_to_text(value: float) -> str:
    """Java's Double.toString as from JDK 19: 1.0, 1.0E7, 1.0E-4, NaN, -Infinity.

    The shortest digits that read back as the value, but where one is enough the two that are closest: 4.9E-324. Older ones
    write a digit more than that of a few values (JDK-4511638).
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    shortest, closest = repr(value), f"{value:.1e}"
    sign, digits, exponent = Decimal(closest if float(closest) == value else shortest).as_tuple()
    assert isinstance(exponent, int)
    minus = "-" if sign else ""
    if value == 0:
        return f"{minus}0.0"
    shown = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + exponent  # digits before the decimal point
    if 1e-3 <= abs(value) < 1e7:
        if point <= 0:
            return f"{minus}0.{'0' * -point}{shown}"
        return f"{minus}{shown[:point].ljust(point, '0')}.{shown[point:] or '0'}"
    return f"{minus}{shown[0]}.{shown[1:] or '0'}E{point - 1}"
