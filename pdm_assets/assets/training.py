"""The model as an asset of the day: trained when one is due, else carried forward."""

import base64
import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, NamedTuple, get_args

import dagster as dg
from pydantic import Field
from pyspark.sql import DataFrame

from pdm_assets.models.backtest import FOLDS_SHOWN, Fold
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.promotion import Verdict
from pdm_assets.models.windows import first_possible_cutoff, model_windows
from pdm_assets.partitions import DAILY, ONE_RUN, SETTINGS
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import DayModel, Decision, ModelStore, Registered
from pdm_assets.resources.reports import Reports
from pdm_assets.schemas.features import BACKTEST, COMPONENT_FAILURES, OBSERVATIONS
from pdm_assets.schemas.raw import FAILURES, MAINTENANCE
from pdm_assets.schemas.table import DATE, Table
from pdm_assets.settings import ModelType, Settings

if TYPE_CHECKING:
    from pdm_assets.models.training import TrainedModel

CODE_VERSION = "1"
TRAINED_ON = (OBSERVATIONS, COMPONENT_FAILURES, FAILURES, MAINTENANCE)
ROW_METRICS = ("average_precision", "brier_skill", "calibration_error")
EVENT_METRICS = ("event_recall", "alarm_precision", "false_alarms_per_machine_month", "lead_median_hours")


class Classifier(enum.Enum):
    """The values of ModelType, which the launchpad offers; run config can't be a Literal."""

    vars().update({kind: kind for kind in get_args(ModelType)})


# The name is all that Dagster says of an enum when it refuses another value.
Classifier.__name__ = f"one of {', '.join(get_args(ModelType))}"


class TrainingConfig(dg.Config):
    """How the model of a run is trained."""

    force: bool = Field(default=False, description="train for the last day of the run even if no model is due")
    model_type: Classifier | None = Field(default=None, description="classifier instead of PDM_MODEL_TYPE")


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
    reports: Reports,
) -> dict[dt.date, DayModel]:
    """One row per day: the model in force, which knew nothing from that day's start on.

    A challenger is trained here when there is none yet, when the newest is older than PDM_RETRAIN_EVERY_DAYS, or when forced.
    It is in force from its day on if the gate promotes it (docs/models.md); else yesterday's model is carried forward. So a
    backfill of a year retrains as it would have happened live, never once a day.
    """
    days = [dt.date.fromisoformat(key) for key in sorted(context.partition_keys)]
    observed = lake.first_and_last_day(OBSERVATIONS)
    models, decisions = model_store.registered(), model_store.decisions()
    chosen: dict[dt.date, DayModel] = {}
    trained: dict[dt.date, str] = {}
    for day in days:
        incumbent = model_store.in_force(day, models, decisions)
        forced = config.force and day == days[-1]
        said = _not_due(day, models, decisions, model_store)
        if forced or said is None:
            missing = _what_is_missing(day, observed and observed[0])
            found = missing or _train(context, config, lake, model_store, reports, day, incumbent)
            if isinstance(found, TrainedFor):
                models, decisions = model_store.registered(), model_store.decisions()
                trained[day] = found.version
                if found.verdict.is_promoted:
                    chosen[day] = DayModel(found.version, day, "trained", f"{'forced' if forced else 'due'}, and promoted")
                    continue
                said = f"{found.version} was refused: {found.verdict.reason}"
            elif forced:
                raise dg.Failure(f"no model can be trained for {day}: {found}")
            elif incumbent is None:
                chosen[day] = DayModel(None, None, "too little history", found)
                continue
            else:
                said = f"a new one is due, but {found}"
        chosen[day] = (
            DayModel(incumbent.version, incumbent.cutoff, "carried forward", said)
            if incumbent
            else DayModel(None, None, "refused", f"{said}. `pdm-assets models promote VERSION` puts one in force all the same")
        )
    _show_in_mlflow(context, model_store, trained)
    return chosen


class TrainedFor(NamedTuple):
    """A model that a day got, and what the gate said of it."""

    version: str
    verdict: Verdict


def _not_due(day: dt.date, models: Sequence[Registered], decisions: Sequence[Decision], store: ModelStore) -> str | None:
    """Why no model is due on a day; None if one is. A version that nobody decided on is none: training it was broken off."""
    decided = {decision.version: decision for decision in decisions}
    known = [model for model in store.fitting(day, models) if model.version in decided]
    if not known or (age := (day - known[-1].cutoff).days) >= SETTINGS.retrain_every_days:
        return None
    last = decided[known[-1].version]
    return f"{age} days old" if last.is_promoted else f"{last.version} was refused: {last.reason}"


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


