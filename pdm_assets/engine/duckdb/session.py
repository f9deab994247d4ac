"""The DuckDB connection behind the endpoint: executes translated plans, and what of its settings a user may choose."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyspark.sql.connect.proto as pb
from duckdb.func import PythonUDFType

from pdm_assets.engine.duckdb.casts import JAVA_DOUBLE, java_double_to_text
from pdm_assets.engine.duckdb.errors import PYTHON, EngineError, not_supported
from pdm_assets.engine.duckdb.functions import HASH
from pdm_assets.engine.duckdb.relations import DELTA_NAME, Mapped, Relation, Relations
from pdm_assets.engine.duckdb.tables import Tables
from pdm_assets.engine.duckdb.types import Field, arrow_schema

ROWS_A_BATCH = 1 << 17
MODES = {pb.WriteOperation.SAVE_MODE_APPEND: "append", pb.WriteOperation.SAVE_MODE_OVERWRITE: "overwrite"}
NEVER = str(2**62)
# What the client asks for before it sends anything; the values are Spark's defaults, but that a local relation is never cached
# on the server, for there is none.
DEFAULTS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.session.localRelationCacheThreshold": NEVER,
    "spark.sql.session.localRelationSizeLimit": NEVER,
    "spark.sql.session.localRelationChunkSizeRows": "10000",
    "spark.sql.session.localRelationChunkSizeBytes": str(2**24),
    "spark.sql.session.localRelationBatchOfChunksSizeBytes": str(2**29),
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    "spark.sql.execution.pandas.convertToArrowArraySafely": "false",
    "spark.sql.execution.pandas.inferPandasDictAsMap": "false",
    "spark.sql.pyspark.inferNestedDictAsStruct.enabled": "false",
    "spark.sql.pyspark.legacy.inferArrayTypeFromFirstElement.enabled": "false",
    "spark.sql.pyspark.legacy.inferMapTypeFromFirstPair.enabled": "false",
    "spark.sql.execution.pandas.structHandlingMode": "legacy",
    "spark.sql.execution.arrow.pyspark.selfDestruct.enabled": "false",
    "spark.sql.execution.pythonUDF.arrow.enabled": "false",  # asked for before a Python function is refused
    "spark.python.sql.dataFrameDebugging.enabled": "false",  # else the client walks its stack for each expression: 60 ms a plan
    "spark.connect.session.planCompression.threshold": "-1",
    "spark.connect.session.planCompression.defaultAlgorithm": "NONE",
}


@dataclass(frozen=True)
class Limits:
    """What a session may take of the machine.

    Args:
        memory_mb: memory of its queries; what needs more is written to `spill`.
        spill: folder for that.
        threads: of a query. One gives the same sums of doubles for the same rows every time; several do not.
    """

    memory_mb: int
    spill: Path
    threads: int = 1


class Session:
    """One DuckDB database in memory, whose every query has a cursor of its own."""

    def __init__(self, limits: Limits, tables: Tables | None = None) -> None:
        self.tables = tables
        self.conf = dict(DEFAULTS)
        self._database = duckdb.connect(
            config={
                "threads": limits.threads,
                "memory_limit": f"{limits.memory_mb}MiB",
                "temp_directory": str(limits.spill),
                "preserve_insertion_order": "true",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            }
        )
        self._database.execute("SET GLOBAL TimeZone = 'UTC'")
        self._made: set[str] = set()

    def close(self) -> None:
        """Let go of the memory."""
        self._database.close()

    def relation(self, plan: pb.Relation) -> Relation:
        """The plan as SQL with its columns; nothing is executed."""
        return Relations(self.tables).relation(plan)

    def batches(self, plan: pb.Relation) -> tuple[tuple[Field, ...], Iterator[pa.RecordBatch]]:
        """Columns and rows of a plan."""
        relation = self.relation(plan)
        return relation.fields, self._rows(relation)

    def write(self, operation: pb.WriteOperation) -> None:
        """Execute a plan into a table: its rows go from DuckDB to the writer and never over the channel."""
        if operation.source != "delta" or self.tables is None:
            raise not_supported(f"writing {operation.source}", "write Delta")
        if operation.mode not in MODES or operation.partitioning_columns or operation.sort_column_names:
            raise not_supported("a write other than append or overwrite to a table that is there")
        location = operation.path
        if operation.WhichOneof("save_type") == "table":
            match = DELTA_NAME.fullmatch(operation.table.table_name)
            if match is None:
                raise not_supported(f"the table {operation.table.table_name}", "name it delta.`path`")
            location = match[1].replace("``", "`")
        relation = self.relation(operation.input)
        reader = pa.RecordBatchReader.from_batches(arrow_schema(relation.fields), self._rows(relation))
        self.tables.write(location, reader, mode=MODES[operation.mode], options=dict(operation.options))

    def _rows(self, relation: Relation) -> Iterator[pa.RecordBatch]:
        cursor = self._database.cursor()
        try:
            self._make_functions(relation.sql)
            for name, rows in relation.registered.items():
                cursor.register(name, self._mapped(rows) if isinstance(rows, Mapped) else rows)
            schema = arrow_schema(relation.fields)
            for batch in cursor.sql(relation.sql).to_arrow_reader(ROWS_A_BATCH):
                yield _as_declared(batch, schema)
        finally:
            cursor.close()

    def _mapped(self, mapped: Mapped) -> pa.RecordBatchReader:
        """What a Python function makes of the rows of a relation, as they are asked for."""
        from pyspark import cloudpickle

        function = cloudpickle.loads(mapped.command)
        function = function[0] if isinstance(function, tuple) else function
        schema = arrow_schema(mapped.fields)

        def made() -> Iterator[pa.RecordBatch]:
            try:
                for batch in function(self._rows(mapped.relation)):
                    yield _checked(batch.select(schema.names), schema)
            except EngineError:
                raise
            except Exception as error:
                raise EngineError("PYTHON_EXCEPTION", f"{type(error).__name__}: {error}", PYTHON) from error

        return pa.RecordBatchReader.from_batches(schema, made())

    def _make_functions(self, sql: str) -> None:
        """Make the functions that are Python's, once and only where a query has them."""
        for name, make in ((JAVA_DOUBLE, self._make_java_double), (HASH, self._make_hash)):
            if name in sql and name not in self._made:
                make()
                self._made.add(name)

    def _make_java_double(self) -> None:
        self._database.create_function(JAVA_DOUBLE, java_double_to_text, ["DOUBLE"], "VARCHAR")

    def _make_hash(self) -> None:
        self._database.create_function(HASH, _xxhash64, ["BIGINT", "BIGINT", "INTEGER"], "BIGINT", type=PythonUDFType.ARROW)


