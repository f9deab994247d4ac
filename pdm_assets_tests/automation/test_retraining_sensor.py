"""Ticks of the retraining sensor on tables made by hand, without Spark."""

import dataclasses
import datetime as dt
import importlib

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pdm_assets.automation import retraining_sensor
from pdm_assets.definitions import defs
from pdm_assets.resources.lake import Lake, LakeError
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.features import FEATURE_DRIFT, REALISED_PERFORMANCE, REGISTRY
from pdm_assets_tests.builders import day, utc

DAY = dt.timedelta(days=1)
TODAY = day("2015-06-20")
module = importlib.import_module("pdm_assets.automation.retraining_sensor")  # its package gives the name to the sensor


class Plant:
    """A lake with a model of 1 June, and the sensor's state, tick by tick."""

    def __init__(self, root):
        spark = SparkEngine(data=str(root))
        self.lake, self.cursor = Lake(spark=spark, root=str(root / "lake")), None
        self.store = ModelStore(lake=self.lake, root=str(root / "models"), horizon_hours=48)
        self.instance = dg.DagsterInstance.ephemeral()
        at = utc("2015-06-01 00:00")
        model = {"model_version": ["june"], "model_type": ["random_forest"], "horizon_hours": [48], "cutoff_at": [at]}
        write_deltalake(self.lake.location(REGISTRY), pa.table({**model, "trained_at": [at]}))

    def monitored(self, table, name, flag, last, flagged):
        """Five days up to the last, the latest of them flagged."""
        days = [last - n * DAY for n in range(5)]
        rows = {name: ["comp1"] * 5, flag: [n < flagged for n in range(5)], "date": days}
        write_deltalake(self.lake.location(table), pa.table(rows), partition_by=["date"], mode="overwrite")

    def drift(self, last, flagged=0):
        self.monitored(FEATURE_DRIFT, "feature", "is_drifted", last, flagged)

    def performance(self, last, flagged=0):
        self.monitored(REALISED_PERFORMANCE, "component", "is_worse", last, flagged)

    def materialized(self, table):
        self.instance.report_runless_asset_event(dg.AssetMaterialization(table.key.split("/")))

    def tick(self):
        """The requested run, or why there is none."""
        resources = {"lake": self.lake, "model_store": self.store}
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources, repository_def=defs.get_repository_def()
        ) as context:
            found = retraining_sensor.evaluate_tick(context)
        self.cursor = found.cursor
        return found.run_requests[0] if found.run_requests else found.skip_message


@pytest.fixture
def plant(tmp_path):
    yield Plant(tmp_path)
    assert not (tmp_path / "engine").exists(), "the sensor started Spark"


def test_a_decline_up_to_yesterday_is_a_reason_though_drift_is_known_of_today(plant):
    plant.drift(TODAY)
    plant.performance(TODAY - DAY, flagged=3)
    request = plant.tick()
    assert request.tags["retraining/reason"] == "decline of comp1"
    assert (request.partition_key, request.run_key) == ("2015-06-20", "2015-06-20:june")


def test_two_bad_days_are_no_reason(plant):
    plant.drift(TODAY, flagged=2)
    plant.performance(TODAY - DAY, flagged=2)
    assert plant.tick() == "2015-06-20: no drift or decline lasts"


def test_a_catalog_is_asked_once_for_what_was_monitored_and_again_after_a_change_of_settings_or_an_error(plant, monkeypatch):
    asked = []

    def first_and_last_day(lake, table):
        asked.append(table.key)
        if len(asked) == 1:
            raise LakeError("the cluster is being started")

    monkeypatch.setattr(Lake, "first_and_last_day", first_and_last_day)
    plant.lake = Lake(spark=plant.lake.spark, root="none", catalog="main", schema_name="pdm")
    with pytest.raises(LakeError):
        plant.tick()
    for table in (FEATURE_DRIFT, REALISED_PERFORMANCE):
        plant.materialized(table)
        assert plant.tick() == "nothing is monitored yet"
        count = len(asked)
        assert plant.tick() == "nothing was monitored since the last look"
        assert len(asked) == count
    other = dataclasses.replace(module.SETTINGS, retrain_cooldown_days=3)
    monkeypatch.setattr(module, "SETTINGS", other)
    assert plant.tick() == "nothing is monitored yet"


def test_tables_that_spark_is_not_needed_for_are_asked_with_each_tick(plant):
    assert plant.tick() == "nothing is monitored yet"
    plant.drift(TODAY, flagged=3)
    assert plant.tick().tags["retraining/reason"] == "drift of comp1"
