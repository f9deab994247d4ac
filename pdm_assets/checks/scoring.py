"""Checks of scores."""

import datetime as dt

import dagster as dg

from pdm_assets.partitions import DAILY
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import COMPONENT_RISK


@dg.asset_check(asset=["scores", "component_risk"])
def yesterday_is_scored(lake: Lake) -> dg.AssetCheckResult:
    """Scores of the last whole day exist: freshness alone is satisfied by a backfill of an old day."""
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    if not DAILY.has_partition_key(yesterday.isoformat()):
        return dg.AssetCheckResult(passed=True, metadata={"note": f"{yesterday} is outside of the day partitions"})
    rows = lake.rows_by_day(COMPONENT_RISK, yesterday, yesterday + dt.timedelta(days=1))[yesterday]
    return dg.AssetCheckResult(
        passed=rows > 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if rows else f"no scores of {yesterday}: has its telemetry landed? Is the landing sensor on?",
        metadata={"day": yesterday.isoformat(), "rows": rows},
    )
