"""Checks of scores."""

import datetime as dt

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from pdm_assets.checks.days import NOTHING_YET, days_of
from pdm_assets.models.table import LEAST_READINGS
from pdm_assets.partitions import DAILY
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import (
    COMPONENT_RISK,
    FAILURE_MODEL,
    OBSERVATION_KEY,
    OBSERVATIONS,
    READINGS_COUNT,
    TOO_LITTLE_HISTORY,
)
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets.schemas.table import DATE

NAMED_MACHINES = 10


@dg.asset_check(asset=["scores", "component_risk"])
def yesterday_is_scored(lake: Lake) -> dg.AssetCheckResult:
    """Scores of the last whole day exist: freshness alone is satisfied by a backfill of an old day.

    Asked whenever scores are made, and every morning by the schedule `daily_watch`: that nothing ran, no run can say.
    """
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    if not DAILY.has_partition_key(yesterday.isoformat()):
        return dg.AssetCheckResult(passed=True, metadata={"note": f"{yesterday} is outside of the day partitions"})
    today = yesterday + dt.timedelta(days=1)
    rows = lake.rows_by_day(COMPONENT_RISK, yesterday, today)[yesterday]
    decided = lake.rows(FAILURE_MODEL, yesterday, today, ["status", "detail"]) if lake.exists(FAILURE_MODEL) else []
    if not rows and any(row["status"] == TOO_LITTLE_HISTORY for row in decided):
        note = f"no model yet for {yesterday}: {decided[0]['detail']}"
        return dg.AssetCheckResult(passed=True, metadata={"day": yesterday.isoformat(), "rows": rows, "note": note})
    return dg.AssetCheckResult(
        passed=rows > 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=None
        if rows
        else f"no scores of {yesterday}: has its telemetry landed, was it taken? Is the landing sensor on, a model in force?",
        metadata={"day": yesterday.isoformat(), "rows": rows},
    )


@dg.asset_check(asset=["scores", "component_risk"])
def every_observation_has_a_score(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """On days with a model every observation has all its scores: a machine that fell silent is missed by no worklist."""
    days = days_of(context, lake, COMPONENT_RISK)
    if days is None:
        return NOTHING_YET
    start, end = days
    with_model = [row[DATE] for row in lake.rows(FAILURE_MODEL, start, end) if row["model_version"]]
    observations = lake.arrow(OBSERVATIONS, start, end).to_table(columns=[*OBSERVATION_KEY, READINGS_COUNT, DATE])
    observations = observations.filter(pc.is_in(observations[DATE], pa.array(with_model, pa.date32())))
    scores = lake.arrow(COMPONENT_RISK, start, end).to_table(columns=[*OBSERVATION_KEY, "component"])
    scored = scores.group_by([*OBSERVATION_KEY]).aggregate([("component", "count_distinct")])
    held = observations.join(scored, [*OBSERVATION_KEY])
    unscored = held.filter(pc.less(pc.fill_null(held["component_count_distinct"], 0), len(COMPONENTS)))
    is_silent = pc.less(unscored[READINGS_COUNT], LEAST_READINGS)
    silent, lost = unscored.filter(is_silent), unscored.filter(pc.invert(is_silent))
    said = []
    if len(silent):
        said.append(f"less than {LEAST_READINGS} h of readings of machines {_machines(silent)}: these were not scored")
    if len(lost):
        said.append(
            f"not every component is scored of machines {_machines(lost)}, which were heard: "
            f"materialize scores/component_risk of {_days(lost)} again"
        )
    return dg.AssetCheckResult(
        passed=not said,
        severity=dg.AssetCheckSeverity.ERROR if len(lost) else dg.AssetCheckSeverity.WARN,
        description="; ".join(said) or None,
        metadata={
            "observations": len(observations),
            "not_scored": len(unscored),
            "machines": len(pc.unique(unscored["machine_id"])),
        },
    )


def _machines(rows: pa.Table) -> str:
    machines = sorted(pc.unique(rows["machine_id"]).to_pylist())
    return ", ".join(map(str, machines[:NAMED_MACHINES])) + (" and others" if len(machines) > NAMED_MACHINES else "")


def _days(rows: pa.Table) -> str:
    first, last = pc.min(rows[DATE]).as_py(), pc.max(rows[DATE]).as_py()
    return str(first) if first == last else f"{first} to {last}"
