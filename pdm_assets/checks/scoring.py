"""Checks of scores."""

import datetime as dt

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from pdm_assets.models.table import LEAST_READINGS
from pdm_assets.partitions import DAILY
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import COMPONENT_RISK, OBSERVATIONS, READINGS_COUNT
from pdm_assets.schemas.table import DATE

NAMED_MACHINES = 10


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
        description=None
        if rows
        else f"no scores of {yesterday}: has its telemetry landed, and was it taken? Is the landing sensor on?",
        metadata={"day": yesterday.isoformat(), "rows": rows},
    )


@dg.asset_check(asset=["scores", "component_risk"])
def every_observation_has_a_score(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """On days with scores, every machine was heard enough of to be scored: one that fell silent is missed by no worklist."""
    start, end = span(context.partition_keys)
    scored = [day for day, rows in lake.rows_by_day(COMPONENT_RISK, start, end).items() if rows]
    observations = lake.arrow(OBSERVATIONS, start, end).to_table(columns=["machine_id", READINGS_COUNT, DATE])
    observations = observations.filter(pc.is_in(observations[DATE], pa.array(scored, pa.date32())))
    silent = observations.filter(pc.less(observations[READINGS_COUNT], LEAST_READINGS))
    machines = sorted(pc.unique(silent["machine_id"]).to_pylist())
    named = ", ".join(map(str, machines[:NAMED_MACHINES])) + (" and others" if len(machines) > NAMED_MACHINES else "")
    return dg.AssetCheckResult(
        passed=not machines,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"less than {LEAST_READINGS} h of readings of machines {named}: these were not scored"
        if machines
        else None,
        metadata={"observations": len(observations), "not_scored": len(silent), "machines": len(machines)},
    )
