"""A fleet that changes half-way: monitoring sees it, the retraining sensor asks for a challenger, the gate lets it in."""

import datetime as dt
import importlib

import dagster as dg
import pytest

from pdm_assets.assets import training
from pdm_assets.automation.retraining_sensor import retraining_sensor
from pdm_assets.definitions import defs
from pdm_assets.resources import monitored, open_alarms
from pdm_assets.resources.landing import land
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import Settings
from pdm_assets.simulator.writer import simulate
from pdm_assets_tests.plant import Plant, check, metadata

pytestmark = pytest.mark.slow

FIRST = dt.date(2015, 1, 1)
SETTINGS = Settings(
    first_day=FIRST, train_days=60, calibration_days=20, test_days=20, retrain_every_days=365, model_type="decision_tree"
)
MACHINES = 80


def on(number):
    """The day of a number, 0 being the first of the telemetry."""
    return FIRST + dt.timedelta(days=number)


FIRST_MODEL, SHIFT, SOON_AFTER, LAST = on(108), on(120), on(130), on(205)


@pytest.fixture(scope="module")
def plant(tmp_path_factory, engine, spark):  # spark: the session stays open from run to run
    """The fleet's days up to labels, its first model, and all days since scored and monitored."""
    root = tmp_path_factory.mktemp("shifting")
    end = dt.datetime.combine(LAST + dt.timedelta(days=1), dt.time(), dt.UTC)
    simulate(root / "fleet", machines=MACHINES, days=(LAST - FIRST).days + 1, end=end, seed=5, shift=SHIFT)
    plant = Plant(root, engine)
    land(root / "fleet", plant.landing)
    # by its path: the package has the sensor itself under that name
    sensor_module = importlib.import_module("pdm_assets.automation.retraining_sensor")
    with pytest.MonkeyPatch.context() as patch:
        for module in (training, monitored, open_alarms, sensor_module):
            patch.setattr(module, "SETTINGS", SETTINGS)
        assert plant.run(FIRST.isoformat(), LAST.isoformat()).success
        in_use = "failure_model component_risk realised_performance feature_drift"
        plant.result = plant.run(FIRST_MODEL.isoformat(), LAST.isoformat(), tables=in_use)
        assert plant.result.success
        yield plant


def flagged(plant, table, name, flag, day):
    rows = plant.lake.rows(TABLES[table], day, day + dt.timedelta(days=1))
    return {row[name] for row in rows if row[flag]}


def asked(plant, last):
    """What the sensor says with the monitored days up to one."""
    for table in ("monitoring/feature_drift", "monitoring/realised_performance"):
        later = plant.lake.read(TABLES[table], None, last + dt.timedelta(days=1))
        plant.lake.replace_days(TABLES[table], later, FIRST, LAST + dt.timedelta(days=1), {})
    resources = {"lake": plant.lake, "model_store": plant.store}
    with dg.build_sensor_context(
        instance=plant.instance, resources=resources, repository_def=defs.get_repository_def()
    ) as context:
        found = retraining_sensor.evaluate_tick(context)
    return found.run_requests[0] if found.run_requests else found.skip_message


def test_before_the_shift_nothing_is_flagged_for_long(plant):
    assert monitored.lasting_drift(plant.lake, on(119)) == []
    assert monitored.lasting_decline(plant.lake, on(119)) == []


def test_a_week_after_the_shift_the_channel_that_moved_is_named_and_no_other(plant):
    drifted = monitored.lasting_drift(plant.lake, SOON_AFTER)
    assert {name for name in drifted if "mean" in name} == {f"pressure_mean_{hours}h" for hours in (12, 24, 36)}
    assert not [name for name in drifted if name.startswith(("volt", "rotate", "vibration", "age"))]


def test_the_new_way_of_failing_shows_in_what_became_of_the_scores(plant):
    rows = plant.lake.rows(TABLES["monitoring/realised_performance"], LAST, LAST + dt.timedelta(days=1))
    found = {row["component"]: row for row in rows if row["window_days"] == 30}
    assert found["comp1"]["event_recall"] < 0.5
    assert found["comp2"]["event_recall"] > 0.8
    assert "event recall" in found["comp1"]["worse"]
    holds = check(plant.result, "monitoring/realised_performance", "performance_holds")
    assert not holds.passed
    assert "comp1: event recall" in holds.description
    shown = metadata(plant.result, "monitoring/realised_performance")[LAST.isoformat()]
    assert shown["event_recall_30d"] == found["pooled"]["event_recall"]


def test_the_sensor_asks_for_a_challenger_and_the_gate_puts_it_in_charge(plant):
    request = asked(plant, LAST)
    assert request.partition_key == LAST.isoformat()
    assert "decline of comp1" in request.tags["retraining/reason"]
    config = request.run_config
    assert plant.run(LAST.isoformat(), tables="failure_model", run_config=config).success
    _, challenger = plant.store.registered()
    decisions = {decision.version: decision for decision in plant.store.decisions()}
    assert decisions[challenger.version].is_promoted, decisions[challenger.version].reason
    assert challenger.cutoff == LAST
    assert plant.store.card(challenger.version).events["comp1"].observed.caught > 0
    # trained just now: the sensor waits, whatever is flagged
    assert "was trained 0 days before" in asked(plant, LAST)


def test_soon_after_the_shift_drift_alone_is_a_reason(plant):
    request = asked(plant, SOON_AFTER)
    assert request.tags["retraining/reason"].startswith("drift of ")
    assert asked(plant, on(119)) == f"{on(119)}: no drift or decline lasts"
