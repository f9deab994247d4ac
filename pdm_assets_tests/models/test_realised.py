"""Realised performance: a small plant worked by hand."""

import dataclasses

import numpy as np
import pytest

from pdm_assets.models.evaluation import POOLED, History
from pdm_assets.models.events import DAY, HOUR, Costs, Moments, Rules, are_decided, hours_ahead, judge, summarize
from pdm_assets.models.metrics import average_precision, brier
from pdm_assets.models.realised import Given, compared, realise

RULES = Rules(horizon_hours=48, least_lead_hours=6, cadence_hours=12)
COSTS = Costs(missed_failure=10_000, false_visit=500, planned_repair=2_000)
MACHINES = (1, 2, 3)
DAYS = 40
END = DAYS * DAY  # the plant began at 0


def moments(*pairs):
    """(machine, hours) each."""
    return Moments(
        np.array([m for m, _ in pairs], dtype=np.int64), np.array([round(h * HOUR) for _, h in pairs], dtype=np.int64)
    )


def given(*alerts):
    """Observations at 06:00 and 18:00 of each day; the alerting ones say 0.9, the others 0.1."""
    at = [(machine, day * 24 + hour) for day in range(DAYS) for hour in (6, 18) for machine in MACHINES]
    is_alert = np.array([pair in set(alerts) for pair in at])
    return moments(*at), np.where(is_alert, 0.9, 0.1), is_alert


def between(scores, start, end):
    """Those observed in [start, end)."""
    chosen = (scores[0].at >= start) & (scores[0].at < end)
    return scores[0].where(chosen), scores[1][chosen], scores[2][chosen]


def realised(its, failures, repairs=(), end=END, window_days=30):
    past = History(moments(*failures), moments(*failures, *repairs))
    scores = Given.of(*its, past, RULES.horizon_hours)
    found = realise({"comp1": scores}, end=end, window_days=window_days, rules=RULES, costs=COSTS)
    assert [one.component for one in found] == ["comp1", POOLED]
    assert dataclasses.replace(found[1], component="comp1") == found[0]
    return found[0]


def test_failures_up_to_the_end_and_alarms_up_to_a_horizon_before_it():
    hour = 37 * 24  # day 37 begins; days 8 to 37 are those of alarms, days 10 to 39 those of failures
    its = given(
        (1, hour + 6),  # right: machine 1 fails 24 h later
        (2, 20 * 24 + 6),  # wrong
        (3, 38 * 24 + 6),  # its outcome is not known yet: neither right nor wrong
        (2, 7 * 24 + 18),  # before the window
    )
    found = realised(its, [(1, hour + 30), (3, 15 * 24 + 6), (2, 9 * 24 + 23)])
    assert found.observations == 30 * 2 * 3
    events = found.events
    assert (events.failures, events.caught, events.event_recall) == (2, 1, 0.5)  # machine 2's was before the window
    assert events.lead_median_hours == 24.0
    assert (events.true_episodes, events.false_episodes, events.alarm_precision) == (1, 1, 0.5)
    assert events.cost == 500 + 2_000 + 10_000
    assert found.never_cost == 20_000
    assert found.alarmed_machines_per_day == 2 / 30


def test_a_failure_of_the_last_day_counts_with_the_warning_of_two_days_before():
    its = given((1, 38 * 24 + 6))
    found = realised(its, [(1, 39 * 24 + 23)], window_days=1)
    assert (found.events.failures, found.events.caught) == (1, 1)
    assert found.events.lead_median_hours == 41.0
    # whether the alarm was right is told of the day whose outcomes are all known: it had none
    assert (found.events.true_episodes, found.events.false_episodes) == (0, 0)
    assert found.observations == 2 * 3


def test_two_alerts_of_a_machine_and_day_are_one_machine_to_visit():
    its = given((1, 20 * 24 + 6), (1, 20 * 24 + 18), (2, 20 * 24 + 6), (1, 21 * 24 + 6))
    assert realised(its, []).alarmed_machines_per_day == 3 / 30


