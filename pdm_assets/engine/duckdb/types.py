"""Spark's types as DuckDB and Arrow keep them.

A timestamp is a TIMESTAMPTZ of microseconds, a day-time interval the BIGINT of its microseconds, which is what Spark keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import types as T

from pdm_assets.engine.duckdb.errors import EngineError, not_supported

INTEGRAL: tuple[type[T.DataType], ...] = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
FRACTIONAL: tuple[type[T.DataType], ...] = (T.FloatType, T.DoubleType)
NUMERIC = (*INTEGRAL, *FRACTIONAL)  # in the order of widening

SQL_NAMES: dict[type[T.DataType], str] = {
    T.BooleanType: "BOOLEAN",
    T.ByteType: "TINYINT",
    T.ShortType: "SMALLINT",
    T.IntegerType: "INTEGER",
    T.LongType: "BIGINT",
    T.FloatType: "FLOAT",
    T.DoubleType: "DOUBLE",
    T.StringType: "VARCHAR",
    T.BinaryType: "BLOB",
    T.DateType: "DATE",
    T.TimestampType: "TIMESTAMPTZ",
    T.TimestampNTZType: "TIMESTAMP",
    T.DayTimeIntervalType: "BIGINT",
    T.NullType: "INTEGER",
}


@dataclass(frozen=True)
class Field:
    """A column of a relation."""

    name: str
    type: T.DataType
    nullable: bool = True


@dataclass(frozen=True)
class Typed:
    """An expression as SQL, with Spark's type of it.

    Args:
        sql: an operand: it needs no brackets around it.
        name: the column name that Spark would give it without an alias; None where that is not known here.
        literal: the Python value of a literal, else None.
    """

    sql: str
    type: T.DataType
    nullable: bool = True
    name: str | None = None
    literal: Any = None


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_type(kind: T.DataType) -> str:
    """DuckDB's name of a type.

    Raises:
        EngineError: if the engine has no such type.
    """
    if isinstance(kind, T.ArrayType):
        return f"{sql_type(kind.elementType)}[]"
    if isinstance(kind, T.StructType):
        return f"STRUCT({', '.join(f'{quoted(f.name)} {sql_type(f.dataType)}' for f in kind.fields)})"
    if isinstance(kind, T.MapType):
        return f"MAP({sql_type(kind.keyType)}, {sql_type(kind.valueType)})"
    if type(kind) not in SQL_NAMES:
        raise not_supported(f"the type {kind.simpleString()}")
    return SQL_NAMES[type(kind)]


def arrow_type(kind: T.DataType) -> pa.DataType:
    """The Arrow type in which the client receives a type."""
    from pyspark.sql.pandas.types import to_arrow_type

    return to_arrow_type(kind, timezone="UTC")


def arrow_schema(fields: Sequence[Field]) -> pa.Schema:
    """The Arrow schema of a relation."""
    return pa.schema([pa.field(f.name, arrow_type(f.type), f.nullable) for f in fields])


def struct_of(fields: Sequence[Field]) -> T.StructType:
    """The Spark schema of a relation."""
    return T.StructType([T.StructField(f.name, f.type, f.nullable) for f in fields])


def fields_of(schema: T.StructType) -> tuple[Field, ...]:
    """The columns of a Spark schema."""
    return tuple(Field(f.name, f.dataType, f.nullable) for f in schema.fields)


def is_null(kind: T.DataType) -> bool:
    """Whether it is the type of a bare null."""
    return isinstance(kind, T.NullType)


def common_type(kinds: Sequence[T.DataType], where: str) -> T.DataType:
    """The type that values of several types become in one column: the wider number, or the type that all have.

    Raises:
        EngineError: if there is none; Spark in ANSI mode may know one, such as a string's number, and this engine refuses it.
    """
    known = [kind for kind in kinds if not is_null(kind)]
    if not known:
        return T.NullType()
    first = known[0]
    if all(_same(kind, first) for kind in known):
        return first
    if all(isinstance(kind, NUMERIC) for kind in known):
        widest = max(known, key=lambda kind: NUMERIC.index(type(kind)))
        # Spark: an integer of 32 or 64 bits beside a float is a double
        if isinstance(widest, T.FloatType) and any(isinstance(k, (T.IntegerType, T.LongType)) for k in known):
            return T.DoubleType()
        return widest
    if {type(kind) for kind in known} == {T.DateType, T.TimestampType}:
        return T.TimestampType()
    names = ", ".join(sorted({kind.simpleString() for kind in known}))
    raise EngineError("DATATYPE_MISMATCH.DATA_DIFF_TYPES", f"{where}: values of types {names} do not go together: cast them")


def _same(one: T.DataType, other: T.DataType) -> bool:
    """Equal, whatever may be null inside."""
    if isinstance(one, T.StructType) and isinstance(other, T.StructType):
        pairs = zip(one.fields, other.fields, strict=False)
        return len(one.fields) == len(other.fields) and all(
            a.name == b.name and _same(a.dataType, b.dataType) for a, b in pairs
        )
    if isinstance(one, T.ArrayType) and isinstance(other, T.ArrayType):
        return _same(one.elementType, other.elementType)
    if isinstance(one, T.MapType) and isinstance(other, T.MapType):
        return _same(one.keyType, other.keyType) and _same(one.valueType, other.valueType)
    return one == other
