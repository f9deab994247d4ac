"""That yesterday was not scored is said every morning, whatever ran: here nothing ever runs."""

import datetime as dt

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pdm_assets.automation import daily_watch
from pdm_assets.automation.jobs import watch_scores
from pdm_assets.definitions import defs
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.features import COMPONENT_RISK, FAILURE_MODEL

DAY = dt.timedelta(days=1)


@pytest.fixture
def lake(tmp_path):
    return Lake(spark=SparkEngine(data=str(tmp_path)), root=str(tmp_path / "lake"))


def scored(lake, *days):
    """A score of each of the days, in the only column that is asked for."""
    write_deltalake(
        lake.location(COMPONENT_RISK), pa.table({"machine_id": [1] * len(days), "date": days}), partition_by=["date"]
    )


def morning(lake):
    """What the check says when the schedule ticks, by the job that it asks for."""
    repository = defs.get_repository_def()
    at = dt.datetime(2026, 11, 23, 6, tzinfo=dt.UTC)
    tick = daily_watch.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository))
    assert len(tick.run_requests) == 1
    spark = {"lake": lake, "spark": lake.spark}
    watched = dg.Definitions.merge(
        dg.Definitions(asset_checks=defs.asset_checks, assets=defs.assets, jobs=[watch_scores]),
        dg.Definitions(resources={**defs.resources, **spark}, executor=dg.in_process_executor),
    )
    result = watched.resolve_job_def(daily_watch.job_name).execute_in_process()
    assert not result.get_asset_materialization_events()
    (found,) = result.get_asset_check_evaluations()
    assert found.check_name == "yesterday_is_scored"
    return found


def test_it_is_on_without_anyone_turning_it_on():
    assert daily_watch.default_status == dg.DefaultScheduleStatus.RUNNING


def test_a_plant_in_which_nothing_ever_ran_is_told_of(lake):
    found = morning(lake)
    assert not found.passed
    assert "has its telemetry landed, was it taken? Is the landing sensor on" in found.description


def test_scores_that_end_the_day_before_yesterday_are_told_of_though_older_days_are_whole(lake):
    today = dt.datetime.now(dt.UTC).date()
    scored(lake, today - 3 * DAY, today - 2 * DAY)
    found = morning(lake)
    assert not found.passed
    assert f"no scores of {today - DAY}" in found.description


@pytest.mark.parametrize(
    ("status", "days_ago", "passed"), [("too little history", 1, True), ("refused", 1, False), ("too little history", 2, False)]
)
def test_a_day_with_too_little_history_for_a_model_is_fine_and_one_that_nothing_is_said_of_is_not(
    lake, status, days_ago, passed
):
    of = dt.datetime.now(dt.UTC).date() - days_ago * DAY
    said = {"status": [status], "detail": ["A first model works from tomorrow on"], "date": [of]}
    write_deltalake(lake.location(FAILURE_MODEL), pa.table(said), partition_by=["date"])
    found = morning(lake)
    assert found.passed == passed
    note = f"no model yet for {of}: A first model works from tomorrow on"
    assert not passed or found.metadata["note"].value == note


def test_a_scored_day_is_fine_and_no_spark_is_started_to_see_it(lake, tmp_path):
    today = dt.datetime.now(dt.UTC).date()
    scored(lake, today - DAY, today)
    assert morning(lake).passed
    assert not (tmp_path / "engine").exists()
