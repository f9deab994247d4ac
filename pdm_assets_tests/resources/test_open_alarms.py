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


def test_a_machines_scores_are_its_own_up_to_the_end_of_the_day():
    first, then, later = "2015-03-30 18:00", "2015-03-31 06:00", "2015-04-01 00:00"
    silent = 7  # of whom the first is the only score
    machines = [*range(40), 10**12]
    scores = [(machine, at, at == then) for at in (later, then, first) for machine in reversed(machines)]
    lake = Scores(*(score for score in scores if score[:2] not in ((silent, then), (silent, later))))
    alarms = OpenAlarms(lake, day("2015-03-31"), day("2015-04-02"))
    assert [episode.machine for episode in alarms.by_day[day("2015-03-31")]] == [m for m in machines if m != silent]
    for episode in alarms.by_day[day("2015-03-31")]:
        seen = [(utc(first), 0.1), (utc(then), 0.9)]
        assert alarms.history(episode.machine, "comp1", day("2015-03-31")) == seen
        assert alarms.history(episode.machine, "comp1", day("2015-04-01")) == [*seen, (utc(later), 0.1)]
        for day_of, at in (("2015-03-31", then), ("2015-04-01", later)):
            newest = alarms.latest(episode, day(day_of))
            assert (newest["machine_id"], newest["observed_at"]) == (episode.machine, utc(at))


def test_stretches_of_rows_that_are_sorted():
    machines, components = [0, 0, 0, 3, 3, 10**12], ["comp1", "comp1", "comp2", "comp2", "comp3", "comp3"]
    assert open_alarms._stretches(pa.chunked_array([machines]), pa.chunked_array([components[:4], components[4:]])) == {
        (0, "comp1"): (0, 2),
        (0, "comp2"): (2, 3),
        (3, "comp2"): (3, 4),
        (3, "comp3"): (4, 5),
        (10**12, "comp3"): (5, 6),
    }
    nothing = pa.chunked_array([pa.array([], pa.int64())]), pa.chunked_array([pa.array([], pa.string())])
    assert open_alarms._stretches(*nothing) == {}
