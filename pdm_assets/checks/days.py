"""Which days a check looks at, whoever asked it."""

import datetime as dt

import dagster as dg

from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.table import Table

NOTHING_YET = dg.AssetCheckResult(passed=True, metadata={"note": "the table has no rows yet"})


def has_days(context: dg.AssetCheckExecutionContext) -> bool:
    """Whether the run has any: a check that is executed alone in the UI has none."""
    return context.has_partition_key or context.has_partition_key_range


def days_of(context: dg.AssetCheckExecutionContext, lake: Lake, table: Table) -> tuple[dt.date, dt.date] | None:
    """The half-open range of the run's days; without any, of the last day that the table has rows of, None if of none."""
    if has_days(context):
        of_run = context.partition_key_range
        return span([of_run.start, of_run.end])
    known = lake.first_and_last_day(table)
    return known and span([known[1].isoformat()])
