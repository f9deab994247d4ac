import datetime as dt

import dagster as dg
import pytest

from pdm_assets.partitions import day_partitions
from pdm_assets.settings import Settings
from pdm_assets_tests.builders import day, utc

FIRST, TODAY = day("2015-01-01"), "2015-01-10"


@pytest.mark.parametrize("now", ["2015-01-10 00:00", "2015-01-10 12:00", "2015-01-10 23:59"])
@pytest.mark.parametrize(
    ("last_day", "newest"),
    [
        pytest.param(None, TODAY, id="no last day"),
        pytest.param("2015-01-05", "2015-01-05", id="the last day is long over"),
        pytest.param("2015-01-09", "2015-01-09", id="it was yesterday"),
        pytest.param(TODAY, TODAY, id="it is today"),
        pytest.param("2015-01-11", TODAY, id="it is tomorrow"),
        pytest.param("2015-03-01", TODAY, id="it is far ahead"),
    ],
)
def test_the_running_day_is_a_partition_and_nothing_after_the_last_day_is(last_day, newest, now):
    days = day_partitions(Settings(first_day=FIRST, last_day=last_day and day(last_day)))
    length = (day(newest) - FIRST).days + 1
    with dg.partition_loading_context(effective_dt=utc(now)):
        assert days.get_partition_keys() == [(FIRST + dt.timedelta(days=n)).isoformat() for n in range(length)]
        # Dagster counts them and finds the last in other ways than it lists them
        assert days.get_num_partitions() == length
        assert days.get_last_partition_key() == newest
        assert days.has_partition_key(newest)
        assert not days.has_partition_key((day(newest) + dt.timedelta(days=1)).isoformat())
