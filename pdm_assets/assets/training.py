"""The model as an asset of the day: trained when one is due, else carried forward."""

import base64
import datetime as dt
import json
from importlib.metadata import version as installed_version

import dagster as dg
from pydantic import Field
from pyspark.sql import DataFrame

from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.windows import first_possible_cutoff, model_windows
from pdm_assets.partitions import DAILY, ONE_RUN, SETTINGS
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import DayModel, ModelStore, Registered
from pdm_assets.schemas.features import COMPONENT_FAILURES, OBSERVATIONS
from pdm_assets.schemas.raw import FAILURES, MAINTENANCE
from pdm_assets.schemas.table import Table
from pdm_assets.settings import ModelType

CODE_VERSION = "1"
TRAINED_ON = (OBSERVATIONS, COMPONENT_FAILURES, FAILURES, MAINTENANCE)
ROW_METRICS = ("average_precision", "brier_skill", "calibration_error")
EVENT_METRICS = ("event_recall", "alarm_precision", "false_alarms_per_machine_month", "lead_median_hours")


class TrainingConfig(dg.Config):
    """How the model of a run is trained."""

    force: bool = Field(default=False, description="train for the last day of the run even if no model is due")
    model_type: str | None = Field(default=None, description="classifier instead of PDM_MODEL_TYPE")


@dg.asset(
    key_prefix="models",
    group_name="models",
    kinds={"spark", "sparkml"},
    owners=["team:reliability"],
    code_version=CODE_VERSION,
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    io_manager_key="model_store",
    deps=[table.key.split("/") for table in TRAINED_ON],
    pool="spark",
)
def failure_model(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    lake: Lake,
    model_store: dg.ResourceParam[ModelStore],
) -> dict[dt.date, DayModel]:
    """One row per day: the model in force, which knew nothing from that day's start on.

    It is trained here when there is none yet, when the one in force is older than PDM_RETRAIN_EVERY_DAYS, or when forced; else
    yesterday's is carried forward. So a backfill of a year retrains as it would have happened live, never once a day.
    """
    days = [dt.date.fromisoformat(key) for key in sorted(context.partition_keys)]
    observed = lake.first_and_last_day(OBSERVATIONS)
    chosen: dict[dt.date, DayModel] = {}
    for day in days:
        models = model_store.registered()
        incumbent = model_store.in_force(day, models)
        forced = config.force and day == days[-1]
        if not forced and incumbent is not None and (day - incumbent.cutoff).days < SETTINGS.retrain_every_days:
            chosen[day] = _carried(incumbent, f"{(day - incumbent.cutoff).days} days old")
            continue
        missing = _what_is_missing(day, observed and observed[0])
        if missing is None:
            missing = _train(context, config, lake, model_store, day)
        if missing is None:
            trained = model_store.in_force(day, model_store.registered())
            assert trained is not None
            chosen[day] = DayModel(trained.version, trained.cutoff, "trained", "forced" if forced else "due")
        elif forced:
            raise dg.Failure(f"no model can be trained for {day}: {missing}")
        elif incumbent is not None:
            chosen[day] = _carried(incumbent, f"a new one is due, but {missing}")
        else:
            chosen[day] = DayModel(None, None, "too little history", missing)
    return chosen


def _carried(model: Registered, why: str) -> DayModel:
    return DayModel(model.version, model.cutoff, "carried forward", why)


def _what_is_missing(day: dt.date, history_begins: dt.date | None) -> str | None:
    if history_begins is None:
        return "there are no features yet: land telemetry and materialize features/observations"
    works_from = first_possible_cutoff(history_begins, SETTINGS)
    if day >= works_from:
        return None
    windows = model_windows(day, SETTINGS)
    return (
        f"the training window would begin on {windows.train.start}, but complete observations begin two days after "
        f"{history_begins}. A first model works from {works_from} on; PDM_TRAIN_DAYS={SETTINGS.train_days}, "
        f"PDM_CALIBRATION_DAYS={SETTINGS.calibration_days} or PDM_TEST_DAYS={SETTINGS.test_days} made smaller bring it forward"
    )


def _train(
    context: dg.AssetExecutionContext, config: TrainingConfig, lake: Lake, store: ModelStore, day: dt.date
) -> str | None:
    """Train and register the model of a day; what stood in the way, if it can't be made."""
    from pdm_assets.models.pictures import importance_picture, precision_recall_picture
    from pdm_assets.models.reports import baselines_table
    from pdm_assets.models.training import TrainingError, train

    windows = model_windows(day, SETTINGS)
    kind: ModelType = config.model_type or SETTINGS.model_type  # type: ignore[assignment]
    versions = {table.key: lake.version(table) for table in TRAINED_ON}

    def known_before(table: Table, start: dt.date | None, end: dt.date) -> DataFrame:
        return lake.read(table, start, end, version=versions[table.key])

    context.log.info(f"training {kind} for {day}: learns from {windows.train.start} to {windows.train.end}")
    try:
        trained = train(
            known_before(OBSERVATIONS, windows.train.start, windows.test.end),
            # known before the day began, whatever the tables hold by now
            known_before(COMPONENT_FAILURES, windows.train.start, day),
            known_before(FAILURES, None, day),
            known_before(MAINTENANCE, None, day),
            cutoff=day,
            settings=SETTINGS,
            model_type=kind,
            data_versions=versions,
            code_version=f"{installed_version('pdm-assets')}/{CODE_VERSION}",
            version=f"{kind}-{day}-{context.run_id[:8]}",
        )
    except TrainingError as error:
        return str(error)
    store.save(trained, context.run_id)
    card = trained.card
    rows, events = card.metrics["test"][POOLED], card.events[POOLED]
    shown = {
        **{name: getattr(events.observed, name) for name in EVENT_METRICS},
        **{name: getattr(rows, name) for name in ROW_METRICS},
        "saving": events.saving,
    }
    context.add_asset_metadata(
        {
            "model_card": dg.MetadataValue.json(json.loads(card.to_json())),
            "beside_the_baselines": dg.MetadataValue.md(baselines_table(card)),
            "precision_recall": _picture(precision_recall_picture(trained.outcomes["test"], card)),
            "feature_importance": _picture(importance_picture(card)),
            **{f"test_{name}": value for name, value in shown.items() if value is not None},
        },
        asset_key=context.asset_key,
        partition_key=day.isoformat(),
    )
    return None


def _picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A picture inside the metadata: the UI shows it with no file to serve."""
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")