def test_an_alarm_that_the_crew_obeyed_is_held_against_nobody():
    obeyed = [(machine, day * 24 + 6) for machine in MACHINES for day in (10, 20, 30)]
    repairs = [(machine, hour + 12) for machine, hour in obeyed]
    found = realised(given(*obeyed), [], repairs)
    events = found.events
    assert (events.true_episodes, events.false_episodes, events.replaced_episodes) == (0, 0, 9)
    assert (events.alarm_precision, events.cost) == (None, 0.0)
    assert found.calibration_error == pytest.approx(0.1)  # of those that said 0.1 and did not fail; nobody knows of the 0.9
    # nor does anybody of what was observed within the horizon before the repair
    alone = realised(given(*obeyed[:1]), [], repairs[:1])
    assert alone.brier == pytest.approx(0.01)


def test_what_happens_later_is_not_looked_at():
    its = given((1, 37 * 24 + 6), (2, 39 * 24 + 6))
    known = realised(its, [(3, 20 * 24)])
    assert realised(its, [(3, 20 * 24), (1, 40 * 24), (2, 41 * 24)], [(1, 40 * 24 + 1)]) == known


def test_what_closes_the_part_in_the_windows_first_hours_counts():
    first = 27 * 24 + 6  # of a window of a day, and the horizon before it, that ends at 06:00 of day 30
    found = realised(given((1, first)), [(1, first + 30)], [(1, first + 6)], (30 * 24 + 6) * HOUR, window_days=1).events
    assert (found.true_episodes, found.false_episodes, found.replaced_episodes) == (0, 0, 1)


def by_the_long_way(scores, past, end, window_days):
    """Some of what is realised of a component, each window from its own scores and the whole history."""
    horizon = RULES.horizon_hours * HOUR
    first = end - window_days * DAY - horizon
    begin = max(first, int(scores[0].at.min()))

    def judged(until):
        at, _, is_alert = between(scores, begin, until)
        return summarize(judge(at, is_alert, past.failures, past.closings, start=begin, end=until, rules=RULES), COSTS)

    at, probability, _ = between(scores, first, end - horizon)
    fails = hours_ahead(at, past.failures) <= RULES.horizon_hours
    known = are_decided(at, past.failures, past.closings, RULES.horizon_hours)
    of_failures, of_alarms = judged(end), judged(end - horizon)
    return {
        "observations": len(at.at),
        "brier": brier(probability[known], fails[known]),
        "average_precision": average_precision(probability[known], fails[known]),
        "failures": (of_failures.failures, of_failures.caught, of_failures.lead_median_hours),
        "episodes": (of_alarms.true_episodes, of_alarms.false_episodes, of_alarms.replaced_episodes),
        "false_alarms_per_machine_month": of_alarms.false_alarms_per_machine_month,
    }


@pytest.mark.parametrize("window_days", [1, 5])
@pytest.mark.parametrize("seed", range(20))
def test_a_window_of_many_is_judged_as_if_there_were_no_other(seed, window_days):
    chance = np.random.default_rng(seed)
    end = 30 * DAY + 6 * HOUR  # both edges of the window are observed
    at, _, _ = given()
    probability = chance.integers(0, 8, len(at.at)) / 8  # many are equal
    scores = at, probability, probability > 0.6

    def events(count):
        """At an observation, or a horizon after one, or a second beside that."""
        of = chance.integers(0, len(at.at), count)
        beside = chance.choice([0, RULES.horizon_hours * HOUR], count) + chance.integers(-1, 2, count)
        return Moments(at.machine[of], at.at[of] + beside)

    failures, repairs = events(60), events(60)
    both = Moments(*(np.concatenate([getattr(each, name) for each in (failures, repairs)]) for name in ("machine", "at")))
    past = History(failures, both)
    its = {"comp1": Given.of(*scores, past, RULES.horizon_hours)}
    found = realise(its, end=end, window_days=window_days, rules=RULES, costs=COSTS)[0]
    assert {
        "observations": found.observations,
        "brier": pytest.approx(found.brier),
        "average_precision": pytest.approx(found.average_precision),
        "failures": (found.events.failures, found.events.caught, found.events.lead_median_hours),
        "episodes": (found.events.true_episodes, found.events.false_episodes, found.events.replaced_episodes),
        "false_alarms_per_machine_month": found.events.false_alarms_per_machine_month,
    } == by_the_long_way(scores, past, end, window_days)


