"""Checks of monitoring: an alarm takes three of the last five days and the latest, so that one odd day raises none.

They judge the newest monitored day, whatever days a run takes: an old one, taken again for a late file, says nothing of today.
"""

import dagster as dg

from pdm_assets.models.drift import K, N
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import FEATURE_DRIFT, REALISED_PERFORMANCE

ADVICE = "Look at what changed in the plant; retraining_sensor trains a challenger, the gate decides"


@dg.asset_check(asset=["monitoring", "feature_drift"])
def no_lasting_drift(lake: Lake) -> dg.AssetCheckResult:
    """No feature, and no component's probability, has moved away from the training window for days."""
    from pdm_assets.resources.monitored import DAY, lasting_drift

    days = lake.first_and_last_day(FEATURE_DRIFT)
    if days is None:
        return dg.AssetCheckResult(passed=True, metadata={"day": "none is monitored yet"})
    last = days[1]
    found = lasting_drift(lake, last)
    rows = {row["feature"]: row for row in lake.rows(FEATURE_DRIFT, last, last + DAY)} if found else {}
    said = ", ".join(f"{name} ({_psi(rows[name]['psi'])}, {rows[name]['missing']:.0%} missing)" for name in found)
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"moved on {K} of the last {N} days: {said}. {ADVICE}" if found else None,
        metadata={"day": last.isoformat(), "moved": ", ".join(found)},
    )


def _psi(value: float | None) -> str:
    return "no PSI" if value is None else f"PSI {value:.2f}"


@dg.asset_check(asset=["monitoring", "realised_performance"])
def performance_holds(lake: Lake) -> dg.AssetCheckResult:
    """The scores of the last 30 days are as good as the model's test window promised; an error if they cost more than none."""
    from pdm_assets.resources.monitored import DAY, lasting_decline

    days = lake.first_and_last_day(REALISED_PERFORMANCE)
    if days is None:
        return dg.AssetCheckResult(passed=True, metadata={"day": "none is monitored yet"})
    last = days[1]
    found = lasting_decline(lake, last)
    rows = [row for row in lake.rows(REALISED_PERFORMANCE, last, last + DAY) if row["is_worse"] and row["component"] in found]
    is_useless = any(row["component"] == "pooled" and row["cost"] >= row["never_cost"] > 0 for row in rows)
    said = "; ".join(f"{row['component']}: {row['worse']}" for row in rows)
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_useless else dg.AssetCheckSeverity.WARN,
        description=f"on {K} of the last {N} days worse than in the test window: {said}. {ADVICE}" if found else None,
        metadata={"day": last.isoformat(), "worse": ", ".join(found)},
    )
