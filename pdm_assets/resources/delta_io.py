"""The IO manager: an asset takes and returns Spark frames, a Delta table per asset keeps them by day."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame

from pdm_assets.models import markdown
from pdm_assets.partitions import FROM_THE_FIRST_DAY
from pdm_assets.resources.lake import Commit, Lake
from pdm_assets.resources.quarantine import Group, most_first, printable, reasons_by_day, together
from pdm_assets.schemas.raw import QUARANTINE_TABLES
from pdm_assets.schemas.table import Table
from pdm_assets.schemas.tables import TABLES

PREVIEW_ROWS = 5
LONGEST_CELL = 80
REASONS_SHOWN = 10
ROW_COUNT = "dagster/partition_row_count"


class DeltaIOManager(dg.ConfigurableIOManager):
    """Writes the days of a run in one commit, and reads its days or those that an input says it reads.

    An asset may return None for "no rows": its days are emptied. The materialization of each day says its rows, table
    version and path.
    """

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: dg.OutputContext, obj: DataFrame | None) -> None:
        """Replace the days of the run with the frame's rows."""
        if obj is not None and not hasattr(obj, "sparkSession"):
            raise TypeError(
                f"{context.asset_key.to_user_string()} returned {type(obj).__name__}: return a Spark DataFrame or None"
            )
        table = TABLES[context.asset_key.to_user_string()]
        start, end = days_of(context)
        note = {"run_id": context.run_id, "asset": table.key, "days": f"{start}/{end}"}
        commit = self.lake.replace_days(table, obj, start, end, note)
        context.add_output_metadata(describe(self.lake, table, commit))
        of_days = describe_days(self.lake, table, commit)
        if commit.rows and table.counted:
            for day, counted in self.lake.count_true(table, start, end).items():
                of_days[day] |= counted
        if commit.rows and table in QUARANTINE_TABLES:
            days = reasons_by_day(self.lake, table, start, end)
            context.add_output_metadata({"reasons_in_run": _reasons(together(days))})
            for day, groups in days.items():
                of_days[day]["reasons"] = _reasons(groups)
        mark_days(context, of_days)

    def load_input(self, context: dg.InputContext) -> DataFrame:
        """The rows of the run's days, or of those that the input says it reads (`partitions.reads`)."""
        table = TABLES[context.asset_key.to_user_string()]
        start, end = days_of(context)
        reads = context.definition_metadata
        first = None if reads.get("days_back") == FROM_THE_FIRST_DAY else start - dt.timedelta(days=reads.get("days_back", 0))
        return self.lake.read(table, first, end - dt.timedelta(days=reads.get("up_to", 0)))


def mark_days(context: dg.OutputContext, metadata: Mapping[dt.date, Mapping[str, Any]]) -> None:
    """Give each day of a run its own metadata: add_output_metadata would copy the same to all of them."""
    for day, entries in metadata.items():
        # semi-private, and the only way in 1.13
        context.step_context.add_asset_metadata(dict(entries), asset_key=context.asset_key, partition_key=day.isoformat())


def days_of(context: dg.InputContext | dg.OutputContext) -> tuple[dt.date, dt.date]:
    """The half-open range of days of a context."""
    return span(context.asset_partition_keys)


def span(keys: Sequence[str]) -> tuple[dt.date, dt.date]:
    """The half-open range of days that a run's partition keys make up."""
    days = sorted(map(dt.date.fromisoformat, keys))
    return days[0], days[-1] + dt.timedelta(days=1)


def describe(lake: Lake, table: Table, commit: Commit) -> dict[str, Any]:
    """What the UI shows of a written range, with each of its days."""
    metadata = {
        "dagster/table_name": table.key,
        "dagster/uri": lake.location(table),
        "dagster/storage_kind": "delta",
        "delta_version": commit.version,
        "rows_in_run": commit.rows,
        "days_in_run": len(commit.rows_by_day),
        "empty_days": sum(1 for rows in commit.rows_by_day.values() if not rows),
    }
    return metadata if commit.rows else {**metadata, "note": "no rows for these days: the partition is empty"}


def describe_days(lake: Lake, table: Table, commit: Commit) -> dict[dt.date, dict[str, Any]]:
    """What the UI shows of single days: the rows of each, a preview of the last that has rows, columns with the last.

    The UI takes columns from the newest day. With each day of a year, as one text each, they took longer to store than rows.
    """
    days: dict[dt.date, dict[str, Any]] = {day: {ROW_COUNT: n} for day, n in commit.rows_by_day.items()}
    if filled := [day for day, rows in commit.rows_by_day.items() if rows]:
        rows = lake.preview(table, max(filled), PREVIEW_ROWS)
        preview = markdown.table(table.column_names, [[_cell(row[name]) for name in table.column_names] for row in rows])
        days[max(filled)]["preview"] = dg.MetadataValue.md(preview)
    columns = [
        dg.TableColumn(
            f.name,
            f.dataType.simpleString(),
            description=f.metadata["comment"],
            constraints=dg.TableColumnConstraints(nullable=f.nullable),
        )
        for f in table.struct.fields
    ]
    days[max(days)]["dagster/column_schema"] = dg.TableSchema(columns)
    return days


def _reasons(groups: Mapping[str, Group]) -> dg.TableMetadataValue:
    """What keeps rows in quarantine, the commonest first, each with the first of its rows."""
    records = []
    for group in most_first(groups.values())[:REASONS_SHOWN]:
        file, line, _, text = group.first
        first = printable(f"{file}, line {line}: {text}")
        records.append(
            dg.TableRecord({"reason": printable(group.rule), "rows": group.rows, "files": len(group.files), "first": first})
        )
    if more := len(groups) - len(records):
        rows = sum(group.rows for group in most_first(groups.values())[REASONS_SHOWN:])
        records.append(dg.TableRecord({"reason": f"{more} reasons more", "rows": rows, "files": 0, "first": ""}))
    return dg.MetadataValue.table(records)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:LONGEST_CELL]
