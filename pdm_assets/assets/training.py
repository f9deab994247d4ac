"""The model as an asset of the day: trained when one is due, else carried forward."""

import base64
import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import dagster as dg
from pydantic import Field
from pyspark.sql import DataFrame

from pdm_assets.models.backtest import Fold, last_twelve_months, terms_of
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.fitting import Fitter, NoJava
from pdm_assets.models.promotion import Verdict
from pdm_assets.models.windows import first_possible_cutoff, model_windows
from pdm_assets.partitions import DAILY, ONE_RUN, SETTINGS
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import DayModel, Decision, ModelStore, Registered
from pdm_assets.resources.reports import Reports
from pdm_assets.schemas.features import BACKTEST, COMPONENT_FAILURES, COMPONENT_RISK, OBSERVATIONS, TOO_LITTLE_HISTORY
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
    It is in force from its day on if the gate promotes it (docs/models.md), or from the next one on if its day is scored
    already; else yesterday's model is carried forward. So a backfill of a year retrains as it would have happened live, never
    once a day.
    """
    lake.hold()
    days = [dt.date.fromisoformat(key) for key in sorted(context.partition_keys)]
    observed = lake.first_and_last_day(OBSERVATIONS)
    models, decisions = model_store.registered(), model_store.decisions()
    chosen: dict[dt.date, DayModel] = {}
    trained: dict[dt.date, str] = {}
    failed: tuple[dt.date, str] | None = None  # the latest attempt of this run that made no model
    with lake.spark.fitter() as fitter:  # a process is started once one is fitted, and ends with the last
        for day in days:
            incumbent = model_store.in_force(day, models, decisions)
            forced = config.force and day == days[-1]
            said = _not_due(day, models, decisions, model_store)
            if forced or said is None:
                missing = _what_is_missing(day, observed and observed[0]) or (None if forced else _was_tried(day, failed))
                found = missing or _train(context, config, lake, model_store, reports, fitter, day)
                if isinstance(found, TrainedFor):
                    models, decisions = model_store.registered(), model_store.decisions()
                    trained[day] = found.version
                    if found.verdict.is_promoted and found.in_force_from == day:
                        chosen[day] = DayModel(found.version, day, "trained", f"{'forced' if forced else 'due'}, and promoted")
                        continue
                    incumbent = model_store.in_force(day, models, decisions)  # another may have been put in charge meanwhile
                    said = (
                        f"{_from_later_on(found.version, found.in_force_from)}: {day} has scores already"
                        if found.verdict.is_promoted
                        else f"{found.version} was refused: {found.verdict.reason}"
                    )
                elif forced:
                    raise dg.Failure(f"no model can be trained for {day}: {found}")
                else:
                    if missing is None:
                        failed = day, found
                    if incumbent is None:
                        chosen[day] = DayModel(None, None, TOO_LITTLE_HISTORY, found)
                        continue
                    said = f"a new one is due, but {found}"
            chosen[day] = (
                DayModel(incumbent.version, incumbent.cutoff, "carried forward", said)
                if incumbent
                else DayModel(
                    None, None, "refused", f"{said}. `pdm-assets models promote VERSION` puts one in force all the same"
                )
            )
    _show_in_mlflow(context, model_store, trained)
    return chosen


class TrainedFor(NamedTuple):
    """A model that a day got, what the gate said of it, and the first day that is for."""

    version: str
    verdict: Verdict
    in_force_from: dt.date


def _not_due(day: dt.date, models: Sequence[Registered], decisions: Sequence[Decision], store: ModelStore) -> str | None:
    """Why no model is due on a day; None if one is. A version that nobody decided on is none: training it was broken off."""
    decided = {decision.version: decision for decision in decisions}
    known = [model for model in store.fitting(day, models) if model.version in decided]
    if not known or (age := (day - known[-1].cutoff).days) >= SETTINGS.retrain_every_days:
        return None
    last = decided[known[-1].version]
    if not last.is_promoted:
        return f"{last.version} was refused: {last.reason}"
    return _from_later_on(last.version, last.in_force_from) if last.in_force_from > day else f"{age} days old"


def _from_later_on(version: str, first: dt.date) -> str:
    return f"{version} is promoted, in force from {first} on"


def _was_tried(day: dt.date, failed: tuple[dt.date, str] | None) -> str | None:
    """Why none is trained for a day of a range where an earlier day's training failed: one day more hardly changes that."""
    if failed is None or day - failed[0] >= dt.timedelta(days=SETTINGS.retrain_every_days):
        return None
    return f"the training for {failed[0]} failed and is not tried again so soon: {failed[1]}"


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


