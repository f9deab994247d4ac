"""The retraining sensor: where monitoring says that the model no longer fits, a challenger is trained and the gate decides."""

import hashlib

import dagster as dg

from pdm_assets.assets.training import TrainingConfig
from pdm_assets.automation.jobs import train_model
from pdm_assets.partitions import DAILY, SETTINGS
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.features import FEATURE_DRIFT, REALISED_PERFORMANCE

MONITORED = [dg.AssetKey(table.key.split("/")) for table in (FEATURE_DRIFT, REALISED_PERFORMANCE)]


@dg.sensor(
    job=train_model,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Trains a challenger where drift or decline lasts or the model is old; the gate decides on it.",
)
def retraining_sensor(
    context: dg.SensorEvaluationContext, lake: Lake, model_store: dg.ResourceParam[ModelStore]
) -> dg.RunRequest | dg.SkipReason:
    """Look at the newest monitored day; after a training, wait PDM_RETRAIN_COOLDOWN_DAYS of data for the next."""
    news = _news(context.instance)
    # Only Spark can ask a catalog: asked each minute, its cluster would never be idle.
    if lake.catalog and context.cursor == news:
        return dg.SkipReason("nothing was monitored since the last look")
    decision = _decide(lake, model_store)
    context.update_cursor(news)
    return decision


def _decide(lake: Lake, model_store: ModelStore) -> dg.RunRequest | dg.SkipReason:
    from pdm_assets.resources.monitored import lasting_decline, lasting_drift

    drift, performance = (lake.first_and_last_day(table) for table in (FEATURE_DRIFT, REALISED_PERFORMANCE))
    if drift is None and performance is None:
        return dg.SkipReason("nothing is monitored yet")
    last = max(days[1] for days in (drift, performance) if days)
    models = model_store.fitting(last, model_store.registered())
    age = (last - models[-1].cutoff).days if models else None
    if age is None:
        return dg.SkipReason(
            "no model is there to be replaced: the first is trained with the first day that has enough history"
        )
    if age < SETTINGS.retrain_cooldown_days:
        return dg.SkipReason(
            f"{models[-1].version} was trained {age} days before {last}: the next at {SETTINGS.retrain_cooldown_days}"
        )
    # Each as of its own newest day: performance is known of days that are over, drift of the running one too.
    drifted = lasting_drift(lake, drift[1]) if drift else []
    declined = lasting_decline(lake, performance[1]) if performance else []
    reasons = _reasons(drifted, declined, age)
    if not reasons:
        return dg.SkipReason(f"{last}: no drift or decline lasts")
    if not DAILY.has_partition_key(last.isoformat()):
        return dg.SkipReason(f"{last} is outside of the day partitions")
    return dg.RunRequest(
        run_key=f"{last}:{models[-1].version}",
        partition_key=last.isoformat(),
        run_config=dg.RunConfig(ops={"models__failure_model": TrainingConfig(force=True)}),
        tags={"retraining/reason": "; ".join(reasons)[:255]},
    )


def _news(instance: dg.DagsterInstance) -> str:
    """The latest materializations of what is monitored, and the settings: while it is the same, so is what the sensor says.

    A training only makes a model younger. One that was asked for and failed is asked for again on the next monitored day: of
    the same day Dagster drops the run key.
    """
    records = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(MONITORED)}
    ids = [records[key].last_materialization_storage_id if key in records else None for key in MONITORED]
    return hashlib.sha256(f"{ids} {SETTINGS}".encode()).hexdigest()[:16]


def _reasons(drifted: list[str], declined: list[str], age: int) -> list[str]:
    reasons = []
    if drifted:
        reasons.append(f"drift of {', '.join(drifted)}")
    if declined:
        reasons.append(f"decline of {', '.join(declined)}")
    if age >= SETTINGS.retrain_every_days:
        reasons.append(f"{age} days old")
    return reasons
