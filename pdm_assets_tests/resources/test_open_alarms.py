"""Open alarms of a lake that stands in memory."""

import dataclasses
import datetime as dt

import pyarrow as pa
import pyarrow.dataset
import pytest

from pdm_assets.resources import open_alarms
from pdm_assets.resources.open_alarms import OpenAlarms
from pdm_assets.schemas.features import COMPONENT_RISK
from pdm_assets.schemas.raw import FAILURES, MAINTENANCE
from pdm_assets.schemas.table import DATE
from pdm_assets_tests.builders import day, utc

INSTANTS = {MAINTENANCE.key: "performed_at", FAILURES.key: "failed_at"}


class Scores:
    """Stands in for a lake: scores of comp1 and nothing else, (machine, observed_at, is_alert) each."""

    def __init__(self, *scores):
        self.scores = [(machine, utc(at), alert) for machine, at, alert in scores]

    def rows_by_day(self, table, start, end):
        return {at.date(): 1 for _, at, _ in self.scores if start <= at.date() < end}

    def arrow(self, table, start, end):
        if table != COMPONENT_RISK:
            empty = {"machine_id": pa.int64(), INSTANTS[table.key]: pa.timestamp("us", "UTC"), "component": pa.string()}
            return pyarrow.dataset.dataset(pa.schema(empty).empty_table())
        rows = [
            {
                "machine_id": machine,
                "component": "comp1",
                "observed_at": at,
                "probability": 0.9 if alert else 0.1,
                "threshold": 0.5,
                "is_alert": alert,
                "model_version": "tree",
                DATE: at.date(),
            }
            for machine, at, alert in self.scores
            if start <= at.date() < end
        ]
        return pyarrow.dataset.dataset(pa.Table.from_pylist(rows))


@pytest.mark.parametrize("horizon_hours", [336, 400, 720])
def test_an_alarm_that_is_open_for_longer_than_the_chart_has_its_score(monkeypatch, horizon_hours):
    settings = dataclasses.replace(
        open_alarms.SETTINGS, horizon_hours=horizon_hours, calibration_days=60, test_days=60, first_day=day("2015-01-01")
    )
    monkeypatch.setattr(open_alarms, "SETTINGS", settings)
    today = day("2015-03-31")
    # machine 1 fell silent after its alert; the last instant at which it is still open
    at = utc("2015-03-31 06:00") - dt.timedelta(hours=horizon_hours - 1)
    lake = Scores((1, f"{at:%Y-%m-%d %H:%M}", True), (2, "2015-03-31 06:00", False))
    alarms = OpenAlarms(lake, today, today + dt.timedelta(days=1))
    ((episode,),) = alarms.by_day.values()
    assert episode.machine == 1
    assert alarms.latest(episode, today)["observed_at"] == at
