"""What the platform declares of each Delta table, in one form for writer, checks and catalog."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import types as T

DATE = "date"  # partition column of every day table: the UTC day


def column(name: str, kind: T.DataType, doc: str, *, nullable: bool = False) -> T.StructField:
    """A column with its meaning kept as the comment that catalogs and the UI show."""
    return T.StructField(name, kind, nullable, {"comment": doc})


@dataclass(frozen=True)
class Table:
    """A Delta table `group/name`.

    Args:
        key: asset key and folder below lake/.
        columns: columns without the partition column.
        unique: columns that tell the rows of one day apart.
        constraints: CHECK constraints by name.
        counted: boolean columns whose true values are counted by day, as numbers that the UI plots.
        daily: partitioned by day in a last column `date`; a table without it is append-only.
    """

    key: str
    columns: tuple[T.StructField, ...]
    unique: tuple[str, ...]
    constraints: Mapping[str, str] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    daily: bool = True

    @property
    def group(self) -> str:
        """First part of the key: Dagster group and Delta folder."""
        return self.key.split("/")[0]

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.split("/")[1]

    @property
    def struct(self) -> T.StructType:
        """All columns, the partition column last."""
        last = (column(DATE, T.DateType(), "day partition (UTC)"),) if self.daily else ()
        return T.StructType([*self.columns, *last])

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns, the partition column last."""
        return tuple(self.struct.fieldNames())