def trained_for(lake: Lake, day: dt.date, *, kind: ModelType, settings: Settings, version: str) -> "TrainedModel":
    """A model of what was known before a day began, whatever the tables hold by now.

    Raises:
        TrainingError: as of models.training.train.
    """
    from pdm_assets.models.training import train

    windows = model_windows(day, settings)
    versions = {table.key: lake.version(table) for table in TRAINED_ON}

    def known_before(table: Table, start: dt.date | None, end: dt.date) -> DataFrame:
        return lake.read(table, start, end, version=versions[table.key])

    return train(
        known_before(OBSERVATIONS, windows.train.start, windows.test.end),
        known_before(COMPONENT_FAILURES, windows.train.start, day),
        known_before(FAILURES, None, day),
        known_before(MAINTENANCE, None, day),
        cutoff=day,
        settings=settings,
        model_type=kind,
        data_versions=versions,
        code_version=f"{installed_version('pdm-assets')}/{CODE_VERSION}",
        version=version,
    )


def _train(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    lake: Lake,
    store: ModelStore,
    reports: Reports,
    day: dt.date,
    incumbent: Registered | None,
) -> TrainedFor | str:
    """Train and register a model for a day and let the gate decide; what stood in the way, if it can't be made."""
    from pdm_assets.models.model_page import page
    from pdm_assets.models.pictures import backtest_picture, pictures_of
    from pdm_assets.models.reports import baselines, components, conditions
    from pdm_assets.models.training import TrainingError, weigh

    kind: ModelType = config.model_type.value if config.model_type else SETTINGS.model_type
    context.log.info(f"training {kind} for {day}")
    champion = store.load(incumbent.version) if incumbent else None  # a damaged one is told before the training, not after it
    try:
        version = f"{kind}-{day}-{context.run.run_id[:8]}"
        trained = trained_for(lake, day, kind=kind, settings=SETTINGS, version=version)
    except TrainingError as error:
        return str(error)
    card, pictures = trained.card, pictures_of(trained)
    store.save(trained, pictures, context.run.run_id)
    verdict = weigh(trained, champion)
    store.decide(card.version, verdict, day, f"gate, run {context.run.run_id}")
    context.log.info(f"{card.version} is {'promoted' if verdict.is_promoted else 'refused'}: {verdict.reason}")
    rows, events = card.metrics["test"][POOLED], card.events[POOLED]
    shown = {
        **{name: getattr(events.observed, name) for name in EVENT_METRICS},
        **{name: getattr(rows, name) for name in ROW_METRICS},
        "saving": events.saving,
    }
    folds = folds_before(lake, day + dt.timedelta(days=1))  # of cutoffs up to this day: known when it began
    over_time = {"backtest": backtest_picture(folds)} if folds else {}
    html = page(card, verdict, folds, {**pictures, **over_time})
    context.add_asset_metadata(
        {
            "trained_version": card.version,
            "decision": "promoted" if verdict.is_promoted else "refused",
            "report": dg.MetadataValue.path(reports.write(f"models/{card.version}.html", html)),
            "gate": dg.MetadataValue.md(conditions(verdict).markdown),
            "model_card": dg.MetadataValue.json(json.loads(card.to_json())),
            "beside_the_baselines": dg.MetadataValue.md(baselines(card).markdown),
            "by_component": dg.MetadataValue.md(components(card).markdown),
            **{name: picture(png) for name, png in pictures.items()},
            **{f"test_{name}": value for name, value in shown.items() if value is not None},
        },
        asset_key=context.asset_key,
        partition_key=day.isoformat(),
    )
    return TrainedFor(card.version, verdict)


def _show_in_mlflow(context: dg.AssetExecutionContext, store: ModelStore, trained: Mapping[dt.date, str]) -> None:
    """Bring the mirror up to date, if there is one; also after no training, as what is in force changes with the day."""
    from pdm_assets.resources.mlflow_mirror import MirrorError, mirror

    if SETTINGS.mlflow_uri is None:
        return
    try:
        mirrored = mirror(store, SETTINGS.mlflow_uri, SETTINGS.mlflow_name)
    except MirrorError as error:
        context.log.warning(str(error))
        return
    for version, why in mirrored.left_out.items():
        context.log.warning(f"{version} is not in MLflow: {why}")
    for day, version in trained.items():
        if version in mirrored.runs:
            link = {"mlflow_run": dg.MetadataValue.url(mirrored.runs[version])}
            context.add_asset_metadata(link, asset_key=context.asset_key, partition_key=day.isoformat())


def folds_before(lake: Lake, day: dt.date) -> list[Fold]:
    """The backtest's folds of cutoffs before a day, as far back as is shown."""
    if not lake.exists(BACKTEST):
        return []
    names = {field.name for field in dataclasses.fields(Fold)}
    rows = lake.rows(BACKTEST, day - dt.timedelta(days=31 * FOLDS_SHOWN), day)
    folds = [Fold(cutoff=row[DATE], **{name: value for name, value in row.items() if name in names}) for row in rows]
    return sorted(folds, key=lambda fold: fold.cutoff)


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A picture inside the metadata: the UI shows it with no file to serve."""
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")
