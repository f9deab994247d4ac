"""Jobs and schedules: a day from file to score, training on its own, and the reference's scoring notebook as a job."""

import datetime as dt
import re
from dataclasses import replace

import dagster as dg
from pydantic import Field

from pdm_assets.assets.scoring import risks
from pdm_assets.assets.training import TrainingConfig
from pdm_assets.checks.scoring import yesterday_is_scored
from pdm_assets.partitions import DAILY
from pdm_assets.resources.delta_io import ROW_COUNT, describe, describe_days
from pdm_assets.resources.faults import faults_are_told
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore, NoSuchModel, Registered
from pdm_assets.schemas.features import COMPONENT_RISK, OBSERVATIONS

TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

BACKTEST = dg.AssetSelection.assets(["models", "backtest"])

process_days = dg.define_asset_job(
    "process_days",
    selection=dg.AssetSelection.all() - BACKTEST,
    description="From landed files to scores, for one day or a range of days.",
)
train_model = dg.define_asset_job(
    "train_model",
    selection=dg.AssetSelection.assets(["models", "failure_model"]),
    description="The model in force for a day: trained if one is due or forced, else carried forward.",
)
backtest = dg.define_asset_job(
    "backtest",
    selection=BACKTEST,
    description="What a model trained each month would have been worth; for a range of days with the first of a month in it.",
)
watch_scores = dg.define_asset_job(
    "watch_scores",
    selection=dg.AssetSelection.checks(yesterday_is_scored),
    description="Is yesterday scored? Asks the lake, makes nothing.",
)


class ScoreRange(dg.Config):
    """The parameters of the reference's scoring notebook."""

    start_date: str = Field(description="first day to score, YYYY-MM-DD")
    to_date: str = Field(description="last day to score, YYYY-MM-DD, included")
    model: str = Field(
        default="random_forest",
        description="a version, or a model type: then the newest version of it that knew nothing of the day scores it",
    )
    results_table: str = Field(description="table below lake/results/ to write; its days in the range are replaced")


@dg.op(pool="spark")
def score_days(
    context: dg.OpExecutionContext, config: ScoreRange, lake: Lake, model_store: dg.ResourceParam[ModelStore]
) -> None:
    """Score a range of days into a table of its own; scores/component_risk is not touched."""
    start, last = _day("start_date", config.start_date), _day("to_date", config.to_date)
    if last < start:
        raise dg.Failure(f"to_date {last} is before start_date {start}")
    if not TABLE_NAME.fullmatch(config.results_table):
        raise dg.Failure(
            f"results_table {config.results_table!r}: take a name of lower-case letters, digits and _ that begins with a letter"
        )
    lake.hold()
    end = last + dt.timedelta(days=1)
    rows = lake.rows_by_day(OBSERVATIONS, start, end)
    if empty := [str(day) for day, count in rows.items() if not count]:
        raise dg.Failure(
            f"features/observations has no rows for {', '.join(empty[:10])}{' ...' if len(empty) > 10 else ''}: "
            "materialize these days first, or shorten the range"
        )
    registered = model_store.registered()
    versions = {day: _version_for(day, config.model, model_store, registered) for day in rows}
    table = replace(COMPONENT_RISK, key=f"results/{config.results_table}")
    frame = risks(model_store, lake.read(OBSERVATIONS, start, end), versions, lake.version(OBSERVATIONS))
    note = {"run_id": context.run_id, "job": "score_range", "days": f"{start}/{end}", "model": config.model}
    commit = lake.replace_days(table, frame, start, end, note)
    context.log_event(
        dg.AssetMaterialization(
            asset_key=["results", config.results_table],
            description=f"scores of {start} to {last} by {config.model}",
            metadata={
                **describe(lake, table, commit),
                **{
                    name: said
                    for day in describe_days(lake, table, commit).values()
                    for name, said in day.items()
                    if name != ROW_COUNT
                },
                "model_versions": ", ".join(sorted(set(versions.values()))),
            },
        )
    )


@dg.job(
    description="Score a range of days with a named model into a results table (the reference's notebook parameters).",
    hooks={faults_are_told},
)
def score_range() -> None:
    """One op, typed run config."""
    score_days()


def _day(name: str, text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise dg.Failure(f"{name} {text!r} is no day: write YYYY-MM-DD") from error


def _version_for(day: dt.date, model: str, store: ModelStore, registered: list[Registered]) -> str:
    """The version that scores a day; never one that knew anything of it."""
    of_type = [m for m in registered if m.model_type == model]
    if of_type:
        fitting = store.fitting(day, of_type)
        ours = [m for m in of_type if m.horizon_hours == store.horizon_hours]
        if not ours:
            horizons = ", ".join(f"{hours} h" for hours in sorted({m.horizon_hours for m in of_type}))
            raise dg.Failure(
                f"no {model} foretells {store.horizon_hours} h ahead (PDM_HORIZON_HOURS), those registered foretell "
                f"{horizons}: train one for this horizon, job train_model with force and model_type"
            )
        if not fitting:
            oldest = min(m.cutoff for m in ours)
            raise dg.Failure(f"no {model} knew nothing of {day}: the oldest has cutoff {oldest}; score from that day on")
        return fitting[-1].version
    named = next((m for m in registered if m.version == model), None)
    if named is None:
        raise dg.Failure(
            str(NoSuchModel(f"no model {model!r}. Registered: {', '.join(m.version for m in registered) or 'none'}"))
        )
    if named.horizon_hours != store.horizon_hours:
        raise dg.Failure(
            f"{model} foretells {named.horizon_hours} h ahead, PDM_HORIZON_HOURS={store.horizon_hours}: name a version of this "
            "horizon, or train one, job train_model with force"
        )
    if named.cutoff > day:
        raise dg.Failure(f"{model} has cutoff {named.cutoff} and may have learnt from {day}: score from its cutoff on")
    return named.version


@dg.schedule(
    job=process_days,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Yesterday from file to score at 00:30 UTC, for sources that land without notice (the sensor being off).",
)
def daily_scoring(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Materialize the day that has just ended."""
    return _request(context.scheduled_execution_time.date() - dt.timedelta(days=1))


@dg.schedule(
    job=train_model,
    cron_schedule="0 3 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="A new model each Monday at 03:00 UTC, due or not; without it one is trained every PDM_RETRAIN_EVERY_DAYS.",
)
def weekly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Train for the running day: on what was known before it began."""
    config = dg.RunConfig(ops={"models__failure_model": TrainingConfig(force=True)})
    return _request(context.scheduled_execution_time.date(), config)


@dg.schedule(
    job=backtest,
    cron_schedule="0 4 1 * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="The backtest's fold of the month that begins, at 04:00 UTC of its first day.",
)
def monthly_backtest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One fold more: the cutoff is the day that has just begun."""
    return _request(context.scheduled_execution_time.date())


@dg.schedule(
    job=watch_scores,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The check yesterday_is_scored at 06:00 UTC, whatever ran: where nothing did, nothing else would say so.",
)
def daily_watch() -> dg.RunRequest:
    """Ask; the check's result is all that comes of it."""
    return dg.RunRequest()


def _request(day: dt.date, config: dg.RunConfig | None = None) -> dg.RunRequest | dg.SkipReason:
    key = day.isoformat()
    if not DAILY.has_partition_key(key):
        return dg.SkipReason(f"{key} is outside of the day partitions")
    return dg.RunRequest(partition_key=key, run_config=config or {}, tags={"landing/days": key})
