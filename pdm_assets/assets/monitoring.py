"""Monitoring: what the scores were worth once outcomes are known, and whether the data still looks like training's."""

import datetime as dt
from dataclasses import asdict

import dagster as dg
from pyspark.sql import DataFrame

from pdm_assets.partitions import DAILY, ONE_RUN
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.features import COMPONENT_RISK, FAILURE_MODEL, FEATURE_DRIFT, OBSERVATIONS, REALISED_PERFORMANCE
from pdm_assets.schemas.raw import FAILURES, MAINTENANCE
from pdm_assets.schemas.table import DATE

OWNERS = ["team:reliability"]


@dg.asset(
    key_prefix="monitoring",
    group_name="monitoring",
    kinds={"delta", "python"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    deps=[table.key.split("/") for table in (COMPONENT_RISK, FAILURE_MODEL, FAILURES, MAINTENANCE)],
    pool="spark",
)
def realised_performance(context: dg.AssetExecutionContext, lake: Lake, model_store: dg.ResourceParam[ModelStore]) -> DataFrame:
    """One row per component, and pooled, and window of 1 and of 30 days: what the scores were worth, as known by the day's end.

    Failures are those of the window; alarms and probabilities those given a horizon earlier, whose outcome is known by now.
    What the model in force scored of the 30 days is compared with its test window. A day not known to its end has no rows.
    """
    from pdm_assets.models.evaluation import POOLED
    from pdm_assets.resources.monitored import cards_by_day, realised_by_day

    start, end = span(context.partition_keys)
    cards = cards_by_day(lake, model_store, start, end)
    rows = []
    for day, found in realised_by_day(lake, cards):
        for one in found:
            values = {**asdict(one.events), **asdict(one), "is_worse": one.worse is not None}
            values |= {"model_version": cards[day].version, DATE: day}
            rows.append(tuple(values[name] for name in REALISED_PERFORMANCE.column_names))
        pooled = next(one for one in found if one.component == POOLED and one.window_days > 1)
        shown = {
            "event_recall_30d": pooled.events.event_recall,
            "alarm_precision_30d": pooled.events.alarm_precision,
            "alarms_replaced_30d": pooled.events.replaced_episodes,
            "cost_30d": pooled.events.cost,
            "never_cost_30d": pooled.never_cost,
            "calibration_error_30d": pooled.calibration_error,
            "alerts_said_30d": pooled.alerts_said,
            "alerts_came_true_30d": pooled.alerts_came_true,
        }
        _show(context, day, shown)
    return lake.spark.spark_session.createDataFrame(rows, REALISED_PERFORMANCE.struct)


@dg.asset(
    key_prefix="monitoring",
    group_name="monitoring",
    kinds={"delta", "python"},
    owners=OWNERS,
    code_version="2",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    deps=[table.key.split("/") for table in (OBSERVATIONS, COMPONENT_RISK, FAILURE_MODEL)],
    pool="spark",
)
def feature_drift(context: dg.AssetExecutionContext, lake: Lake, model_store: dg.ResourceParam[ModelStore]) -> DataFrame:
    """One row per feature, and per component's probability: how far the last 7 days are from what the model learnt from.

    The model is the one in force. Population stability index by deciles of the training window, and the share of observations
    without a value.
    """
    from pdm_assets.resources.monitored import cards_by_day, drift_by_day

    start, end = span(context.partition_keys)
    cards = cards_by_day(lake, model_store, start, end)
    rows = []
    for day, found in drift_by_day(lake, cards):
        rows += [(*row, cards[day].version, day) for row in found]
        _show(context, day, {"greatest_psi": max((row[2] for row in found if row[2] is not None), default=None)})
    return lake.spark.spark_session.createDataFrame(rows, FEATURE_DRIFT.struct)


def _show(context: dg.AssetExecutionContext, day: dt.date, values: dict[str, float | None]) -> None:
    known = {name: value for name, value in values.items() if value is not None}
    context.add_asset_metadata(known, asset_key=context.asset_key, partition_key=day.isoformat())
