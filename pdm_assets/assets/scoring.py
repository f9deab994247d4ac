"""Scoring: the risk of each component at each observation, by the model in force on that day."""

import datetime as dt
from collections.abc import Mapping
from functools import reduce
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pdm_assets.models.scoring import score
from pdm_assets.partitions import DAILY, ONE_RUN, SETTINGS, reads
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import DayModel, ModelStore
from pdm_assets.schemas.features import COMPONENT_RISK, NUMERIC_FEATURES, OBSERVATIONS, TOO_LITTLE_HISTORY
from pdm_assets.schemas.table import DATE


@dg.asset(
    key_prefix="scores",
    group_name="scores",
    kinds={"spark", "delta", "sparkml"},
    owners=["team:reliability"],
    code_version="1",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    ins={
        "observations": reads("features/observations"),
        "failure_model": reads("models/failure_model"),
    },
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=36), warn_window=dt.timedelta(hours=26)),
    pool="spark",
)
def component_risk(
    context: dg.AssetExecutionContext,
    lake: Lake,
    model_store: dg.ResourceParam[ModelStore],
    observations: DataFrame,
    failure_model: dict[dt.date, DayModel],
) -> dg.Output[DataFrame | None]:
    """One row per machine, observation time and component: the probability that it fails within the horizon.

    An alert is a probability at or above the model's threshold. Observations with less than half of their 36 h of readings
    are not scored. No day is scored by a model that knew anything of it; one with too little history for a model has no rows.
    """
    days = sorted(dt.date.fromisoformat(key) for key in context.partition_keys)
    without = [day for day in days if day not in failure_model or failure_model[day].version is None]
    if len(without) == len(days):
        lacking = [day for day in without if day not in failure_model or failure_model[day].status != TOO_LITTLE_HISTORY]
        said = f"no model is in force for {_days(lacking or without)}: {_why_not(failure_model, lacking or without)}"
        if lacking:
            raise dg.Failure(
                f"{said}. Materialize models/failure_model for a day with enough history (its metadata names the first), then "
                "score again."
            )
        context.log.warning(said)  # no failure: a plant's first months are no trouble
        return dg.Output(None, metadata={"days_without_model": len(without), "not_scored": said})
    frame = risks(
        model_store,
        observations,
        {d: m.version for d, m in failure_model.items() if m.version},
        lake.version(OBSERVATIONS),
    )
    lineage = {
        name: [
            dg.TableColumnDep(dg.AssetKey(["features", "observations"]), feature)
            for feature in (NUMERIC_FEATURES if name in ("probability", "is_alert") else (name,))
        ]
        for name in ("machine_id", "observed_at", "probability", "is_alert")
    }
    context.add_asset_metadata(
        {"dagster/column_lineage": dg.TableColumnLineage(lineage)}, partition_key=context.partition_keys[-1]
    )
    metadata: dict[str, Any] = {
        "model_versions": ", ".join(sorted({m.version for m in failure_model.values() if m.version})),
        "days_without_model": len(without),
        "horizon_hours": SETTINGS.horizon_hours,
    }
    return dg.Output(frame, metadata=metadata)


def risks(store: ModelStore, observations: DataFrame, versions: Mapping[dt.date, str], features_version: int) -> DataFrame:
    """Rows of scores/component_risk for the days that have a version; each model is loaded once."""
    days_by_version: dict[str, list[dt.date]] = {}
    for day, version in sorted(versions.items()):
        days_by_version.setdefault(version, []).append(day)
    scored_at = F.lit(dt.datetime.now(dt.UTC))
    parts = []
    for version, days in days_by_version.items():
        pipeline, card = store.load(version)
        rows = score(observations.where(F.col(DATE).isin(days)), pipeline, card)
        parts.append(
            rows.select(
                "*",
                scored_at.alias("scored_at"),
                F.lit(features_version).cast("long").alias("features_version"),
                F.to_date("observed_at").alias(DATE),
            ).select(*COMPONENT_RISK.column_names)
        )
    return reduce(DataFrame.unionByName, parts)


def _why_not(models: Mapping[dt.date, DayModel], without: list[dt.date]) -> str:
    known = models.get(without[-1])
    return known.detail if known else "models/failure_model has no such day"


def _days(days: list[dt.date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else "these days"
