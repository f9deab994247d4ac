from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.models.metrics import (
    Metrics,
    average_precision,
    brier_skill,
    calibration_error,
    calibration_line,
    evaluate,
    logit,
    precision_recall,
    roc_auc,
)


def arrays(probability, fails):
    return np.array(probability, dtype=float), np.array(fails, dtype=bool)


# ranked: fails, healthy, fails, healthy
RANKED = arrays([0.1, 0.9, 0.4, 0.6], [0, 1, 1, 0])
OUTCOMES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), st.booleans()), min_size=1).map(
    lambda rows: arrays(*zip(*rows, strict=True))
)


def test_precision_recall_by_hand():
    curve = precision_recall(*RANKED)
    assert curve.probability.tolist() == [0.9, 0.6, 0.4, 0.1]
    assert curve.precision.tolist() == [1, 1 / 2, 2 / 3, 2 / 4]
    assert curve.recall.tolist() == [1 / 2, 1 / 2, 1, 1]


def test_equal_probabilities_are_one_point():
    curve = precision_recall(*arrays([0.5, 0.5, 0.2], [1, 0, 1]))
    assert curve.probability.tolist() == [0.5, 0.2]
    assert curve.precision.tolist() == [1 / 2, 2 / 3]


def test_a_curve_without_a_failing_observation_is_refused():
    with pytest.raises(ValueError, match="no failing observation"):
        precision_recall(*arrays([0.5], [0]))


def test_average_precision_by_hand():
    assert average_precision(*RANKED) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)  # the last bit differs


def test_average_precision_of_a_constant_is_the_failure_rate():
    assert average_precision(*arrays([0.3] * 4, [1, 0, 0, 0])) == 0.25


def test_roc_auc_by_hand():
    assert roc_auc(*RANKED) == 3 / 4  # of four pairs only (0.4, 0.6) stands the wrong way round


def test_roc_auc_counts_a_tie_as_half():
    assert roc_auc(*arrays([0.5, 0.5, 0.1], [1, 0, 0])) == 3 / 4


@given(OUTCOMES)
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(outcomes):
    probability, fails = outcomes
    pairs = [(p > q) + (p == q) / 2 for p in probability[fails] for q in probability[~fails]]
    if not pairs:
        assert roc_auc(probability, fails) is None
    else:
        assert roc_auc(probability, fails) == pytest.approx(sum(pairs) / len(pairs))  # sums in another order


def test_evaluation_by_hand():
    probability, fails = RANKED
    assert evaluate(probability, fails, probability >= 0.5) == Metrics(
        rows=4,
        positives=2,
        average_precision=pytest.approx(5 / 6),
        roc_auc=0.75,
        brier=pytest.approx((0.01 + 0.01 + 0.36 + 0.36) / 4),
        brier_skill=pytest.approx(1 - (0.74 / 4) / 0.25),
        # a bin each: 0.1 of one that is healthy, 0.4 of one that fails, 0.6 of one that is healthy, 0.9 of one that fails
        calibration_error=pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4),
        calibration_slope=ANY,  # see below
        calibration_intercept=ANY,
        alerts_said=0.75,
        lift=pytest.approx(5 / 6 / 0.5),
        observation_precision=0.5,
        observation_recall=0.5,
        observation_f1=0.5,
        true_alerts=1,
        false_alerts=1,
        missed=1,
        true_quiet=1,
    )


def test_what_the_data_cannot_tell_is_none():
    quiet = evaluate(*arrays([0.2, 0.3], [0, 0]), np.array([False, False]))
    assert (quiet.average_precision, quiet.roc_auc) == (None, None)
    assert (quiet.observation_precision, quiet.observation_recall, quiet.observation_f1) == (None, None, None)
    empty = evaluate(*arrays([], []), np.array([], dtype=bool))
    assert (empty.rows, empty.brier, empty.calibration_error) == (0, None, None)


def test_probabilities_that_come_true_have_no_calibration_error():
    probability, fails = np.repeat([0.1, 0.5], 100), np.tile([True] + [False] * 9, 20)
    fails[100:] = np.tile([True, False], 50)
    assert calibration_error(probability, fails) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(probability / 2, fails) == pytest.approx((0.05 + 0.25) / 2)


@given(OUTCOMES)
def test_calibration_error_is_as_defined(outcomes):
    probability, fails = outcomes
    order = sorted(range(len(fails)), key=lambda n: probability[n])
    rate = {p: fails[probability == p].mean() for p in probability}
    bins = [[order[n] for n in part] for part in np.array_split(np.arange(len(order)), min(10, len(order)))]
    expected = sum(abs(sum(rate[probability[n]] - probability[n] for n in b)) for b in bins) / len(order)
    assert calibration_error(probability, fails) == pytest.approx(expected, abs=1e-12)


def test_equal_probabilities_have_no_calibration_error_whatever_the_order_of_rows():
    # one in fifty fails, and all say so; of 1,000 rows the last hundred would be a bin with all failures
    fails = np.arange(1_000) >= 980
    assert calibration_error(np.full(1_000, 0.02), fails) == pytest.approx(0.0, abs=1e-12)


def test_probabilities_that_are_too_sure_have_a_slope_below_one():
    # as in the test above, many times over so that Platt's targets are all but 0 and 1: both rates come true
    probability, fails = np.repeat([0.1, 0.5], 10_000), np.tile([True] + [False] * 9, 2_000)
    fails[10_000:] = np.tile([True, False], 5_000)
    assert calibration_line(probability, fails) == pytest.approx((1.0, 0.0), abs=0.005)
    too_sure = 1 / (1 + np.exp(-2 * logit(probability)))
    assert calibration_line(too_sure, fails) == pytest.approx((0.5, 0.0), abs=0.005)
    too_high = 1 / (1 + np.exp(-(logit(probability) + 1)))
    assert calibration_line(too_high, fails) == pytest.approx((1.0, -1.0), abs=0.005)
    assert calibration_line(np.full(20_000, 0.3), fails) is None
    assert calibration_line(probability, np.zeros(20_000, bool)) is None


def test_several_components_pooled_are_compared_with_the_rate_of_each():
    # one fails in half of its observations, one in a tenth: to say so is no skill, though one rate for both would be worse
    fails = np.array([True, False] * 5 + [True] + [False] * 9)
    rate = np.repeat([0.5, 0.1], 10)
    assert brier_skill(rate, fails, rate) == pytest.approx(0.0)
    assert brier_skill(rate, fails) == pytest.approx(1 - (10 * 0.25 + 10 * 0.09) / (20 * 0.3 * 0.7))


def test_components_of_which_everything_or_nothing_fails_tell_nothing_of_skill():
    # a plant of one machine: on the day before its failure one component fails at each observation, the other at none
    fails, rate = np.array([True, True, False, False]), np.array([1.0, 1.0, 0.0, 0.0])
    assert brier_skill(np.full(4, 0.5), fails, rate) is None


def test_the_failure_rate_itself_has_no_skill():
    fails = np.array([True, False, False, False])
    assert brier_skill(np.full(4, 0.25), fails) == pytest.approx(0.0)
    assert brier_skill(fails.astype(float), fails) == 1.0
