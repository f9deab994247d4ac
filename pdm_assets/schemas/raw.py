"""The five raw tables and their quarantine: columns, keys, valid ranges and how a landed file names its columns."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import types as T

from pdm_assets.schemas.table import Table, column


@dataclass(frozen=True)
class Channel:
    """One measured quantity of a machine, with the range outside of which a reading can't be real."""

    name: str
    unit: str
    lowest: float
    highest: float


@dataclass(frozen=True)
class OwnSigns:
    """What is known to tell of a component: the channel that moves, the errors that come together."""

    channel: str | None = None
    errors: tuple[str, ...] = ()


CHANNELS = (
    Channel("volt", "V", 0.0, 1_000.0),
    Channel("rotate", "rpm", 0.0, 10_000.0),
    Channel("pressure", "bar", 0.0, 1_000.0),
    Channel("vibration", "mm/s", 0.0, 1_000.0),
)
CHANNEL_NAMES = tuple(channel.name for channel in CHANNELS)
ERROR_CODES = ("error1", "error2", "error3", "error4", "error5")
# A model learns a component's signs by itself. Those that are known make the rules that it must beat (models/rules.py).
OWN_SIGNS: Mapping[str, OwnSigns] = {
    "comp1": OwnSigns("volt", ("error1",)),
    "comp2": OwnSigns("rotate", ("error2", "error3")),
    "comp3": OwnSigns("pressure", ("error4",)),
    "comp4": OwnSigns("vibration", ("error5",)),
}
COMPONENTS = tuple(OWN_SIGNS)

MACHINE_ID = column("machine_id", T.LongType(), "number of the machine in the fleet")


def one_of(name: str, values: tuple[str, ...]) -> str:
    """The CHECK rule that a column has one of these values."""
    return f"{name} IN ({', '.join(repr(value) for value in values)})"


TELEMETRY = Table(
    key="raw/telemetry",
    columns=(
        MACHINE_ID,
        column("observed_at", T.TimestampType(), "time of the reading, UTC"),
        *(column(c.name, T.DoubleType(), f"reading of {c.name}, {c.unit}") for c in CHANNELS),
    ),
    unique=("machine_id", "observed_at"),
    constraints={f"{c.name}_is_physical": f"{c.name} BETWEEN {c.lowest} AND {c.highest}" for c in CHANNELS},
)
ERRORS = Table(
    key="raw/errors",
    columns=(
        MACHINE_ID,
        column("occurred_at", T.TimestampType(), "time of the error, UTC"),
        column("error_code", T.StringType(), "fault code that the machine reported"),
    ),
    unique=("machine_id", "occurred_at", "error_code"),
    constraints={"error_code_is_known": one_of("error_code", ERROR_CODES)},
)
MAINTENANCE = Table(
    key="raw/maintenance",
    columns=(
        MACHINE_ID,
        column("performed_at", T.TimestampType(), "time of the replacement, UTC"),
        column("component", T.StringType(), "component that was replaced"),
    ),
    unique=("machine_id", "performed_at", "component"),
    constraints={"component_is_known": one_of("component", COMPONENTS)},
)
FAILURES = Table(
    key="raw/failures",
    columns=(
        MACHINE_ID,
        column("failed_at", T.TimestampType(), "time of the failure, UTC"),
        column("component", T.StringType(), "component that failed"),
    ),
    unique=("machine_id", "failed_at", "component"),
    constraints={"component_is_known": one_of("component", COMPONENTS)},
)
MACHINES = Table(
    key="raw/machines",
    columns=(
        MACHINE_ID,
        column("machine_model", T.StringType(), "type of the machine"),
        column("age_years", T.IntegerType(), "years in service"),
    ),
    unique=("machine_id",),
    constraints={"age_is_possible": "age_years BETWEEN 0 AND 200"},
)
RAW_TABLES = (TELEMETRY, ERRORS, MAINTENANCE, FAILURES, MACHINES)

# The reference's file names and headers, and ours: landed column -> table column.
FILE_STEMS = {
    "raw/telemetry": ("telemetry",),
    "raw/errors": ("errors",),
    "raw/maintenance": ("maint", "maintenance"),
    "raw/failures": ("failures",),
    "raw/machines": ("machines",),
}
FILE_COLUMNS = {
    "raw/telemetry": {
        "datetime": "observed_at",
        "machineID": "machine_id",
        **{name: name for name in CHANNEL_NAMES},
    },
    "raw/errors": {"datetime": "occurred_at", "machineID": "machine_id", "errorID": "error_code"},
    "raw/maintenance": {"datetime": "performed_at", "machineID": "machine_id", "comp": "component"},
    "raw/failures": {"datetime": "failed_at", "machineID": "machine_id", "failure": "component"},
    "raw/machines": {"machineID": "machine_id", "model": "machine_model", "age": "age_years"},
}


def quarantine_of(table: Table) -> Table:
    """The quarantine of a raw table: one row a landed row that was not taken."""
    return Table(
        key=table.key.replace("raw/", "quarantine/"),
        columns=(
            column("file", T.StringType(), "landed file, relative to the landing folder of the table"),
            column(
                "line",
                T.LongType(),
                "line in the file, the header being line 1; row number in a Parquet file",
            ),
            column("reason", T.StringType(), "why the row was not taken"),
            column("text", T.StringType(), "the row as it landed"),
        ),
        unique=("file", "line"),
    )


QUARANTINE_TABLES = tuple(quarantine_of(table) for table in RAW_TABLES)
