"""The worklist's episodes and figures, worked by hand."""

import csv
import datetime as dt
import io

import numpy as np
import pytest

from pdm_assets.models.events import HOUR, Costs, Moments
from pdm_assets.models.worklist import Episode, Line, expected_hours_left, expected_saving, open_episodes, ranked
from pdm_assets.models.worklist_page import as_csv, page, table
from pdm_assets_tests.builders import day, utc

COSTS = Costs(missed_failure=10_000, false_visit=500, planned_repair=2_000)
START = int(utc("2026-03-01 06:00").timestamp())


def moments(*pairs):
    """(machine, hours after the start) each."""
    return Moments(
        np.array([m for m, _ in pairs], dtype=np.int64), np.array([START + h * HOUR for _, h in pairs], dtype=np.int64)
    )


def opened(alerts, closings=(), at=48, horizon=48):
    found = open_episodes(
        {"comp1": moments(*alerts)}, {"comp1": moments(*closings)}, at=START + at * HOUR, horizon_hours=horizon
    )
    return [(e.machine, (e.first_alert - START) // HOUR, (e.last_alert - START) // HOUR) for e in found]


def test_alerts_up_to_a_day_apart_are_one_episode_from_the_first_to_the_last():
    assert opened([(1, 24), (1, 36), (1, 48), (2, 48)]) == [(1, 24, 48), (2, 48, 48)]


@pytest.mark.parametrize(
    ("alerts", "closings", "found"),
    [
        # repaired or failed after the last alert: closed; at its instant too, for the readings behind it are from before
        ([(1, 24), (1, 36)], [(1, 40)], []),
        ([(1, 24), (1, 36)], [(1, 36)], []),
        # an alert after the repair is another episode
        ([(1, 24), (1, 36), (1, 48)], [(1, 40)], [(1, 48, 48)]),
        # of another machine
        ([(1, 36)], [(2, 40)], [(1, 36, 36)]),
        # silent for more than a day, then again: the later one, from its own beginning
        ([(1, 12), (1, 37)], [], [(1, 37, 37)]),
        # the horizon of its last alert is over at 48: (0, 48]
        ([(1, 0)], [], []),
        ([(1, 1)], [], [(1, 1, 1)]),
        # what comes after the instant is not known yet
        ([(1, 49)], [], []),
        ([], [], []),
    ],
)
def test_an_episode_is_open_until_it_is_closed_or_its_horizon_is_over(alerts, closings, found):
    assert opened(alerts, closings) == found


def test_a_component_has_an_episode_of_its_own_and_an_id_that_stays():
    alerts = {"comp1": moments((7, 24)), "comp2": moments((7, 36))}
    closings = {"comp1": moments(), "comp2": moments()}
    before = open_episodes(alerts, closings, at=START + 36 * HOUR, horizon_hours=48)
    alerts["comp1"] = moments((7, 24), (7, 48))
    after = open_episodes(alerts, closings, at=START + 48 * HOUR, horizon_hours=48)
    assert [e.id for e in before] == [e.id for e in after] == ["7-comp1-20260302T0600", "7-comp2-20260302T1800"]


def test_an_episode_at_the_edge_of_what_was_looked_at_may_have_begun_before_it():
    assert Episode(1, "comp1", START + 24 * HOUR, START + 24 * HOUR).may_begin_before(START)
    assert not Episode(1, "comp1", START + 24 * HOUR + 1, START + 25 * HOUR).may_begin_before(START)


def test_the_hours_left_are_those_of_earlier_episodes_that_went_on_as_long():
    leads = (12.0, 24.0, 36.0)
    assert expected_hours_left(leads, 0) == 24.0
    assert expected_hours_left(leads, 12) == 18.0  # of 24 and 36
    assert expected_hours_left(leads, 36) is None
    assert expected_hours_left((), 0) is None


def test_a_visit_saves_nothing_on_average_at_the_fair_threshold():
    assert expected_saving(1.0, COSTS) == 8_000
    assert expected_saving(0.0, COSTS) == -500
    assert expected_saving(1 / 17, COSTS) == pytest.approx(0)


def line(machine=1, saving=100.0, first="2026-03-01 06:00", **changed):
    given = {
        "episode_id": f"{machine}-comp1",
        "machine_id": machine,
        "component": "comp1",
        "first_alerted_at": utc(first),
        "last_alerted_at": utc("2026-03-02 06:00"),
        "observed_at": utc("2026-03-02 18:00"),
        "probability": 0.75,
        "threshold": 0.5,
        "expected_hours_left": None,
        "days_since_replacement": 77.4,
        "expected_saving": saving,
        "reasons": "vibration 24 h mean 50.3, normal 40.0 ± 1.0; error5 at 06:00 today",
        "model_version": "tree",
        **changed,
    }
    return Line(**given)


def test_the_greatest_saving_comes_first_and_of_equals_the_older_alarm():
    lines = [line(1, 50), line(2, 100, "2026-03-02 06:00"), line(3, 100, "2026-03-01 06:00"), line(4, 100, "2026-03-01 06:00")]
    assert [its.machine_id for its in ranked(lines)] == [3, 4, 2, 1]


def test_the_page_shows_each_line_and_what_is_beyond_capacity_and_loads_nothing():
    history = [(utc("2026-02-17 18:00"), 0.0), (utc("2026-03-02 18:00"), 0.75)]
    html = page(day("2026-03-02"), [line(1), line(2)], {"1-comp1": history, "2-comp1": []}, capacity=1, horizon_hours=48)
    assert "2 open alarms" in html
    assert html.count('class="beyond"') == 1
    assert "<li>error5 at 06:00 today</li>" in html
    assert "75 %" in html
    assert "not known" in html
    # 14 days are 180 wide: the first point lies 13.25 days before the end of the day, the last a quarter of a day
    assert 'points="9.6,39.0 176.8,10.5"' in html
    assert "http" not in html


def test_the_page_of_a_quiet_day_says_so():
    assert "Nothing to see to." in page(day("2026-03-02"), [], {}, capacity=1, horizon_hours=48)
    assert table([], 5, 1) == "nothing to see to"


def test_what_the_data_says_is_text_on_the_page_and_no_markup():
    html = page(day("2026-03-02"), [line(reasons="<script>alert(1)</script>")], {"1-comp1": []}, capacity=1, horizon_hours=48)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_the_table_for_the_ui_is_cut_and_says_so():
    text = table([line(n) for n in range(5)], 2, 1)
    assert text.count("\n| ") == 3
    assert text.endswith("3 more lines are on the page")


def test_the_table_for_the_ui_has_what_the_crew_asks_of_an_alarm():
    head, rule, first, second = table([line(1), line(2, expected_hours_left=17.6, days_since_replacement=None)], 2, 1).split(
        "\n"
    )
    cells = dict(zip(head.split("|"), first.split("|"), strict=True))
    assert {name.strip(): cell.strip() for name, cell in cells.items() if name.strip()} == {
        "machine": "1",
        "component": "comp1",
        # each reason in one piece, whatever the width of the column
        "why": "vibration 24 h mean 50.3, normal 40.0 ± 1.0; error5 at 06:00 today".replace(" ", "\xa0").replace(";\xa0", "; "),
        "probability": "75%",
        "alerted (UTC)": "01 Mar 06:00",
        "hours left": "not known",
        "days since replacement": "77",
        "saves": "100",
        "within capacity": "yes",
    }
    assert "| 18 | never | 100 | no |" in second
    assert rule.count("|") == head.count("|")


def test_with_every_component_of_a_large_fleet_alarmed_all_are_on_the_page_and_few_in_the_ui():
    lines = ranked([line(n, saving=n % 7) for n in range(4_000)])
    history = [(utc("2026-03-02 18:00"), 0.75)] * 28
    html = page(day("2026-03-02"), lines, {its.episode_id: history for its in lines}, capacity=10, horizon_hours=48)
    assert "4000 open alarms" in html
    assert html.count('class="beyond"') == 3_990
    assert len(html) < 8_000_000
    assert len(table(lines, 20, 10)) < 5_000


def test_the_csv_has_a_line_each_with_its_rank():
    header, first, second = as_csv([line(5), line(6)], 1).splitlines()
    assert header.startswith("rank,is_within_capacity,episode_id,machine_id,component,first_alerted_at")
    assert first.startswith("1,True,5-comp1,5,comp1,2026-03-01T06:00+00:00,")
    assert second.startswith("2,False,6-comp1,6,")
    assert '"vibration 24 h mean 50.3, normal 40.0 ± 1.0; error5 at 06:00 today"' in first
    assert dt.datetime.fromisoformat(first.split(",")[5]) == utc("2026-03-01 06:00")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d"])
def test_no_cell_of_the_csv_is_a_formula_and_numbers_stay_numbers(start):
    text = as_csv([line(-5, -12.5, episode_id=f"{start}5-comp1", reasons=f"{start}HYPERLINK(0)")], 1)
    (its,) = csv.DictReader(io.StringIO(text, newline=""))
    assert its["episode_id"] == f"'{start}5-comp1"
    assert its["reasons"] == f"'{start}HYPERLINK(0)"
    assert (int(its["machine_id"]), float(its["expected_saving"])) == (-5, -12.5)
