"""Checks of features and labels."""

import datetime as dt

import dagster as dg
import pyarrow.compute as pc

from pdm_assets.partitions import SETTINGS
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import COMPONENT_FAILURES
from pdm_assets.schemas.table import DATE


@dg.asset_check(asset=["labels", "component_failures"], blocking=True)
def no_label_before_its_horizon_is_over(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    """Each label's horizon was over when the day that it is kept by ended: no model can learn from the future."""
    start, end = span(context.partition_keys)
    labels = lake.arrow(COMPONENT_FAILURES, start, end).to_table(columns=["observed_at", DATE])
    horizon_end = pc.add(labels["observed_at"], SETTINGS.horizon)
    day_end = pc.add(labels[DATE].cast(labels["observed_at"].type), dt.timedelta(days=1))
    early = pc.sum(pc.greater(horizon_end, day_end).cast("int64")).as_py() or 0
    return dg.AssetCheckResult(
        passed=early == 0,
        metadata={"labels": labels.num_rows, "labels_before_their_time": early, "days": f"{start} to {end}"},
    )
