"""A crew of limited visits: a small plant worked by hand."""

import datetime as dt

import numpy as np
import pytest

from pdm_assets.models.evaluation import Capacity, History, Outcomes, at_capacity
from pdm_assets.models.events import HOUR, Moments, Rules, hours_ahead
from pdm_assets.models.windows import Window

RULES = Rules(horizon_hours=48, least_lead_hours=6, cadence_hours=12)
FIVE_DAYS = Window(dt.date(1970, 1, 1), dt.date(1970, 1, 6))


def moments(*pairs):
    """(machine, hour) each."""
    return Moments(np.array([m for m, _ in pairs], np.int64), np.array([h * HOUR for _, h in pairs], np.int64))


def visited(probability, failures, *, without=(), visits=1):
    """Machines 1 and 2, observed at 06:00 and 18:00 of five days; `probability` by (machine, hour), else 0.1 and 0.2."""
    pairs = [(m, h) for m in (1, 2) for h in range(6, 120, 12) if (m, h) not in without]
    failed, observations = moments(*failures), moments(*pairs)
    said = np.array([probability.get(pair, pair[0] / 10) for pair in pairs])
    outcomes = {"comp1": Outcomes(said, hours_ahead(observations, failed) <= 48, observations)}
    return at_capacity(outcomes, {"comp1": History(failed, failed)}, visits, window=FIVE_DAYS, rules=RULES)


# Machine 1 fails at noon of the fourth day (84), machine 2 at noon of the fifth (108). One visit a day, each after 18:00.
FAILURES = [(1, 84), (2, 108)]


def test_whom_to_visit_is_decided_by_the_last_observation_of_the_day_and_so_is_whether_it_was_right():
    # machine 2 but on the third day: 18 wrong (90 h ahead), 42 wrong (66), machine 1 at 66 right (18), 90 right (18),
    # 114 wrong: it failed that noon. That machine 1 was the greatest on the fourth morning is past by the evening.
    found = visited({(1, 66): 0.8, (1, 78): 0.9}, FAILURES)
    assert found == Capacity(1, 2 / 5, 1.0)


def test_a_visit_that_comes_too_late_for_a_failure_has_not_caught_it():
    # machine 1 is visited on the fourth evening only, which is after its failure; machine 2 is then left out at 90
    found = visited({(1, 90): 0.9}, FAILURES)
    assert found == Capacity(1, 1 / 5, 1 / 2)


def test_a_machine_without_a_score_in_the_evening_is_judged_by_its_morning():
    assert visited({(1, 54): 0.8}, FAILURES) == Capacity(1, 2 / 5, 1 / 2)
    assert visited({(1, 54): 0.8}, FAILURES, without=[(1, 66)]) == Capacity(1, 2 / 5, 1.0)


def test_a_crew_for_all_visits_all():
    # of ten visits those within 48 h of a failure: machine 1 at 42 and 66, machine 2 at 66 and 90
    assert visited({}, FAILURES, visits=2) == Capacity(2, 4 / 10, 1.0)


def test_a_plant_without_failures_has_no_recall():
    assert visited({}, []) == Capacity(1, 0.0, None)


@pytest.mark.parametrize("failures", [[], FAILURES])
def test_a_window_without_scores_has_no_precision(failures):
    nothing = [(m, h) for m in (1, 2) for h in range(6, 120, 12)]
    assert visited({}, failures, without=nothing).precision is None
