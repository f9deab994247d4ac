"""Runbooks of docs/operations.md, gone through on a plant that really runs: what an operator sees, does, and sees then."""

import datetime as dt

import dagster as dg
import pytest

from pdm_assets.demo import make_home
from pdm_assets.health.look import Level
from pdm_assets.health.rules import look_at
from pdm_assets.settings import Settings
from pdm_assets_tests.plant import Plant, failure

NOW = dt.datetime.now(dt.UTC)
BEFORE, TODAY = str(NOW.date() - dt.timedelta(days=1)), str(NOW.date())


@pytest.fixture
def plant(tmp_path, engine, spark):
    plant = Plant(tmp_path, engine, first_day=BEFORE)
    with dg.DagsterInstance.from_config(str(make_home(tmp_path))) as plant.instance:
        yield plant


def seen(plant, *rules):
    root = plant.landing.parent
    settings = Settings(data=root, first_day=dt.date.fromisoformat(BEFORE))
    said = {each.rule: each.said for each in look_at(settings, root / "dagster", dt.datetime.now(dt.UTC))}
    return [said[rule] for rule in rules]


def levels(plant, *rules):
    return [said.level for said in seen(plant, *rules)]


def test_a_run_that_failed_for_want_of_a_machine_list_is_over_once_the_list_landed_and_it_ran_again(plant):
    plant.land_telemetry(BEFORE)
    assert "put machines.csv" in failure(plant.run(BEFORE, tables="machines telemetry"))
    (failed,) = seen(plant, "failed_runs")
    assert failed.level == Level.CRITICAL
    assert f" of {BEFORE})" in failed.what
    plant.land_fleet(1, 2)
    assert plant.run(BEFORE, tables="machines telemetry").success
    assert levels(plant, "failed_runs", "landed", "checks") == [Level.OK] * 3


def test_a_refused_file_is_over_once_it_landed_corrected_and_the_refused_one_is_deleted(plant):
    plant.land_fleet(1)
    plant.land("telemetry", "export.csv", f"{BEFORE} 00:00:00,1,170", header="datetime,machineID,voltage")
    assert plant.run(BEFORE, tables="machines telemetry").success
    files, checks = seen(plant, "files", "checks")
    assert (files.level, files.what) == (Level.CRITICAL, "1 files were refused: telemetry/export.csv")
    assert checks.level == Level.CRITICAL
    assert "every_landed_file_was_taken (export.csv" in checks.what
    plant.land_telemetry(BEFORE, machines=(1,), name="export-2.csv")
    (plant.landing / "telemetry" / "export.csv").unlink()
    assert levels(plant, "files") == [Level.OK]
    assert plant.run(BEFORE, tables="machines telemetry").success
    assert levels(plant, "files", "checks") == [Level.OK] * 2


def test_rows_in_quarantine_are_over_with_the_next_day_that_is_clean(plant):
    plant.land_fleet(1)
    plant.land("errors", "errors.csv", f"{BEFORE} 05:00:00,1,error1", f"{BEFORE} 05:00:00,1,error9")
    assert plant.run(BEFORE, tables="machines errors").success
    quarantine, checks = seen(plant, "quarantine", "checks")
    assert (quarantine.level, quarantine.what) == (Level.WARN, f"50% of errors on {BEFORE}")
    assert checks.level == Level.WARN
    assert "few_rows_are_quarantined" in checks.what
    plant.land("errors", "errors-2.csv", f"{TODAY} 00:00:00,1,error1")
    assert plant.run(TODAY, tables="machines errors").success
    assert levels(plant, "quarantine", "checks") == [Level.OK] * 2
