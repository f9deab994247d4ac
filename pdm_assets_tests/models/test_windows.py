import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.models.windows import Window, first_possible_cutoff, model_windows
from pdm_assets.settings import Settings

DAYS = st.dates(dt.date(2000, 1, 1), dt.date(2050, 1, 1))
LENGTHS = st.builds(
    Settings,
    least_lead_hours=st.just(0),
    train_days=st.integers(1, 400),
    calibration_days=st.integers(18, 60),
    test_days=st.integers(18, 60),
    horizon_hours=st.integers(1, 400),
)


def test_windows_of_the_defaults():
    windows = model_windows(dt.date(2015, 12, 1), Settings())
    assert windows.test == Window(dt.date(2015, 10, 30), dt.date(2015, 11, 29))
    assert windows.calibration == Window(dt.date(2015, 9, 28), dt.date(2015, 10, 28))
    assert windows.train == Window(dt.date(2014, 12, 30), dt.date(2015, 9, 26))


@pytest.mark.parametrize(
    ("horizon_hours", "last_day"),
    [
        pytest.param(24, dt.date(2015, 11, 29), id="a day"),
        pytest.param(25, dt.date(2015, 11, 28), id="an hour more costs a whole day"),
        pytest.param(48, dt.date(2015, 11, 28), id="two days"),
        pytest.param(1, dt.date(2015, 11, 29), id="an hour is a day too"),
    ],
)
def test_the_last_day_that_is_tested_ends_a_horizon_before_the_cutoff(horizon_hours, last_day):
    windows = model_windows(dt.date(2015, 12, 1), Settings(horizon_hours=horizon_hours, least_lead_hours=0))
    assert windows.test.end - dt.timedelta(days=1) == last_day


@given(cutoff=DAYS, settings=LENGTHS)
def test_no_outcome_is_known_only_after_the_cutoff(cutoff, settings):
    cutoff_at = dt.datetime.combine(cutoff, dt.time(), dt.UTC)
    assert model_windows(cutoff, settings).test.end_at + settings.horizon <= cutoff_at


@given(cutoff=DAYS, settings=LENGTHS)
def test_outcomes_of_a_window_are_over_before_the_next_begins(cutoff, settings):
    windows = model_windows(cutoff, settings)
    assert windows.train.end_at + settings.horizon <= windows.calibration.start_at
    assert windows.calibration.end_at + settings.horizon <= windows.test.start_at


@given(cutoff=DAYS, settings=LENGTHS)
def test_windows_have_the_lengths_that_are_set(cutoff, settings):
    lengths = [(window.end - window.start).days for window in model_windows(cutoff, settings).named().values()]
    assert lengths == [settings.train_days, settings.calibration_days, settings.test_days]


def test_the_first_possible_model_of_the_defaults_is_338_days_after_the_first_telemetry():
    assert first_possible_cutoff(dt.date(2015, 1, 1), Settings()) == dt.date(2015, 1, 1) + dt.timedelta(days=338)


@given(first_day=DAYS, settings=LENGTHS)
def test_the_first_possible_model_learns_from_the_first_day_with_a_whole_lookback(first_day, settings):
    windows = model_windows(first_possible_cutoff(first_day, settings), settings)
    assert windows.train.start == first_day + dt.timedelta(days=2)
