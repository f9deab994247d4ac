"""A window's report, and a crew of limited visits: small plants worked by hand."""

import datetime as dt

import numpy as np
import pytest

from pdm_assets.models.evaluation import POOLED, Capacity, History, Outcomes, at_capacity, report, said_and_came_true
from pdm_assets.models.events import HOUR, Costs, Moments, Rules, are_decided, hours_ahead
from pdm_assets.models.rules import RULE_FEATURES, Healthy
from pdm_assets.models.windows import Window

RULES = Rules(horizon_hours=48, least_lead_hours=6, cadence_hours=12)
FIVE_DAYS = Window(dt.date(1970, 1, 1), dt.date(1970, 1, 6))


def moments(*pairs):
    """(machine, hour) each."""
    return Moments(np.array([m for m, _ in pairs], np.int64), np.array([h * HOUR for _, h in pairs], np.int64))


def visited(probability, failures, *, without=(), visits=1):
    """Machines 1 and 2, observed at 06:00 and 18:00 of five days; `probability` by (machine, hour), else 0.1 and 0.2."""
    pairs = [(m, h) for m in (1, 2) for h in range(6, 120, 12) if (m, h) not in without]
    failed, observations = moments(*failures), moments(*pairs)
    said = np.array([probability.get(pair, pair[0] / 10) for pair in pairs])
    fails = hours_ahead(observations, failed) <= 48
    outcomes = {"comp1": Outcomes(said, fails, observations, np.full(len(fails), True))}
    return at_capacity(outcomes, {"comp1": History(failed, failed)}, visits, window=FIVE_DAYS, rules=RULES)


# Machine 1 fails at noon of the fourth day (84), machine 2 at noon of the fifth (108). One visit a day, each after 18:00.
FAILURES = [(1, 84), (2, 108)]


def test_whom_to_visit_is_decided_by_the_last_observation_of_the_day_and_so_is_whether_it_was_right():
    # machine 2 but on the third day: 18 wrong (90 h ahead), 42 wrong (66), machine 1 at 66 right (18), 90 right (18),
    # 114 wrong: it failed that noon. That machine 1 was the greatest on the fourth morning is past by the evening.
    found = visited({(1, 66): 0.8, (1, 78): 0.9}, FAILURES)
    assert found == Capacity(1, 2 / 5, 1.0)


def test_a_visit_that_comes_too_late_for_a_failure_has_not_caught_it():
    # machine 1 is visited on the fourth evening only, which is after its failure; machine 2 is then left out at 90
    found = visited({(1, 90): 0.9}, FAILURES)
    assert found == Capacity(1, 1 / 5, 1 / 2)


def test_a_machine_without_a_score_in_the_evening_is_judged_by_its_morning():
    assert visited({(1, 54): 0.8}, FAILURES) == Capacity(1, 2 / 5, 1 / 2)
    assert visited({(1, 54): 0.8}, FAILURES, without=[(1, 66)]) == Capacity(1, 2 / 5, 1.0)


def test_a_crew_for_all_visits_all():
    # of ten visits those within 48 h of a failure: machine 1 at 42 and 66, machine 2 at 66 and 90
    assert visited({}, FAILURES, visits=2) == Capacity(2, 4 / 10, 1.0)


def test_a_visit_to_what_was_replaced_says_nothing_of_precision():
    pairs = [(1, h) for h in range(6, 120, 12)]
    observations, failed, closed = moments(*pairs), moments((1, 84)), moments((1, 84), (1, 20))
    decided = are_decided(observations, failed, closed, 48)
    outcomes = {"comp1": Outcomes(np.full(10, 0.9), hours_ahead(observations, failed) <= 48, observations, decided)}
    # visited at 18, 42, 66, 90 and 114: at 18 it was replaced two hours later, at 42 and 66 it failed, then not
    found = at_capacity(outcomes, {"comp1": History(failed, closed)}, 1, window=FIVE_DAYS, rules=RULES)
    assert found.precision == 2 / 4


def test_a_plant_without_failures_has_no_recall():
    assert visited({}, []) == Capacity(1, 0.0, None)


@pytest.mark.parametrize("failures", [[], FAILURES])
def test_a_window_without_scores_has_no_precision(failures):
    nothing = [(m, h) for m in (1, 2) for h in range(6, 120, 12)]
    assert visited({}, failures, without=nothing).precision is None


