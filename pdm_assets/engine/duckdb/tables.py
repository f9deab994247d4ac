"""What the endpoint asks of whoever keeps the tables that plans name; delta.py keeps Delta tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pdm_assets.engine.duckdb.types import Field


@dataclass(frozen=True)
class Bound:
    """A condition that all wanted rows meet: column, one of < <= > >= == in, and a Python value (of `in` a list)."""

    column: str
    operator: str
    value: Any


@dataclass(frozen=True)
class Scan:
    """Rows of a table as a SELECT.

    Args:
        sql: the statement; it may name the registered objects.
        fields: its columns.
        registered: Arrow tables and data sets by the name under which `sql` reads them.
    """

    sql: str
    fields: tuple[Field, ...]
    registered: Mapping[str, Any] = field(default_factory=dict)


class Tables(Protocol):
    """A keeper of tables."""

    def scan(self, location: str, bounds: Sequence[Bound], version: int | None) -> Scan:
        """The rows of a table, or of one of its versions; rows that miss a bound may be left out."""

    def write(self, location: str, rows: pa.RecordBatchReader, *, mode: str, options: Mapping[str, str]) -> None:
        """Append the rows, or with mode `overwrite` put them in the place of those that option `replaceWhere` names."""
