"""What a table's store lacks of what is declared, and how the lake of an earlier release gets it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException
from pyspark.sql import types as T

from pdm_assets.resources.lake import FORMAT_PROPERTY, Lake, LakeError, declared_properties
from pdm_assets.schemas.table import Table


@dataclass(frozen=True)
class Migration:
    """A step from one format to the next. A step that died half-way is taken again: it must bear that."""

    format: int
    what: str
    take: Callable[[Lake, Table], None]


def add_what_is_declared(lake: Lake, table: Table) -> None:
    """Add the declared columns, constraints and properties that the table lacks: all that a change which only adds needs.

    Raises:
        LakeError: if a new column may not be null, for what is there has no value, or rows break a new constraint.
    """
    stored = stored_columns(lake, table)
    for field in table.struct.fields:
        if field.name not in stored:
            if not field.nullable:
                raise LakeError(f"{table.key} lacks {field.name}, which may not be null: its rows must be made anew")
            lake.spark.tables.add_column(lake.table_name(table), field)
    properties = lake.properties(table)
    for name, rule in table.constraints.items():
        if f"delta.constraints.{name}" not in properties:
            try:
                lake.spark.tables.add_constraint(lake.table_name(table), name, rule)
            except (PySparkException, DeltaError) as error:
                said = str(error).splitlines()[0]
                raise LakeError(
                    f"{table.key} can't have the rule {name}, {rule}: {said}. Mend these rows, then again"
                ) from error
    lacking = {name: value for name, value in declared_properties(table, lake.keep_days).items() if name not in properties}
    if lacking:
        lake.set_properties(table, lacking)


# In order; a release that stores tables in another way adds one, and FORMAT of lake.py is the last one's.
MIGRATIONS = (
    Migration(2, "versions stay readable for PDM_KEEP_DAYS, not for Delta's week", add_what_is_declared),
    Migration(3, "monitoring counts alarms whose component was replaced apart", add_what_is_declared),
)


def upgrade(lake: Lake) -> Iterator[tuple[Table, Migration]]:
    """Bring every table to the present format, saying each step once it is taken.

    Raises:
        LakeError: as of `add_what_is_declared`, or if a table is of a later release or the lake is gone.
    """
    lake.must_be_there()
    for table in lake.tables():
        stored = lake.format_of(table)
        if stored > MIGRATIONS[-1].format:
            raise LakeError(f"{table.key} was written by a later release (format {stored}): install that one")
        for migration in MIGRATIONS:
            if migration.format > stored:
                migration.take(lake, table)
                lake.set_properties(table, {FORMAT_PROPERTY: str(migration.format)})
                yield table, migration


def stored_columns(lake: Lake, table: Table) -> dict[str, tuple[str, bool]]:
    """Type and nullability of each column, as stored."""
    if lake.catalog:
        fields = lake.read(table).schema.fields
        return {field.name: (field.dataType.typeName(), field.nullable) for field in fields}
    return {
        field.name: (getattr(field.type, "type", str(field.type)), field.nullable)
        for field in lake.delta(table).schema().fields
    }


def differences(lake: Lake, table: Table) -> list[str]:
    """How the stored table is not as declared."""
    stored, declared = stored_columns(lake, table), {field.name: _kind(field) for field in table.struct.fields}
    said = [f"column {name} is missing" for name in declared if name not in stored]
    said += [f"column {name} is not declared" for name in stored if name not in declared]
    said += [
        f"column {name} is {_words(stored[name])}, not {_words(kind)}"
        for name, kind in declared.items()
        if name in stored and stored[name] != kind
    ]
    properties = lake.properties(table)
    for name, rule in table.constraints.items():
        if (found := properties.get(f"delta.constraints.{name}")) != rule:
            said.append(f"the constraint {name} is {found or 'missing'}, not {rule}")
    return said


def _kind(field: T.StructField) -> tuple[str, bool]:
    return field.dataType.typeName(), field.nullable


def _words(kind: tuple[str, bool]) -> str:
    return f"{kind[0]}{'' if kind[1] else ' NOT NULL'}"
