"""Jobs, schedules and sensors."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from pdm_assets.automation.jobs import (
    backtest,
    daily_scoring,
    daily_watch,
    monthly_backtest,
    process_days,
    score_range,
    train_model,
    watch_scores,
    weekly_training,
)
from pdm_assets.automation.landing_sensor import landing_sensor
from pdm_assets.automation.retraining_sensor import retraining_sensor
from pdm_assets.automation.upkeep import upkeep, weekly_upkeep

JOBS: list[dg.JobDefinition | UnresolvedAssetJobDefinition] = [
    process_days,
    train_model,
    score_range,
    backtest,
    watch_scores,
    upkeep,
]
SCHEDULES = [daily_scoring, weekly_training, monthly_backtest, daily_watch, weekly_upkeep]
SENSORS = [landing_sensor, retraining_sensor]
