import datetime as dt

import pytest

from pdm_assets.transforms.labels import label_observations
from pdm_assets_tests.builders import day, failures, machines, utc


def label(spark, failed, *, on=((1, "2015-01-01"),), hours=48, known_until="2015-06-01 00:00"):
    frame = label_observations(
        machines(spark, on),
        failures(spark, failed),
        cadence_hours=12,
        horizon=dt.timedelta(hours=hours),
        known_until=utc(known_until),
    )
    return {
        (r["machine_id"], r["observed_at"].strftime("%d %H"), r["component"]): (
            r["fails_within_horizon"],
            r["date"],
        )
        for r in frame.collect()
    }


@pytest.mark.parametrize(
    ("failed_at", "expected"),
    [
        pytest.param("2015-01-01 06:00", False, id="at the observation itself, too late to foresee"),
        pytest.param("2015-01-01 06:01", True, id="just after the observation"),
        pytest.param("2015-01-03 06:00", True, id="at the last instant of the horizon"),
        pytest.param("2015-01-03 06:01", False, id="just past the horizon"),
    ],
)
def test_only_a_failure_inside_the_horizon_counts(spark, failed_at, expected):
    assert label(spark, [(1, failed_at, "comp1")])[(1, "01 06", "comp1")][0] is expected


def test_two_components_that_fail_together_are_two_labels(spark):
    labels = label(spark, [(1, "2015-01-02 06:00", "comp2"), (1, "2015-01-02 06:00", "comp4")])
    assert [labels[(1, "01 06", f"comp{n}")][0] for n in (1, 2, 3, 4)] == [False, True, False, True]
    assert len(labels) == 8


def test_two_failures_of_a_component_are_one_row(spark):
    labels = label(spark, [(1, "2015-01-02 06:00", "comp2"), (1, "2015-01-02 12:00", "comp2")])
    assert len(labels) == 8
    assert labels[(1, "01 06", "comp2")][0] is True


def test_a_failure_of_another_machine_does_not_count(spark):
    assert label(spark, [(2, "2015-01-02 06:00", "comp1")])[(1, "01 06", "comp1")][0] is False


@pytest.mark.parametrize(
    ("hours", "known_on"), [(24, "2015-01-02"), (48, "2015-01-03"), (36, "2015-01-03"), (168, "2015-01-08")]
)
def test_a_label_is_kept_by_the_day_its_horizon_is_over(spark, hours, known_on):
    labels = label(spark, [], hours=hours)
    assert {date for _, date in labels.values()} == {day(known_on)}


def test_no_label_horizon_reaches_past_the_end_of_its_day(spark):
    for hours in (1, 24, 30, 48, 168):
        frame = label_observations(
            machines(spark, [(1, "2015-01-01"), (1, "2015-01-09")]),
            failures(spark),
            cadence_hours=1,
            horizon=dt.timedelta(hours=hours),
            known_until=utc("2016-01-01 00:00"),
        )
        late = [
            r
            for r in frame.collect()
            if r["observed_at"] + dt.timedelta(hours=hours) > dt.datetime.combine(r["date"], dt.time()) + dt.timedelta(days=1)
        ]
        assert late == []


@pytest.mark.parametrize(
    ("known_until", "rows"),
    [("2015-01-03 23:59", 0), ("2015-01-04 00:00", 8)],
    ids=["the day is not over", "the day is over"],
)
def test_a_day_that_is_not_over_has_no_labels_not_even_positive_ones(spark, known_until, rows):
    assert len(label(spark, [(1, "2015-01-01 12:00", "comp1")], known_until=known_until)) == rows