def test_probabilities_are_judged_by_what_followed_within_the_horizon():
    # machine 1 fails at hour 500: its observations of 452 <= h < 500 are failing, four of 180
    at = [h for h in range(500 - 48, 500) if h % 24 in (6, 18)]
    found = realised(given(*((1, h) for h in at)), [(1, 500)])
    failing = len(at) / found.observations
    assert found.brier == pytest.approx(0.01)
    assert found.brier_skill == pytest.approx(1 - 0.01 / (failing * (1 - failing)))
    assert found.average_precision == 1.0
    # by tenths of 180: the last holds the four that fail, too low by 0.1 each, and 14 that do not, too high by as much
    assert found.calibration_error == pytest.approx((9 * 18 * 0.1 + (14 - 4) * 0.1) / 180)


def test_a_failure_from_before_the_first_score_is_not_missed():
    begun = between(given(), 30 * DAY, END)  # the first observation is at 06:00 of day 30
    found = realised(begun, [(1, 31 * 24), (2, 32 * 24 + 5), (3, 32 * 24 + 6)])
    assert (found.events.failures, found.events.caught) == (1, 0)
    assert found.observations == 8 * 2 * 3


def test_without_scores_there_is_nothing_to_judge():
    found = realised(between(given(), 0, 0), [(1, 500)])
    assert (found.observations, found.brier, found.events.event_recall) == (0, None, None)


@pytest.mark.parametrize(
    ("changed", "calibration_error", "days", "worse"),
    [
        # as good as allowed is 0.98 - 0.10 = 0.88 and 0.96 - 0.15 = 0.81. Of 20 failures, 15 or fewer are caught by a chance of
        # 0.07 then, 14 or fewer by one of 0.02
        ({"failures": 20, "caught": 15}, 0.05, 30, None),
        ({"failures": 20, "caught": 14}, 0.05, 30, "event recall 14 of 20, 0.98 in the test window"),
        ({"failures": 3, "caught": 1}, 0.05, 30, "event recall 1 of 3, 0.98 in the test window"),
        ({"failures": 1, "caught": 0}, 0.05, 30, None),  # by a chance of 0.12
        ({"true_episodes": 3, "false_episodes": 2}, 0.05, 30, None),  # 0.25
        ({"true_episodes": 12, "false_episodes": 8}, 0.05, 30, "alarm precision 12 of 20, 0.96 in the test window"),
        # a fleet of thousands: 4,400 +- 23 of 5,000, more ways to choose them than a float can count
        ({"failures": 5_000, "caught": 4_370}, 0.05, 30, None),
        ({"failures": 5_000, "caught": 4_350}, 0.05, 30, "event recall 4350 of 5000, 0.98 in the test window"),
        ({}, 0.051, 30, "calibration error 0.051"),
        ({"failures": 20, "caught": 0}, 0.2, 1, None),  # a day
        ({}, None, 30, None),
        ({"alerts_said": 0.75, "alerts_came_true": 0.56}, 0.01, 30, None),
        ({"alerts_said": 0.75, "alerts_came_true": 0.05}, 0.01, 30, "alerts said 0.75, 0.05 came true"),
    ],
)
def test_what_fell_short_of_the_test_window_is_said_unless_chance_explains_it(changed, calibration_error, days, worse):
    one = realised(given(), [])
    test_window = dataclasses.replace(one.events, event_recall=0.98, alarm_precision=0.96)
    of_alerts = {name: changed.get(name) for name in ("alerts_said", "alerts_came_true")}
    now = dataclasses.replace(one.events, **{name: value for name, value in changed.items() if name not in of_alerts})
    one = dataclasses.replace(one, events=now, calibration_error=calibration_error, window_days=days, observations=1_000)
    one = dataclasses.replace(one, **of_alerts)
    assert compared(one, test_window) == worse
