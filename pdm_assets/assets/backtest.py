"""The backtest as an asset: one fold a month, of one type of model or of all of them."""

import datetime as dt

import dagster as dg
from pydantic import Field
from pyspark.sql import DataFrame

from pdm_assets.assets.training import TRAINED_ON, folds_before, picture, trained_for
from pdm_assets.models.backtest import (
    Fold,
    TooLittleHistory,
    fold_days,
    fold_settings,
    folds_of,
    last_twelve_months,
    terms_of,
)
from pdm_assets.models.fitting import Fitter
from pdm_assets.partitions import DAILY, ONE_RUN, SETTINGS
from pdm_assets.resources.delta_io import span
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.features import BACKTEST, OBSERVATIONS
from pdm_assets.settings import HYPERPARAMETERS, ModelType


class BacktestConfig(dg.Config):
    """Which models are tried."""

    all_types: bool = Field(default=False, description="compare every type of model, not only PDM_MODEL_TYPE")


@dg.asset(
    key_prefix="models",
    group_name="models",
    kinds={"spark", "sparkml", "delta"},
    owners=["team:reliability"],
    code_version="1",
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    deps=[table.key.split("/") for table in TRAINED_ON],
    pool="spark",
)
def backtest(
    context: dg.AssetExecutionContext, config: BacktestConfig, lake: Lake, model_store: dg.ResourceParam[ModelStore]
) -> DataFrame:
    """One row per type of model and component, and pooled, on the first of each month; other days have none.

    A model is trained for that day on what was known before it, tested on the days before it, and thrown away: what training
    each month would have been worth, mean and worst. Not part of process_days, for a year of it takes minutes.
    """
    from pdm_assets.models.pictures import backtest_picture
    from pdm_assets.models.reports import backtest as table_of

    start, end = span(context.partition_keys)
    types: tuple[ModelType, ...] = tuple(HYPERPARAMETERS) if config.all_types else (SETTINGS.model_type,)
    cutoffs = fold_days(map(dt.date.fromisoformat, context.partition_keys))
    with lake.spark.fitter() as fitter:
        folds, said = _tried(context, lake, model_store, fitter, cutoffs, types)
    if not folds and not said:
        said = ["no fold: folds belong to the first of each month, choose a range of days with one in it"]
    if said:
        context.add_output_metadata({"skipped": "; ".join(said)})
    if folds:
        shown = last_twelve_months([*folds_before(lake, start, SETTINGS), *folds])
        summary = {
            "mean_and_worst_fold": dg.MetadataValue.md(table_of(shown).markdown),
            "over_time": picture(backtest_picture(shown)),
        }
        # of the last fold, and of the last day, which the asset's page shows: a picture a day would swell the event log
        for day in {folds[-1].cutoff, end - dt.timedelta(days=1)}:
            context.add_asset_metadata(summary, asset_key=context.asset_key, partition_key=day.isoformat())
    terms = terms_of(SETTINGS)
    rows = [
        (*(terms if column.name == "terms" else getattr(fold, column.name) for column in BACKTEST.columns), fold.cutoff)
        for fold in folds
    ]
    return lake.spark.spark_session.createDataFrame(rows, BACKTEST.struct)


def _tried(
    context: dg.AssetExecutionContext,
    lake: Lake,
    store: ModelStore,
    fitter: Fitter,
    cutoffs: list[dt.date],
    types: tuple[ModelType, ...],
) -> tuple[list[Fold], list[str]]:
    """The folds, and which could not be and why."""
    from pdm_assets.models.training import TrainingError

    observed = lake.first_and_last_day(OBSERVATIONS)
    if observed is None:
        raise dg.Failure("there are no features yet: land telemetry and materialize features/observations")
    folds: list[Fold] = []
    said: list[str] = []
    for cutoff in cutoffs:
        try:
            settings = fold_settings(cutoff, observed[0], SETTINGS)
            for kind in types:
                context.log.info(f"fold of {cutoff}: {kind} learns from {settings.train_days} days")
                version = f"backtest-{kind}-{cutoff}"
                with store.new_folder() as folder:
                    trained = trained_for(
                        lake, cutoff, kind=kind, settings=settings, version=version, fitter=fitter, folder=folder
                    )
                folds += folds_of(trained.card, trained.fit_seconds)
        except (TooLittleHistory, TrainingError) as error:
            said.append(f"{cutoff}: {error}")
            context.log.warning(f"fold of {cutoff} is left out: {error}")
    return folds, said
