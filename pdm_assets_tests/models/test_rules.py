import dataclasses

import numpy as np
import pytest

from pdm_assets.models import rules
from pdm_assets.models.events import DAY, Costs, Judged, Moments
from pdm_assets.models.rules import RULE_FEATURES, Healthy, ages_at, by_the_calendar, rule_alerts
from pdm_assets.schemas.raw import CHANNEL_NAMES, ERROR_CODES, OWN_SIGNS, OwnSigns

COSTS = Costs(missed_failure=100.0, false_visit=5.0, planned_repair=20.0)
HEALTHY = {"rotate": Healthy(level=450.0, spread=15.0)}


def features(**columns):
    length = len(next(iter(columns.values())))
    return {name: np.array(columns.get(name, [0.0] * length), float) for name in RULE_FEATURES}


def test_every_channel_and_error_of_the_public_data_tells_of_one_component():
    assert sorted(signs.channel for signs in OWN_SIGNS.values()) == sorted(CHANNEL_NAMES)
    assert sorted(e for signs in OWN_SIGNS.values() for e in signs.errors) == sorted(ERROR_CODES)


def test_errors_that_come_together_count_together_and_a_shift_counts_in_both_directions():
    found = rule_alerts(
        "comp2",
        features(
            rotate_mean_12h=[450, 404, 496, 406, 404, np.nan],
            error2_count_24h=[1, 0, 0, 1, 2, 1],
            error3_count_24h=[0, 0, 0, 1, 1, 1],
        ),
        HEALTHY,
    )
    assert found["own error"].tolist() == [False, False, False, True, True, True]
    # 3 spreads of 15 from 450: below 405 or above 495
    assert found["own channel shifted"].tolist() == [False, True, True, False, True, False]
    assert found["own error and channel"].tolist() == [False, False, False, False, True, False]


def test_a_channel_that_was_never_known_is_never_shifted():
    assert not rule_alerts("comp1", features(volt_mean_12h=[900.0]), {})["own channel shifted"].any()


@pytest.mark.parametrize(
    ("signs", "error", "shift"),
    [
        (OwnSigns(), [False, False], [False, False]),
        (OwnSigns(errors=("error1",)), [True, False], [False, False]),
        (OwnSigns(channel="rotate"), [False, False], [False, True]),
    ],
)
def test_a_rule_never_alerts_on_a_sign_that_its_component_does_not_have(monkeypatch, signs, error, shift):
    monkeypatch.setattr(rules, "OWN_SIGNS", {"comp5": signs})
    found = rule_alerts("comp5", features(rotate_mean_12h=[450, 900], error1_count_24h=[1, 0]), HEALTHY)
    assert {name: alerts.tolist() for name, alerts in found.items()} == {
        "own error": error,
        "own channel shifted": shift,
        "own error and channel": [False, False],
    }


def moments(*pairs):
    return Moments(np.array([m for m, _ in pairs], np.int64), np.array([d * DAY for _, d in pairs], np.int64))


def test_the_age_of_a_component_is_from_its_latest_closing_before():
    failures = moments((1, 50), (1, 80), (2, 9))
    assert ages_at(failures, moments((1, 10), (1, 30), (1, 50), (1, 99), (2, 10))) == [20.0, 30.0, float("inf")]


def judged(machine_days):
    nothing = np.zeros(1, np.int64)
    return Judged(np.array([1]), *[nothing] * 5, np.array([machine_days]), np.zeros(0), nothing[:0])


def test_the_calendar_has_the_interval_that_costs_least():
    # in 600 machine-days: every 30 days 20 repairs and no failure, every 90 days 6.7 repairs and two failures
    assert by_the_calendar(judged(600.0), [40.0, 40.0, 100.0], COSTS) == (90, 600 / 90 * 20 + 200)
    assert by_the_calendar(judged(60.0), [40.0, 40.0, 100.0], COSTS) == (30, 60 / 30 * 20)
    # where failures are judged in half of the window, half of the repairs is charged
    partly = dataclasses.replace(judged(600.0), judged_share=0.5)
    assert by_the_calendar(partly, [40.0, 40.0, 100.0], COSTS) == (30, 0.5 * 600 / 30 * 20)
