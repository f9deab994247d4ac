"""Alerts judged by failures: small plants worked by hand, and a slow reading of the definitions to compare with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.models.events import (
    HOUR,
    Costs,
    Moments,
    Rules,
    are_decided,
    cost_by_machine,
    delivered_at,
    episodes,
    hours_ahead,
    judge,
    pool,
    resampled,
    summarize,
)

COSTS = Costs(missed_failure=100.0, false_visit=5.0, planned_repair=20.0)
H48 = Rules(horizon_hours=48)


def moments(*pairs):
    """(machine, hour) pairs."""
    return Moments(np.array([m for m, _ in pairs], np.int64), np.array([h * HOUR for _, h in pairs], np.int64))


def judged(alerts, failures, *, machines=(1,), closings=None, start=0, end=240, rules=H48, every=12):
    """Observations every 12 h from hour 6 on; alerts and failures are (machine, hour)."""
    grid = [(m, h) for m in machines for h in range(start + 6, end, every)]
    assert set(alerts) <= set(grid)
    return judge(
        moments(*grid),
        np.array([pair in set(alerts) for pair in grid]),
        moments(*failures),
        moments(*(failures if closings is None else closings)),
        start=start * HOUR,
        end=end * HOUR,
        rules=rules,
    )


def counts(found):
    s = summarize(found, COSTS)
    return s.failures, s.caught, s.true_episodes, s.false_episodes


def test_a_failure_that_was_warned_of_a_day_ahead():
    found = judged([(1, 78), (1, 90)], [(1, 102)])
    assert counts(found) == (1, 1, 1, 0)
    s = summarize(found, COSTS)
    assert (s.event_recall, s.alarm_precision, s.lead_median_hours, s.lead_24h_share) == (1.0, 1.0, 24.0, 1.0)
    assert s.cost == 20.0


def test_the_horizon_is_closed_at_both_ends():
    assert counts(judged([(1, 54)], [(1, 102)])) == (1, 1, 1, 0)  # 48 h ahead
    assert counts(judged([(1, 54)], [(1, 103)])) == (1, 0, 0, 1)  # 49 h
    assert counts(judged([(1, 54)], [(1, 60)])) == (1, 1, 1, 0)  # 6 h: the least useful lead
    assert counts(judged([(1, 54)], [(1, 59)])) == (1, 0, 0, 1)  # 5 h: too late to act


def test_alerts_a_day_apart_are_one_episode_and_further_apart_are_two():
    assert counts(judged([(1, 54), (1, 78)], [])) == (0, 0, 0, 1)
    assert counts(judged([(1, 54), (1, 90)], [])) == (0, 0, 0, 2)


def test_an_episode_ends_with_the_repair_of_its_component():
    # warned of at 54, failed and repaired at 66, still alerting at that instant and at 78: a new episode, and for nothing
    found = judged([(1, 54), (1, 66), (1, 78)], [(1, 66)])
    assert counts(found) == (1, 1, 1, 1)
    alerts, number = episodes(moments((1, 78), (1, 54), (1, 66)), moments((1, 66)))
    assert (alerts.at // HOUR).tolist() == [54, 66, 78]
    assert number.tolist() == [0, 0, 1]


def test_a_warning_that_goes_on_to_the_instant_of_the_repair_is_no_visit_for_nothing():
    # a drift that is seen from 66 on, failure and repair at 102: the mean of 102 is still that of the drift
    assert counts(judged([(1, 66), (1, 78), (1, 90), (1, 102)], [(1, 102)])) == (1, 1, 1, 0)


def test_hours_ahead_are_those_to_the_next_failure_of_the_same_machine():
    observed, failed = moments((1, 6), (2, 6), (1, 30), (3, 6), (1, 31)), moments((1, 30), (2, 5), (2, 300), (1, 54))
    assert hours_ahead(observed, failed).tolist() == [24.0, 294.0, 24.0, np.inf, 23.0]
    assert hours_ahead(observed, moments()).tolist() == [np.inf] * 5


def test_two_failures_need_a_warning_each():
    found = judged([(1, 54)], [(1, 66), (1, 200)])
    assert counts(found) == (2, 1, 1, 0)
    assert summarize(found, COSTS).cost == 100 + 20


def test_failures_that_nothing_in_the_window_could_warn_of_are_not_held_against_it():
    # at hour 30 less than a horizon was observed; at 250 the window is over, but it makes the alert at 222 right
    assert counts(judged([(1, 222)], [(1, 30), (1, 250)])) == (0, 0, 1, 0)


def test_a_warning_of_a_part_that_was_replaced_is_none_of_the_next_ones_failure():
    # replaced at 60: what fails at 100 is another part, and nobody warned of it
    found = judged([(1, 54)], [(1, 100)], closings=[(1, 60), (1, 100)])
    assert counts(found) == (1, 0, 0, 0)
    assert found.replaced_episodes.tolist() == [1]
    # the warning at 54 was right, of the failure at 66; that at 100 had none
    assert counts(judged([(1, 54)], [(1, 66), (1, 100)])) == (2, 1, 1, 0)
    # the part that was put in at 60 is warned of at 90
    found = judged([(1, 54), (1, 90)], [(1, 100)], closings=[(1, 60), (1, 100)])
    assert counts(found) == (1, 1, 1, 0)
    assert found.lead_hours.tolist() == [10.0]


def test_an_alarm_whose_part_was_replaced_is_neither_right_nor_wrong():
    def replaced(alerts, at, failures=()):
        found = judged(alerts, list(failures), closings=[(1, at), *failures])
        s = summarize(found, COSTS)
        return s.true_episodes, s.false_episodes, s.replaced_episodes, s.cost

    assert replaced([(1, 54)], 102) == (0, 0, 1, 0.0)  # 48 h after: it could still have failed
    assert replaced([(1, 54)], 103) == (0, 1, 0, 4.0)
    assert replaced([(1, 54)], 54) == (0, 0, 1, 0.0)  # at that instant: the alert is of what was taken out
    assert replaced([(1, 54)], 53) == (0, 1, 0, 4.0)  # the part is new
    # counted from the first alert: who alerts without end is not right by every replacement
    assert replaced([(1, h) for h in range(54, 126, 12)], 126) == (0, 1, 0, 4.0)
    # the component failed, too soon to act, before it was replaced
    assert replaced([(1, 54)], 60, [(1, 58)]) == (0, 1, 0, 104.0)
    assert summarize(judged([(1, 54)], [], closings=[(1, 60)]), COSTS).alarm_precision is None
    # of another machine
    assert counts(judged([(1, 54)], [], machines=(1, 2), closings=[(2, 60)])) == (0, 0, 0, 1)
    # years before: no instant of the machine before it in the order
    found = judged([(1, 54), (2, 54)], [], machines=(1, 2), closings=[(2, 60 - 10 * 8766)])
    assert counts(found) == (0, 0, 0, 2)


def test_what_became_of_a_part_is_known_if_it_failed_or_was_there_to_the_end_of_the_horizon():
    def decided(observed, failures, replacements=(), horizon=48):
        closings = moments(*failures, *replacements)
        return are_decided(moments(*observed), moments(*failures), closings, horizon).tolist()

    hours = [(1, h) for h in (6, 18, 30, 42, 54, 66)]
    assert decided(hours, []) == [True] * 6
    # replaced at 66: 18 is 48 h before it, 66 its very instant
    assert decided(hours, [], [(1, 66)]) == [True, False, False, False, False, False]
    # failed and repaired at 66: foretold by all but what is observed at that instant
    assert decided(hours, [(1, 66)], [(1, 66)]) == [True] * 5 + [False]
    assert decided(hours, [(1, 66)]) == [True] * 5 + [False]
    # replaced at 40, and the new part fails at 60: known of the new part alone
    assert decided(hours, [(1, 60)], [(1, 40)]) == [False, False, False, True, True, True]
    assert decided([(1, 6), (2, 6)], [], [(2, 30)]) == [True, False]
    assert decided([], [(1, 60)]) == []


def test_a_failure_is_repaired_once_however_many_episodes_told_of_it_and_one_after_the_window_is_not_charged():
    # 48 h and 12 h ahead: two episodes, both right, and one repair
    found = judged([(1, 54), (1, 90)], [(1, 102)])
    assert counts(found) == (1, 1, 2, 0)
    assert summarize(found, COSTS).cost == 20.0
    # told of in the last hours of the window, for a failure after it: whoever warns later would be charged as little
    assert summarize(judged([(1, 222)], [(1, 250)]), COSTS).cost == 0.0


def test_a_warning_that_arrives_after_the_failure_is_none():
    assert delivered_at(np.array([6 * HOUR]), 24).tolist() == [24 * HOUR]
    assert delivered_at(np.array([6 * HOUR]), 6).tolist() == [12 * HOUR]
    assert delivered_at(np.array([6 * HOUR]), 1).tolist() == [7 * HOUR]
    # the tell-tale error comes 24 h before the failure at 06:00: with one file a day 6 h of them are left
    daily = Rules(horizon_hours=48, landing_hours=24)
    found = judged([(1, 78), (1, 90)], [(1, 102)], rules=daily)
    assert counts(found) == (1, 1, 1, 0)
    assert found.lead_hours.tolist() == [6.0]
    # 12 h ahead as observed, but known only when it is too late
    found = judged([(1, 90)], [(1, 102)], rules=Rules(horizon_hours=48, landing_hours=24, least_lead_hours=7))
    assert counts(found) == (1, 0, 0, 1)


def test_counts_are_of_each_machine_and_add_up():
    found = judged([(1, 54), (2, 54)], [(1, 66), (3, 100)], machines=(1, 2, 3))
    assert found.machine.tolist() == [1, 2, 3]
    assert found.failures.tolist() == [1, 0, 1]
    assert found.caught.tolist() == [1, 0, 0]
    assert found.false_episodes.tolist() == [0, 1, 0]
    assert found.machine_days.tolist() == [10.0] * 3
    # failures are judged in 8 of the 10 days: as much of the false visit is charged
    assert cost_by_machine(found, COSTS).tolist() == [20.0, 4.0, 100.0]
    both = pool([found, judged([], [(2, 100)], machines=(1, 2, 3))])
    assert both.failures.tolist() == [1, 1, 1]
    assert both.machine_days.tolist() == [10.0] * 3
    # one false episode in 30 machine-days
    assert summarize(both, COSTS).false_alarms_per_machine_month == pytest.approx(30.44 / 30)


def test_a_machine_that_was_not_scored_has_no_say():
    assert counts(judged([], [(9, 100)])) == (0, 0, 0, 0)


def test_nothing_happened():
    s = summarize(judged([], []), COSTS)
    assert (s.event_recall, s.alarm_precision, s.lead_median_hours, s.cost) == (None, None, None, 0.0)
    assert s.false_alarms_per_machine_month == 0.0


def test_intervals_hold_the_value_and_narrow_with_more_machines():
    def fleet(size):
        machines = tuple(range(size))
        alerts = [(m, 54) for m in machines if m % 2]
        return judged(alerts, [(m, 66) for m in machines], machines=machines)

    small, large = (resampled(fleet(size), COSTS)["event_recall"] for size in (10, 1_000))
    assert small[0] <= 0.5 <= small[1]
    assert large[1] - large[0] < small[1] - small[0]
    # half of n coins: 90 % within 1.645 standard deviations
    assert large[1] - large[0] == pytest.approx(2 * 1.645 * (0.25 / 1_000) ** 0.5, rel=0.1)


def test_the_interval_of_the_median_lead_is_that_of_the_machines_drawn():
    # one machine is warned 48 h ahead, two 12 h: the median is 48 in draws that hold the first twice or more, 7 of 27
    machines = (1, 2, 3)
    found = judged([(1, 54), (2, 90), (3, 90)], [(m, 102) for m in machines], machines=machines)
    assert resampled(found, COSTS)["lead_median_hours"] == (12.0, 48.0)
    assert "lead_median_hours" not in resampled(judged([], [(1, 102)]), COSTS)


def slowly(grid, alerts, failures, replacements, start, end, rules):
    """(failures, caught, true, false, replaced, leads), read off the definitions one by one."""
    horizon, least, landing = rules.horizon_hours, rules.least_lead_hours, rules.landing_hours
    closings = sorted({*failures, *replacements})

    def given_at(h):
        return h if landing == 0 else (h // landing + 1) * landing

    def is_of(m, h, t):
        """Whether an alert is of the part that fails at t."""
        return not any(c == m and h <= at < t for c, at in closings)

    runs = []
    for m, h in sorted(alerts):
        last = runs[-1][-1] if runs else None
        same = last and last[0] == m and h - last[1] <= 24 and not any(f == m and last[1] <= t < h for f, t in closings)
        runs[-1].append((m, h)) if same else runs.append([(m, h)])
    true = replaced = 0
    for run in runs:
        if any(f == m and given_at(h) + least <= t <= h + horizon and is_of(m, h, t) for m, h in run for f, t in failures):
            true += 1
        else:
            machine, first = run[0]
            closed = min((t for m, t in closings if m == machine and t >= first), default=None)
            replaced += closed is not None and closed <= first + horizon and (machine, closed) not in failures
    due = [(m, t) for m, t in failures if start + horizon <= t < end and m in {m for m, _ in grid}]
    leads = [
        max(leads)
        for m, t in due
        if (
            leads := [
                t - given_at(h)
                for a, h in alerts
                if a == m and t - horizon <= h and given_at(h) <= t - least and is_of(m, h, t)
            ]
        )
    ]
    return len(due), len(leads), true, len(runs) - true - replaced, replaced, sorted(leads)


HOURS = st.integers(0, 19)


@given(
    alerts=st.sets(st.tuples(st.integers(1, 3), HOURS)),
    failures=st.sets(st.tuples(st.integers(1, 4), st.integers(0, 300))),
    replacements=st.sets(st.tuples(st.integers(1, 4), st.integers(-50_000, 300) | st.integers(0, 300))),
    landing=st.sampled_from([0, 1, 6, 24]),
    horizon=st.sampled_from([24, 48, 168]),
)
def test_the_fast_way_is_the_slow_way(alerts, failures, replacements, landing, horizon):
    rules = Rules(horizon_hours=horizon, landing_hours=landing)
    alerts = {(m, 6 + 12 * n) for m, n in alerts}
    grid = [(m, h) for m in (1, 2, 3) for h in range(6, 240, 12)]
    closings = sorted(failures | replacements)
    found = judged(alerts, sorted(failures), machines=(1, 2, 3), closings=closings, rules=rules)
    as_found = (*counts(found), int(found.replaced_episodes.sum()), sorted(found.lead_hours.tolist()))
    assert as_found == slowly(grid, alerts, failures, replacements, 0, 240, rules)
