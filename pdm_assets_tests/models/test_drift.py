"""Drift by hand, and against a plain reading of the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.models.drift import Reference, count_by_day, is_lasting, limit_of, reference_of, stability

NAN = float("nan")


def test_a_reference_is_the_deciles_of_the_known_values_and_the_share_of_the_others():
    reference = reference_of(np.array([*range(1, 101), NAN, NAN, NAN, NAN, NAN], dtype=float))
    assert reference.edges == pytest.approx([10.9, 20.8, 30.7, 40.6, 50.5, 60.4, 70.3, 80.2, 90.1])
    assert reference.shares == pytest.approx([0.1] * 10)
    assert reference.missing == pytest.approx(5 / 105)


def test_few_distinct_values_make_few_bins():
    reference = reference_of(np.array([0.0] * 85 + [1.0] * 15))
    assert reference.edges == pytest.approx((0.0, 1.0))
    assert reference.shares == pytest.approx([0.85, 0.15, 0.0])


@pytest.mark.parametrize(("now", "bin_of"), [(6.9, 0), (7.0, 1), (7.1, 2)])
def test_a_constant_has_moved_where_it_rises_and_where_it_falls(now, bin_of):
    constant = reference_of(np.full(50, 7.0))
    assert constant.shares == (0.0, 1.0, 0.0)
    (counts,) = count_by_day(np.full(280, now), np.zeros(280, int), 1, constant)
    assert counts.tolist() == [280 * (n == bin_of) for n in range(4)]
    assert (stability(constant, counts) > limit_of(constant, 20)) == (now != 7.0)


def test_weights_count_as_so_many_rows():
    # healthy rows that were thinned out to one in four stand for four
    reference = reference_of(np.array([0.0, 1.0, NAN]), np.array([4.0, 1.0, 5.0]))
    assert sum(reference.shares[:1]) == pytest.approx(0.8)
    assert reference.missing == pytest.approx(0.5)


def test_a_feature_that_was_never_known_has_no_bins():
    assert reference_of(np.array([NAN, NAN])) == Reference((), (), 1.0)
    assert reference_of(np.array([])) == Reference((), (), 1.0)


def test_values_are_counted_by_day_on_the_left_side_of_an_edge_with_the_missing_last():
    reference = Reference((10.0, 20.0), (0.5, 0.25, 0.25), 0.0)
    values = np.array([10.0, 10.1, 20.0, 99.0, NAN, 5.0])
    found = count_by_day(values, np.array([0, 0, 0, 2, 2, 2]), 3, reference)
    assert found.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]]


def test_stability_by_hand():
    reference = Reference((0.0,), (0.5, 0.5), 0.0)
    # 90 and 10 against 50 and 50, half a value added to each: 90.5 / 101, 10.5 / 101, 50.5 / 101
    p, q = 50.5 / 101, (90.5 / 101, 10.5 / 101)
    expected = (q[0] - p) * math.log(q[0] / p) + (q[1] - p) * math.log(q[1] / p)
    assert stability(reference, np.array([90, 10, 0])) == pytest.approx(expected)
    assert stability(reference, np.array([90, 10, 500])) == pytest.approx(expected)  # missing values are told on their own
    assert stability(reference, np.array([50, 50, 0])) == 0.0
    assert stability(reference, np.array([0, 0, 3])) is None
    assert stability(Reference((), (), 1.0), np.array([0, 3])) is None


@given(st.lists(st.integers(0, 50), min_size=3, max_size=8).filter(any))
def test_stability_is_never_negative_and_finite_whatever_is_empty(counts):
    bins = len(counts)
    reference = Reference(tuple(map(float, range(bins - 1))), tuple([1 / bins] * bins), 0.0)
    found = stability(reference, np.array([*counts, 0]))
    assert found is not None
    assert 0 <= found < math.inf


def test_the_limit_allows_for_what_chance_gives_a_small_fleet():
    reference = Reference(tuple(map(float, range(9))), tuple([0.1] * 10), 0.0)
    assert limit_of(reference, 1_000) == pytest.approx(0.25 + 0.018)
    assert limit_of(reference, 18) == pytest.approx(0.25 + 1.0)
    assert limit_of(reference, 0) == 0.25


def test_the_same_distribution_stays_below_its_limit_and_a_moved_level_does_not():
    rng = np.random.default_rng(3)
    machines = 30
    reference = reference_of(rng.normal(40, 1, 5_000))
    limit = limit_of(reference, machines)

    def psi(level):
        return stability(
            reference, count_by_day(rng.normal(level, 1, machines * 14), np.zeros(machines * 14, int), 1, reference)[0]
        )

    assert all(psi(40) < limit for _ in range(50))
    assert psi(41.5) > limit


@pytest.mark.parametrize(
    ("flags", "lasts"),
    [
        ("1", False),
        ("11", False),
        ("111", True),
        ("10101", True),
        ("11100", False),  # not the latest
        ("1100001", False),  # one odd day
        ("1110001", False),  # too long ago
        ("", False),
    ],
)
def test_one_odd_day_raises_no_alarm(flags, lasts):
    assert is_lasting([flag == "1" for flag in flags]) is lasts


@pytest.mark.parametrize("usual", [0.013, 1 / 3])
@pytest.mark.parametrize("others", [0, 150, 300])
def test_a_value_that_differs_in_its_last_digit_has_not_moved(usual, others):
    """A tree says one probability of most rows; in training NumPy makes it, in scoring Spark."""
    rare = np.linspace(0.5, 0.9, others)
    reference = reference_of(np.concatenate([np.full(1_000, usual), rare]))
    for direction in (-1.0, 2.0):
        again = np.concatenate([np.full(1_000, np.nextafter(usual, direction)), rare])
        counts = count_by_day(again, np.zeros(len(again), int), 1, reference)
        assert stability(reference, counts[0]) == pytest.approx(0.0)
    moved = np.concatenate([np.full(1_000, usual * 1.001), rare])
    assert stability(reference, count_by_day(moved, np.zeros(len(moved), int), 1, reference)[0]) > 1.0
