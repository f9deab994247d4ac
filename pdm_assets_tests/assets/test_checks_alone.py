"""Checks that a user executes alone, so without a day: on tables made by hand, without Spark."""

import time

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pdm_assets.definitions import defs
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.features import COMPONENT_FAILURES, COMPONENT_RISK, FAILURE_MODEL, OBSERVATIONS, READINGS_COUNT
from pdm_assets.schemas.raw import ERRORS, FAILURES, TELEMETRY
from pdm_assets_tests.builders import day, utc

ALONE = dg.AssetSelection.checks(*[check for check in defs.asset_checks if check.check_key.name != "yesterday_is_scored"])


@pytest.fixture
def lake(tmp_path):
    yield Lake(spark=SparkEngine(data=str(tmp_path)), root=str(tmp_path / "lake"))
    assert not (tmp_path / "engine").exists(), "a check started Spark"


def table(lake, its, days, **columns):
    rows = {"machine_id": [1] * len(days), **columns, "date": [day(each) for each in days]}
    write_deltalake(lake.location(its), pa.table(rows), partition_by=["date"])
    time.sleep(0.01)  # Delta tells what is written later by milliseconds


def found(lake):
    """What each check says in a run without a partition."""
    job = dg.define_asset_job("alone", selection=ALONE)
    alone = dg.Definitions.merge(
        dg.Definitions(assets=defs.assets, asset_checks=defs.asset_checks, jobs=[job]),
        dg.Definitions(resources={**defs.resources, "spark": lake.spark, "lake": lake}, executor=dg.in_process_executor),
    )
    result = alone.resolve_job_def("alone").execute_in_process(raise_on_error=False)  # a blocking one fails its run
    return {(each.asset_key.path[-1], each.check_name): each for each in result.get_asset_check_evaluations()}


def test_of_a_plant_without_tables_they_all_say_that_there_is_nothing_yet(lake):
    checks = found(lake)
    assert len(checks) == 6
    assert all(each.passed and each.metadata for each in checks.values())


def test_they_look_at_the_last_day_that_their_table_has(lake):
    table(lake, FAILURES, ["2015-01-04"])
    days = ["2015-01-03", "2015-01-05"]
    # an outcome is known two days after its observation: these labels are kept by the day of that itself
    early = [utc("2015-01-03 06:00"), utc("2015-01-05 06:00")]
    table(lake, COMPONENT_FAILURES, days, observed_at=pa.array(early, pa.timestamp("us", "UTC")))
    table(lake, TELEMETRY, ["2015-01-03", "2015-01-04"])
    at = {"observed_at": pa.array(early, pa.timestamp("us", "UTC"))}
    table(lake, OBSERVATIONS, days, **at, **{READINGS_COUNT: [36, 36]})
    table(lake, ERRORS, ["2015-01-03"])
    table(lake, FAILURE_MODEL, days, model_version=["tree", "tree"])
    table(lake, COMPONENT_RISK, days, **at, component=["comp1", "comp1"])
    checks = found(lake)
    labels = checks["component_failures", "no_label_before_its_horizon_is_over"]
    assert not labels.passed
    said = {name: value.value for name, value in labels.metadata.items()}
    assert said == {"labels": 1, "labels_before_their_time": 1, "days": "2015-01-05 to 2015-01-06"}
    behind = checks["observations", "later_days_have_seen_this_run"]
    assert behind.description == ("computed before what they look back on changed: 2015-01-05. Materialize these days too")
    assert checks["component_failures", "later_days_have_seen_this_run"].passed
    scores = checks["component_risk", "every_observation_has_a_score"]
    assert not scores.passed
    assert scores.metadata["observations"].value == 1
    assert "materialize scores/component_risk of 2015-01-05 again" in scores.description
