"""Monitoring of days: whose scores are judged, and its checks, whatever days a run takes."""

import datetime as dt
from types import SimpleNamespace

import numpy as np
import pytest

from pdm_assets.models.drift import reference_of
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.events import EventMetrics
from pdm_assets.resources.monitored import drift_by_day, realised_by_day
from pdm_assets.schemas.features import COMPONENT_RISK, FAILURE_MODEL, FEATURE_DRIFT, OBSERVATIONS, REALISED_PERFORMANCE
from pdm_assets.schemas.raw import COMPONENTS, FAILURES, MAINTENANCE
from pdm_assets_tests.builders import day, failures, frame, utc
from pdm_assets_tests.plant import Plant, check

LAST = day("2015-03-10")
VALUES = {"string": "x", "bigint": 9, "int": 30, "double": 0.5, "boolean": True}


def bad_days(table, **known):
    """Rows of the five days up to the last, all of them bad."""
    given = {**known, "worse": "event recall"}
    values = [given.get(field.name, VALUES[field.dataType.simpleString()]) for field in table.columns]
    return [(*values, LAST - dt.timedelta(days=n)) for n in range(5)]


def test_a_check_stays_red_when_days_long_past_are_monitored_again(tmp_path, engine, spark):
    plant = Plant(tmp_path, engine)
    plant.lake.ensure(FAILURE_MODEL)  # no day has a model: what runs again has no rows
    for table, known in ((FEATURE_DRIFT, {"feature": "volt_mean_24h"}), (REALISED_PERFORMANCE, {"component": "comp1"})):
        rows = spark.createDataFrame(bad_days(table, **known), table.struct)
        plant.lake.replace_days(table, rows, LAST - dt.timedelta(days=4), LAST + dt.timedelta(days=1), {})
    result = plant.run("2015-01-15", tables="feature_drift realised_performance")
    assert result.success
    drift = check(result, "monitoring/feature_drift", "no_lasting_drift")
    holds = check(result, "monitoring/realised_performance", "performance_holds")
    assert not drift.passed
    assert not holds.passed
    assert "volt_mean_24h (PSI 0.50" in drift.description
    assert "comp1: event recall" in holds.description
    assert {its.metadata["day"].value for its in (drift, holds)} == {LAST.isoformat()}


TEST_WINDOW = EventMetrics(
    failures=50,
    caught=49,
    event_recall=0.98,
    lead_median_hours=40.0,
    lead_p10_hours=20.0,
    lead_24h_share=0.9,
    true_episodes=50,
    false_episodes=0,
    alarm_precision=1.0,
    false_alarms_per_machine_month=0.0,
    cost=0.0,
)


@pytest.mark.parametrize(
    ("first_of_new", "worse"),
    [
        # comp1 of 20 machines fails on the 20th, warned of, and of other 20 on the 28th, not warned of
        ("2015-01-25", "event recall 0 of 20, 0.98 in the test window"),  # the new model has seen the second alone
        # its calibration error, 0.0455, is just allowed
        ("2015-01-01", "event recall 20 of 40, 0.98 in the test window"),
        ("2015-01-29", None),  # its first scores are too late for either
        ("2015-02-01", None),  # it has scored nothing yet
    ],
)
def test_the_model_in_force_answers_for_its_own_scores_only(tmp_path, engine, spark, first_of_new, worse):
    lake = Plant(tmp_path, engine).lake
    first, end = day("2015-01-01"), day("2015-01-31")
    scores, fails = [], [(m, "2015-01-20 12:00" if m < 20 else "2015-01-28 12:00", "comp1") for m in range(40)]
    for at in (dt.datetime.combine(first + dt.timedelta(days=n), dt.time(6), dt.UTC) for n in range(30)):
        version = "new" if at.date() >= day(first_of_new) else "old"
        for machine, component in ((m, c) for m in range(40) for c in COMPONENTS):
            is_alert = component == "comp1" and machine < 20 and at.date() == day("2015-01-19")
            probability = 0.9 if is_alert else 0.01
            scores.append((machine, at, component, probability, 0.5, is_alert, version, utc("2015-02-01 00:00"), 1, at.date()))
    lake.replace_days(COMPONENT_RISK, frame(spark, COMPONENT_RISK, scores), first, end, {})
    lake.replace_days(FAILURES, failures(spark, fails), first, end, {})
    lake.ensure(MAINTENANCE)
    report = SimpleNamespace(observed=TEST_WINDOW)
    card = SimpleNamespace(version="new", events=dict.fromkeys((*COMPONENTS, POOLED), report))

    ((of_day, found),) = realised_by_day(lake, {day("2015-01-30"): card})

    assert of_day == day("2015-01-30")
    comp1 = next(one for one in found if one.component == "comp1" and one.window_days == 30)
    assert (comp1.events.event_recall, comp1.worse) == (0.5, worse)
    others = [one for one in found if one.component not in ("comp1", POOLED)]
    assert {(one.events.failures, one.worse) for one in others} == {(0, None)}


def test_a_new_models_probabilities_are_compared_with_its_own_reference_only(tmp_path, engine, spark):
    """What the model before it gave is distributed otherwise: taken along, each promotion would look like drift."""
    lake = Plant(tmp_path, engine).lake
    first, end = day("2015-01-01"), day("2015-01-08")
    probabilities = {"old": [0.4, 0.5, 0.6, 0.7], "new": [0.01, 0.02, 0.03, 0.04]}
    scores = [
        (machine, at, "comp1", probabilities[version][machine % 4], 0.5, False, version, utc("2015-02-01 00:00"), 1, at.date())
        for at in (dt.datetime.combine(first + dt.timedelta(days=n), dt.time(6), dt.UTC) for n in range(7))
        for version in ("new" if at.date() >= day("2015-01-06") else "old",)
        for machine in range(40)
    ]
    lake.replace_days(COMPONENT_RISK, frame(spark, COMPONENT_RISK, scores), first, end, {})
    lake.ensure(OBSERVATIONS)
    reference = {"comp1": reference_of(np.array(probabilities["new"]))}
    new, old = SimpleNamespace(version="new", references=reference), SimpleNamespace(version="old", references=reference)

    ((name, observations, psi, _, _, _, is_drifted),) = dict(drift_by_day(lake, {day("2015-01-07"): new}))[day("2015-01-07")]
    assert (name, observations, is_drifted) == ("comp1", 80, False)
    assert psi < 0.01
    # were the old model held against the new one's reference, it would have moved
    ((_, observations, _, _, _, _, is_drifted),) = dict(drift_by_day(lake, {day("2015-01-05"): old}))[day("2015-01-05")]
    assert (observations, is_drifted) == (200, True)
