"""Jobs, schedules and sensors."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from pdm_assets.automation.jobs import (
    backtest,
    daily_scoring,
    monthly_backtest,
    process_days,
    score_range,
    train_model,
    weekly_training,
)
from pdm_assets.automation.landing_sensor import landing_sensor
from pdm_assets.automation.retraining_sensor import retraining_sensor

JOBS: list[dg.JobDefinition | UnresolvedAssetJobDefinition] = [process_days, train_model, score_range, backtest]
SCHEDULES = [daily_scoring, weekly_training, monthly_backtest]
SENSORS = [landing_sensor, retraining_sensor]