GRID = tuple((m, h) for m in (1, 2) for h in range(6, 240, 12))
ALERTS = ((1, 78), (1, 90), (2, 150))


@pytest.fixture(scope="module")
def found():
    """Two machines, ten days, observed at 06:00 and 18:00. comp1 of machine 1 fails at hour 102, that of machine 2 at 210.

    Machine 1 alerts at 78 and 90, machine 2 at 150 only. comp2 neither fails nor alerts. comp1 of machine 1 was replaced 20
    days before the window. Failures are judged in eight of the ten days.
    """
    observations = moments(*GRID)
    failed, nothing = moments((1, 102), (2, 210)), moments()
    closed = moments((1, 102), (2, 210), (1, -480))

    def outcome(alerts, failures):
        probability = np.array([0.9 if pair in alerts else 0.1 for pair in GRID])
        fails = hours_ahead(observations, failures) <= 48
        return Outcomes(probability, fails, observations, are_decided(observations, failures, failures, 48))

    signs = {name: np.zeros(len(GRID)) for name in RULE_FEATURES}
    signs["error1_count_24h"] = np.array([float(pair == (1, 90)) for pair in GRID])
    signs["volt_mean_12h"] = np.array([190.0 if pair in ((1, 90), (2, 150)) else 170.0 for pair in GRID])
    return report(
        {"comp1": outcome(ALERTS, failed), "comp2": outcome((), nothing)},
        {"comp1": 0.5, "comp2": 0.5},
        {"comp1": History(failed, closed), "comp2": History(nothing, nothing)},
        signs,
        {"volt": Healthy(170.0, 4.0)},
        window=Window(dt.date(1970, 1, 1), dt.date(1970, 1, 11)),
        rules=RULES,
        costs=Costs(missed_failure=100.0, false_visit=5.0, planned_repair=20.0),
    )


def test_what_the_crew_had_of_the_model(found):
    ours = found["comp1"].observed
    assert (ours.failures, ours.caught, ours.true_episodes, ours.false_episodes) == (2, 1, 1, 1)
    assert ours.cost == 100 + 20 + 0.8 * 5
    assert found["comp1"].leads_hours == (24.0,)
    # machine 1 on the fourth day, machine 2 on the seventh
    assert found["comp1"].alarmed_machines_per_day == 2 / 10
    assert found[POOLED].observed == ours


def test_a_file_a_day_leaves_six_hours_of_a_day_ahead(found):
    leads = {landing: its.lead_median_hours for landing, its in found["comp1"].delivered.items()}
    assert leads == {"hourly files": 23.0, "six-hourly files": 18.0, "daily files": 6.0}


def test_the_rules_stand_beside_it(found):
    costs = {rule: its.cost for rule, its in found["comp1"].rules.items()}
    assert costs == {"own error": 120.0, "own channel shifted": 124.0, "own error and channel": 120.0}


def test_never_acting_and_the_calendar_are_charged_for_the_same_days(found):
    ours = found["comp1"]
    assert ours.never_cost == 200.0
    # 24 days old, and of unknown age: every 15 days prevents both, in 16 machine-days
    assert (ours.calendar_days, ours.calendar_cost) == ({"comp1": 15}, pytest.approx(16 / 15 * 20))
    assert ours.saving == pytest.approx(1 - 124 / (16 / 15 * 20))
    assert found["comp2"].calendar_cost == pytest.approx(16 / 180 * 20)
    assert found[POOLED].calendar_cost == pytest.approx(16 / 15 * 20 + 16 / 180 * 20)
    assert found["comp2"].saving is None  # waiting costs nothing where nothing fails


def test_recall_by_lead_says_where_the_signal_ends(found):
    # 12 and 24 h before either failure: two of four alert; 36 and 48 h: none of four; of 14 that are 60 to 168 h before, one
    assert found["comp1"].recall_by_lead == {"0-6 h": None, "6-24 h": 0.5, "24-48 h": 0.0, "48-168 h": 1 / 14}


def test_alerts_are_held_to_what_they_say_where_there_are_enough():
    probability, fails = np.full(60, 0.8), np.arange(60) < 45
    is_alert = np.arange(60) >= 10  # 50, of which 35 fail
    assert said_and_came_true([(probability, fails, is_alert)]) == (pytest.approx(0.8), 0.7)
    assert said_and_came_true([(probability, fails, np.arange(60) >= 11)]) == (None, None)
