import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.models.calibration import Platt, cheapest_threshold, cost_curve, fair_threshold, fit_platt
from pdm_assets.models.events import HOUR, Costs, Moments, Rules
from pdm_assets.models.metrics import calibration_error

COSTS = Costs(missed_failure=100.0, false_visit=10.0, planned_repair=20.0)


def logit(p):
    return np.log(p / (1 - p))


def fleet(slope, intercept, size=200_000):
    """Scores, and outcomes as probable as Platt(slope, intercept) says."""
    rng = np.random.default_rng(5)
    score = rng.beta(0.5, 4, size)
    return score, rng.random(size) < Platt(slope, intercept).of(score)


def test_the_fit_finds_how_outcomes_were_drawn():
    found = fit_platt(*fleet(1.4, 0.6))
    assert (found.slope, found.intercept) == pytest.approx((1.4, 0.6), abs=0.05)


def test_calibrated_probabilities_come_true():
    score, fails = fleet(0.5, -1.0)
    assert calibration_error(score, fails) > 0.04
    assert calibration_error(fit_platt(score, fails).of(score), fails) < 0.003


def test_scores_that_separate_perfectly_keep_finite_probabilities():
    found = fit_platt(np.array([0.0, 0.0, 1.0, 1.0]), np.array([False, False, True, True]))
    # Platt's targets for two of each: 1/4 and 3/4
    assert found.of(np.array([0.0, 1.0])) == pytest.approx([0.25, 0.75], abs=1e-6)


@pytest.mark.parametrize("fails", [[False] * 4, [True] * 4, [True, True, False, False]])
def test_outcomes_that_can_not_tell_leave_scores_as_they_are(fails):
    assert fit_platt(np.array([0.1, 0.2, 0.8, 0.9]), np.array(fails)) == Platt()


@given(st.lists(st.floats(0, 1), min_size=2, unique=True).map(sorted))
def test_calibration_never_turns_ranks(scores):
    found = Platt(1.3, -0.4).of(np.array(scores))
    assert np.all(np.diff(found) >= 0)
    assert np.all((found >= 0) & (found <= 1))


def test_the_fair_threshold_is_where_a_visit_costs_as_much_as_it_saves():
    p = fair_threshold(COSTS)
    assert p == 10 / (10 + 100 - 20)
    visit, wait = p * COSTS.planned_repair + (1 - p) * COSTS.false_visit, p * COSTS.missed_failure
    assert visit == pytest.approx(wait)


def curve(probability, failures):
    """Of machines observed once each, at hour 54 of a window of ten days; failures at hour 66 of the machines named."""
    machine, at = np.arange(len(probability)), np.full(len(probability), 54 * HOUR)
    failed = Moments(np.array(failures, np.int64), np.full(len(failures), 66 * HOUR))
    return cost_curve(
        np.array(probability),
        Moments(machine, at),
        failed,
        failed,
        start=0,
        end=240 * HOUR,
        rules=Rules(horizon_hours=48),
        costs=COSTS,
    )


def threshold(probability, failures):
    return cheapest_threshold(curve(probability, failures), COSTS)


def test_a_cost_curve_says_what_alerts_from_each_threshold_on_would_have_cost():
    # machine 1 fails. From below 0.2 on: two false visits and a planned repair; then one; then none; at last a missed failure.
    # failures are judged in eight of the ten days, so a false visit is charged as 8
    found = curve([0.2, 0.8, 0.4], [1])
    assert found.thresholds == pytest.approx([fair_threshold(COSTS), 0.3, 0.6, 0.9])
    assert found.costs.tolist() == [2 * 8 + 20, 8 + 20, 20, 100]


def test_the_threshold_lies_where_alerts_cost_least():
    # machines 3 and 4 fail: alerting from 0.6 on costs 2 x 20, from 0.4 on one false visit more, from 0.8 on a failure
    assert 0.5 <= threshold([0.1, 0.2, 0.4, 0.6, 0.8], [3, 4]) <= 0.6


def test_a_failure_is_worth_nine_false_visits_and_not_eleven():
    few = [0.5] * 9 + [0.3]  # catching the last one costs 9 x 8 + 20 against 100
    assert threshold(few, [9]) < 0.3
    many = [0.5] * 11 + [0.3]
    assert threshold(many, [11]) > 0.5


def test_where_any_of_many_thresholds_would_do_it_is_the_one_nearest_to_the_fair_one():
    assert threshold([0.01, 0.9], [1]) == pytest.approx(fair_threshold(COSTS))


def test_without_a_failure_to_choose_by_it_is_the_fair_one():
    assert threshold([0.1, 0.9], []) == fair_threshold(COSTS)
    assert threshold([], []) == fair_threshold(COSTS)
