"""Checks of features and labels."""

import datetime as dt

import dagster as dg
import pyarrow.compute as pc

from pdm_assets.checks.days import NOTHING_YET, days_of, has_days
from pdm_assets.partitions import LOOKBACK_DAYS, SETTINGS
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import COMPONENT_FAILURES, OBSERVATIONS
from pdm_assets.schemas.raw import ERRORS, FAILURES, TELEMETRY
from pdm_assets.schemas.table import DATE, Table


@dg.asset_check(asset=["labels", "component_failures"], blocking=True)
def no_label_before_its_horizon_is_over(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """Each label's horizon was over when the day that it is kept by ended: no model can learn from the future."""
    days = days_of(context, lake, COMPONENT_FAILURES)
    if days is None:
        return NOTHING_YET
    start, end = days
    labels = lake.arrow(COMPONENT_FAILURES, start, end).to_table(columns=["observed_at", DATE])
    horizon_end = pc.add(labels["observed_at"], SETTINGS.horizon)
    day_end = pc.add(labels[DATE].cast(labels["observed_at"].type), dt.timedelta(days=1))
    early = pc.sum(pc.greater(horizon_end, day_end).cast("int64")).as_py() or 0
    return dg.AssetCheckResult(
        passed=early == 0,
        metadata={"labels": labels.num_rows, "labels_before_their_time": early, "days": f"{start} to {end}"},
    )


def _later_days_are_newer(table: Table, sources: tuple[Table, ...], lookback_days: int) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.key.split("/"),
        name="later_days_have_seen_this_run",
        description=f"The {lookback_days} days after this run look back on it: they were computed after it, or must be again. "
        "The landing sensor requests them by itself; a run by hand may leave them behind.",
    )
    def check(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        days = days_of(context, lake, table)
        if days is None:
            return NOTHING_YET
        end = days[1] if has_days(context) else days[0]  # asked alone: has the last day seen those before it?
        reach = dt.timedelta(days=lookback_days)
        changed = {source.key: lake.written_at(source, end - reach, end) for source in sources}
        stale = [
            day
            for day, written in sorted(lake.written_at(table, end, end + reach).items())
            if any(at > written for days in changed.values() for source_day, at in days.items() if source_day >= day - reach)
        ]
        behind = ", ".join(map(str, stale))
        return dg.AssetCheckResult(
            passed=not stale,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"computed before what they look back on changed: {behind}. Materialize these days too"
            if stale
            else None,
            metadata={"days_behind": len(stale)},
        )

    return check


later_observations_are_newer = _later_days_are_newer(OBSERVATIONS, (TELEMETRY, ERRORS), LOOKBACK_DAYS)
later_labels_are_newer = _later_days_are_newer(COMPONENT_FAILURES, (FAILURES,), SETTINGS.horizon_days)
