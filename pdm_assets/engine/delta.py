"""Delta tables by delta-rs (`deltalake`): what the DuckDB engine reads, writes and looks after, without a JVM.

The log says which files make a version; DuckDB reads those that a query's bounds leave. A commit is put only if no other has
its number, on a local disk as on an object store, so several processes may write one table: of two that replace the same days
one is refused. Constraints, NOT NULL and the range of a replacement are checked for every row before anything is committed.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaProtocolError, TableNotFoundError
from deltalake.writer import ColumnProperties
from pyspark.sql import types as T

from pdm_assets.engine.duckdb.errors import RUNTIME, SPARK, EngineError, not_supported
from pdm_assets.engine.duckdb.tables import Bound, Scan
from pdm_assets.engine.duckdb.types import arrow_schema, fields_of, quoted, sql_type, text

USER_METADATA = "userMetadata"
# The writer version that has CHECK constraints. Without it delta-rs keeps rules as plain properties and does not enforce them.
WRITER_VERSION = {"delta.minWriterVersion": "3"}
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "in": lambda a, b: a in b,
}


class DeltaRs:
    """Tables by their location. Opened ones are kept: a log is read once, then only what is new in it."""

    def __init__(self, storage_options: Callable[[], dict[str, str]] = dict) -> None:
        self._storage_options = storage_options
        self._opened: dict[str, DeltaTable] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Read every log anew from here on."""
        self._opened.clear()

    def exists(self, location: str) -> bool:
        """Whether a table is there."""
        return location in self._opened or DeltaTable.is_deltatable(location, storage_options=self._storage_options())

    def open(self, location: str, version: int | None = None) -> DeltaTable:
        """The table as of its newest version, or of the one named.

        Raises:
            TableNotFoundError: if there is none.
        """
        if version is not None:
            return DeltaTable(location, version=version, storage_options=self._storage_options())
        with self._lock:
            if (table := self._opened.get(location)) is not None:
                table.update_incremental()
                return table
            table = self._opened[location] = DeltaTable(location, storage_options=self._storage_options())
            return table

    # --- for the endpoint (duckdb.tables.Tables)

    def scan(self, location: str, bounds: Sequence[Bound], version: int | None) -> Scan:
        """The rows of a table, from the files that may have rows within the bounds."""
        try:
            table = self.open(location, version)
        except TableNotFoundError as error:
            raise EngineError("DELTA_TABLE_NOT_FOUND", f"{location} is no Delta table") from error
        _check_readable(table, location)
        schema = T.StructType.fromJson(_json(table))
        fields = fields_of(schema)
        files = _files(table, schema, bounds)
        columns = ", ".join(f"CAST({quoted(f.name)} AS {sql_type(f.type)}) AS {quoted(f.name)}" for f in fields)
        if not files:
            nothing = ", ".join(f"NULL::{sql_type(f.type)} AS {quoted(f.name)}" for f in fields)
            return Scan(f"SELECT {nothing} WHERE false", fields)
        if "://" in location:
            name = f"delta_{abs(hash((location, version, tuple(files))))}"
            rows = table.to_pyarrow_dataset(file_pruning_predicate=_pruning(table, schema, bounds))
            return Scan(f"SELECT {columns} FROM {name}", fields, {name: rows})
        by = table.metadata().partition_columns
        hive = ""
        if by:
            kinds = ", ".join(f"{text(name)}: {text(sql_type(schema[name].dataType))}" for name in by)
            hive = f", hive_partitioning=true, hive_types={{{kinds}}}"
        from pdm_assets.engine.duckdb.relations import parquet  # with it PySpark's Connect client, and pandas

        paths = ", ".join(text(str(Path(location) / file)) for file in files)
        return Scan(f"SELECT {columns} FROM ({parquet(f'[{paths}]', [f for f in fields if f.name not in by], hive)})", fields)

    def write(self, location: str, rows: pa.RecordBatchReader, *, mode: str, options: Mapping[str, str]) -> None:
        """Append rows, or put them in the place of those that option `replaceWhere` describes: one commit.

        Raises:
            EngineError: if the columns are not the table's, a row breaks a rule or is outside of `replaceWhere`, or another
                commit meanwhile replaced the same rows. Nothing is committed then.
        """
        options = {name.lower(): value for name, value in options.items()}
        unknown = options.keys() - {"replacewhere", "usermetadata"}
        if unknown or (mode == "overwrite" and "replacewhere" not in options):
            raise not_supported(f"a write with mode {mode} and the options {', '.join(sorted(options))}")
        table = self.open(location)
        target = pa.schema(table.schema().to_arrow())
        if sorted(rows.schema.names) != sorted(target.names):
            raise EngineError(
                "_LEGACY_ERROR_TEMP_DELTA_0007",
                f"rows with the columns {rows.schema.names} do not fit {location}: {target.names}",
            )
        metadata = {USER_METADATA: options["usermetadata"]} if "usermetadata" in options else {}
        reading, writing, commit = _Reading(rows, target), _writing(target), CommitProperties(custom_metadata=metadata)
        try:
            if mode == "append":
                write_deltalake(table, reading.reader, mode="append", writer_properties=writing, commit_properties=commit)
            else:
                write_deltalake(
                    table,
                    reading.reader,
                    mode="overwrite",
                    predicate=options["replacewhere"],
                    writer_properties=writing,
                    commit_properties=commit,
                )
        except CommitFailedError as error:
            text_ = f"another commit meanwhile changed what this one replaces in {location}: {error}"
            raise EngineError("DELTA_CONCURRENT_WRITE", text_, SPARK) from error
        except Exception as error:
            if reading.error is not None:
                raise reading.error from None  # of the query: the writer knows it only as a text
            if "failed validation check" in str(error):
                raise EngineError("DELTA_VIOLATE_CONSTRAINT", f"{location}: {error}", RUNTIME) from error
            raise

    # --- for who looks after tables

    def create(
        self,
        location: str,
        schema: T.StructType,
        *,
        partition_by: Sequence[str] = (),
        constraints: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> None:
        """Make a table with its columns, comments, CHECK rules and properties, in one commit; one that is there stays."""
        DeltaTable.create(
            location,
            Schema([_delta_field(f) for f in schema.fields]),
            mode="ignore",
            partition_by=list(partition_by),
            storage_options=self._storage_options(),
            configuration={
                **WRITER_VERSION,
                **{f"delta.constraints.{name}": rule for name, rule in constraints.items()},
                **properties,
            },
            raise_if_key_not_exists=False,
        )

    def add_column(self, location: str, column: T.StructField) -> None:
        """Add a column that may be null."""
        self.open(location).alter.add_columns(_delta_field(column))

    def add_constraint(self, location: str, name: str, rule: str) -> None:
        """Add a CHECK rule.

        Raises:
            DeltaError: if a row breaks it.
        """
        self.open(location).alter.add_constraint({name: rule})

    def set_properties(self, location: str, properties: Mapping[str, str]) -> None:
        """Change properties of the table."""
        self.open(location).alter.set_table_properties(dict(properties), raise_if_not_exists=False)

    def restore(self, location: str, version: int, note: str) -> None:
        """Make the table what it was at a version, as a new version.

        Raises:
            DeltaError: if that version can't be read.
        """
        self.open(location).restore(version, commit_properties=CommitProperties(custom_metadata={USER_METADATA: note}))

    def compact(self, location: str, days: Sequence[dt.date], column: str | None) -> None:
        """Make the files of each of these partitions one, or those of a table without partitions."""
        table = self.open(location)
        target = pa.schema(table.schema().to_arrow())
        filters = [(column, "in", [day.isoformat() for day in days])] if column else None
        table.optimize.compact(partition_filters=filters, writer_properties=_writing(target))

    def vacuum(self, location: str) -> None:
        """Delete the files that no version younger than the table's retention refers to."""
        self.open(location).vacuum(dry_run=False, enforce_retention_duration=False)

    def history(self, location: str) -> dict[int, dt.datetime]:
        """When each version that the log still has was written, the newest first."""
        return {
            entry["version"]: dt.datetime.fromtimestamp(entry["timestamp"] / 1000, dt.UTC)
            for entry in self.open(location).history()
        }


def _json(table: DeltaTable) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(table.schema().to_json())
    return found


def _check_readable(table: DeltaTable, location: str) -> None:
    """Refuse tables whose files alone do not say their rows.

    Raises:
        EngineError: if the table has deletion vectors, mapped columns or another feature that readers must know.
    """
    protocol = table.protocol()
    needed = set(protocol.reader_features or ()) - {"timestampNtz"}
    if needed or protocol.min_reader_version == 2:
        named = ", ".join(sorted(map(str, needed))) or f"reader version {protocol.min_reader_version}"
        raise not_supported(f"{location}, which needs {named}", "use the engine `spark` for it")


def _files(table: DeltaTable, schema: T.StructType, bounds: Sequence[Bound]) -> list[str]:
    """The files, below the table's folder, that may have rows within the bounds."""
    actions = pa.table(table.get_add_actions(flatten=True))
    names = set(actions.column_names)
    keep = [True] * actions.num_rows
    for bound in bounds:
        found = next((f.name for f in schema.fields if f.name.lower() == bound.column.lower()), None)
        if found is None:
            continue
        if f"partition.{found}" in names:
            values = actions.column(f"partition.{found}").to_pylist()
            keep = [k and v is not None and _holds(bound, v) for k, v in zip(keep, values, strict=True)]
        elif f"min.{found}" in names and f"max.{found}" in names:
            least, most = (actions.column(f"{end}.{found}").to_pylist() for end in ("min", "max"))
            keep = [k and _may_hold(bound, a, b) for k, a, b in zip(keep, least, most, strict=True)]
    paths = actions.column("path").to_pylist()
    # In an order of their own: the log's is that in which a commit's files were ready, and a sum of doubles is of an order.
    return sorted(unquote(path) for path, wanted in zip(paths, keep, strict=True) if wanted)


def _is_of(bound: Bound, kind: type) -> bool:
    """Whether Python compares the bound with such values as Spark does: a date is not a time, nor a text a date."""
    values = bound.value if bound.operator == "in" else [bound.value]
    return all(type(value) is kind for value in values)


def _holds(bound: Bound, value: Any) -> bool:
    """Whether a value meets the bound; where that is not for this place to say, it may."""
    return not _is_of(bound, type(value)) or COMPARE[bound.operator](value, bound.value)


def _may_hold(bound: Bound, least: Any, most: Any) -> bool:
    """Whether a value between least and most may meet the bound; statistics that are not there say nothing."""
    if not _is_of(bound, type(least)) or type(least) is not type(most) or isinstance(most, str):
        return True  # of texts Delta keeps the first characters only
    if isinstance(most, dt.datetime):
        most += dt.timedelta(milliseconds=1)  # Spark cuts statistics of times off to milliseconds
    if bound.operator in ("<", "<="):
        return COMPARE[bound.operator](least, bound.value)
    if bound.operator in (">", ">="):
        return COMPARE[bound.operator](most, bound.value)
    wanted = bound.value if bound.operator == "in" else [bound.value]
    return any(least <= value <= most for value in wanted)


def _pruning(table: DeltaTable, schema: T.StructType, bounds: Sequence[Bound]) -> list[tuple[str, str, Any]] | None:
    """The bounds of partitions that are dates, as delta-rs takes them."""
    days = {name.lower(): name for name in table.metadata().partition_columns if schema[name].dataType == T.DateType()}
    shown = {"==": "="}
    found = [
        (days[bound.column.lower()], shown.get(bound.operator, bound.operator), bound.value.isoformat())
        for bound in bounds
        if bound.column.lower() in days and bound.operator != "in" and _is_of(bound, dt.date)
    ]
    return found or None


class _Reading:
    """Batches in the table's columns and types, and the error that ended them, if one did."""

    def __init__(self, rows: pa.RecordBatchReader, target: pa.Schema) -> None:
        self.error: Exception | None = None
        self._schema = pa.schema([f.with_nullable(True) for f in target])  # the writer checks what may not be null
        self.reader = pa.RecordBatchReader.from_batches(self._schema, self._fitted(rows))

    def _fitted(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            for batch in rows:
                columns = [batch.column(batch.schema.get_field_index(f.name)) for f in self._schema]
                cast = [c if c.type == f.type else c.cast(f.type) for c, f in zip(columns, self._schema, strict=True)]
                yield pa.RecordBatch.from_arrays(cast, schema=self._schema)
        except Exception as error:
            self.error = error
            raise


def _writing(target: pa.Schema) -> WriterProperties:
    """Doubles hardly repeat: Parquet would build a dictionary of them for each file and throw it away."""
    doubles = {f.name: ColumnProperties(dictionary_enabled=False) for f in target if pa.types.is_floating(f.type)}
    return WriterProperties(compression="SNAPPY", column_properties=doubles or None)


def _delta_field(field: T.StructField) -> Field:
    (arrow,) = arrow_schema(fields_of(T.StructType([field])))
    kind = Field.from_arrow(arrow).type
    comment = field.metadata.get("comment")
    return Field(field.name, kind, nullable=field.nullable, metadata={"comment": comment} if comment else None)


__all__ = ["DeltaProtocolError", "DeltaRs"]