def _as_declared(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the types that the plan declares: the same memory wherever these are the same."""
    columns = [
        column if column.type == f.type else _converted(column, f.type) for column, f in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _checked(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """What a Python function made, in the types that it declared: as in Spark, nothing is converted."""
    for made, declared in zip(batch.schema, schema, strict=True):
        if made.type != declared.type and not isinstance(declared.type, pa.DurationType):
            raise TypeError(f"the column {made.name} is {made.type}, and {declared.type} is declared")
    return _as_declared(batch, schema)


def _converted(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_duration(kind) and pa.types.is_integer(column.type):
        return column.cast(pa.int64()).cast(kind)
    return column.cast(kind)


def _xxhash64(values: Any, seeds: Any, widths: Any) -> pa.Array:
    """XXH64 of whole numbers of 8 or of 4 bytes, as Spark's XXH64.hashLong and hashInt."""
    p1, p2, p3, p4, p5 = (
        np.uint64(n)
        for n in (
            0x9E3779B185EBCA87,
            0xC2B2AE3D27D4EB4F,
            0x165667B19E3779F9,
            0x85EBCA77C2B2AE63,
            0x27D4EB2F165667C5,
        )
    )

    def rotated(x: Any, by: int) -> Any:
        return (x << np.uint64(by)) | (x >> np.uint64(64 - by))

    def numbers(column: Any) -> Any:
        return column.combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)

    bits, seed, width = numbers(values).view(np.uint64), numbers(seeds).view(np.uint64), numbers(widths)
    with np.errstate(over="ignore"):
        longs = seed + p5 + np.uint64(8)
        longs ^= rotated(bits * p2, 31) * p1
        longs = rotated(longs, 27) * p1 + p4
        ints = seed + p5 + np.uint64(4)
        ints ^= (bits & np.uint64(0xFFFFFFFF)) * p1
        ints = rotated(ints, 23) * p2 + p3
        found = np.where(width == 8, longs, ints)
        found ^= found >> np.uint64(33)
        found *= p2
        found ^= found >> np.uint64(29)
        found *= p3
        found ^= found >> np.uint64(32)
    return pa.array(found.view(np.int64))
