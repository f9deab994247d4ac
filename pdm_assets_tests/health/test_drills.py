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


pytestmark = pytest.mark.slow  # a plant of their own, several runs each


@pytest.fixture
def plant(tmp_path, engine, spark):
    plant = Plant(tmp_path, engine, first_day=BEFORE)
    with dg.DagsterInstance.from_config(str(make_home(tmp_path))) as plant.instance:
        yield plant


def seen(plant, *rules):
    root = plant.landing.parent
    settings = Settings(data=root, first_day=dt.date.fromisoformat(BEFORE))
    midnight = dt.datetime.combine(NOW.date() + dt.timedelta(days=1), dt.time(), dt.UTC)  # a session may go on beyond it
    now = min(dt.datetime.now(dt.UTC), midnight - dt.timedelta(seconds=1))
    said = {each.rule: each.said for each in look_at(settings, root / "dagster", now)}
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


def test_a_refused_file_and_rows_in_quarantine_are_over_with_a_corrected_file_and_a_clean_day(plant):
    plant.land_fleet(1)
    plant.land("telemetry", "export.csv", f"{BEFORE} 00:00:00,1,170", header="datetime,machineID,voltage")
    plant.land("errors", "errors.csv", f"{BEFORE} 05:00:00,1,error1", f"{BEFORE} 05:00:00,1,error9")
    assert plant.run(BEFORE, tables="machines telemetry errors").success
    files, quarantine, checks = seen(plant, "files", "quarantine", "checks")
    assert (files.level, files.what) == (Level.CRITICAL, "1 files were refused: telemetry/export.csv")
    assert (quarantine.level, quarantine.what) == (Level.WARN, f"50% of errors on {BEFORE}")
    assert checks.level == Level.CRITICAL
    assert checks.what.startswith("2 fail: error raw/telemetry: every_landed_file_was_taken (export.csv")
    assert "warn raw/errors: few_rows_are_quarantined" in checks.what

    (plant.landing / "telemetry" / "export.csv").unlink()
    assert levels(plant, "files") == [Level.OK]
    plant.land("telemetry", "corrected.csv", f"{TODAY} 00:00:00,1,170,400,100,40")
    plant.land("errors", "errors-2.csv", f"{TODAY} 00:00:00,1,error1")
    assert plant.run(TODAY, tables="machines telemetry errors").success
    assert levels(plant, "files", "quarantine", "checks") == [Level.OK] * 3
