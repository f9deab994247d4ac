"""Jobs, schedules and the landing sensor."""

from pdm_assets.automation.jobs import daily_scoring, process_days, score_range, train_model, weekly_training
from pdm_assets.automation.landing_sensor import landing_sensor

JOBS = [process_days, train_model, score_range]
SCHEDULES = [daily_scoring, weekly_training]
SENSORS = [landing_sensor]