def trained_for(
    lake: Lake, day: dt.date, *, kind: ModelType, settings: Settings, version: str, fitter: Fitter, folder: Path
) -> "TrainedModel":
    """A model of what was known before a day began, whatever the tables hold by now.

    Raises:
        TrainingError, FitProcessError, NoJava, FitFailed: as of models.training.train.
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
        fitter=fitter,
        folder=folder,
    )


def _train(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    lake: Lake,
    store: ModelStore,
    reports: Reports,
    fitter: Fitter,
    day: dt.date,
) -> TrainedFor | str:
    """Train and register a model for a day and let the gate decide; what stood in the way, if it can't be made."""
    from pdm_assets.models.model_page import page
    from pdm_assets.models.pictures import backtest_picture, pictures_of
    from pdm_assets.models.reports import baselines, components, conditions
    from pdm_assets.models.training import TrainingError

    kind: ModelType = config.model_type.value if config.model_type else SETTINGS.model_type
    context.log.info(f"training {kind} for {day}")
    _, incumbent = _rival(lake, store, day)
    if incumbent:
        store.load(incumbent.version)  # a damaged one is told before the training, not after it
    version = f"{kind}-{day}-{context.run.run_id[:8]}"
    with store.new_folder() as folder:
        try:
            trained = trained_for(lake, day, kind=kind, settings=SETTINGS, version=version, fitter=fitter, folder=folder)
        except TrainingError as error:
            return str(error)
        except NoJava as error:
            if incumbent is None:
                raise dg.Failure(str(error)) from error
            context.log.warning(f"{error} {incumbent.version} stays in force meanwhile")
            return str(error)
        card, pictures = trained.card, pictures_of(trained)
        store.save(trained, pictures, context.run.run_id)
    found = _decide(lake, store, trained, f"gate, run {context.run.run_id}")
    verdict = found.verdict
    outcome = "promoted from" if verdict.is_promoted else "refused for"
    context.log.info(f"{card.version} is {outcome} {found.in_force_from}: {verdict.reason}")
    rows, events = card.metrics["test"][POOLED], card.events[POOLED]
    shown = {
        **{name: getattr(events.observed, name) for name in EVENT_METRICS},
        **{name: getattr(rows, name) for name in ROW_METRICS},
        "saving": events.saving,
    }
    folds = folds_before(lake, day + dt.timedelta(days=1), SETTINGS)  # of cutoffs up to this day: known when it began
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
    return found


def _rival(lake: Lake, store: ModelStore, day: dt.date) -> tuple[dt.date, Registered | None]:
    """The first day that a model trained for a day may be in force, and the model that it would replace then.

    A day that is scored keeps its scores: what is trained for it takes charge on the next. Only where no model is in force,
    so that nothing could score the day again, does it take charge at once.
    """
    models, decisions = store.registered(), store.decisions()
    incumbent = store.in_force(day, models, decisions)
    next_day = day + dt.timedelta(days=1)
    if incumbent is None or not lake.rows_by_day(COMPONENT_RISK, day, next_day)[day]:
        return day, incumbent
    return next_day, store.in_force(next_day, models, decisions)


def _decide(lake: Lake, store: ModelStore, trained: "TrainedModel", by: str) -> TrainedFor:
    """Let the gate weigh a model against the one that it would replace; again, if that became another one meanwhile."""
    from pdm_assets.models.training import weigh

    version, day = trained.card.version, trained.card.cutoff
    while True:
        weighed = _rival(lake, store, day)
        incumbent = weighed[1]
        verdict = weigh(trained, store.load(incumbent.version) if incumbent else None)
        with store.alone():
            if _rival(lake, store, day) == weighed:
                store.decide(version, verdict, weighed[0], by)
                return TrainedFor(version, verdict, weighed[0])


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


def folds_before(lake: Lake, day: dt.date, settings: Settings) -> list[Fold]:
    """The backtest's last twelve months of folds with a cutoff before a day, of those made on the settings' terms."""
    if not lake.exists(BACKTEST):
        return []
    names, terms = {field.name for field in dataclasses.fields(Fold)}, terms_of(settings)
    rows = [row for row in lake.rows(BACKTEST, day - dt.timedelta(days=366), day) if row.get("terms") == terms]
    return last_twelve_months(
        [Fold(cutoff=row[DATE], **{name: value for name, value in row.items() if name in names}) for row in rows]
    )


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A picture inside the metadata: the UI shows it with no file to serve."""
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")
