"""The gate: contenders worked by hand, each condition alone decides."""

import dataclasses

import numpy as np
import pytest

from pdm_assets.models.events import Costs, Judged
from pdm_assets.models.promotion import Contender, decide, share_cheaper

LOAD = "alarm load 0.5 to 2.0 times the incumbent's, more where more is caught, less where no less is"
COSTS = Costs(missed_failure=10_000, false_visit=500, planned_repair=2_000)
MACHINES = 40


def judged(failures, caught, false_episodes=()):
    """Counts by machine; each caught failure has its one right episode."""

    def counts(values):
        return np.array([*values, *[0] * (MACHINES - len(values))], dtype=np.int64)

    return Judged(
        machine=np.arange(MACHINES),
        failures=counts(failures),
        caught=counts(caught),
        true_episodes=counts(caught),
        false_episodes=counts(false_episodes),
        replaced_episodes=counts(()),
        machine_days=np.full(MACHINES, 30.0),
        lead_hours=np.full(sum(caught), 24.0),
        lead_machine=np.repeat(np.arange(MACHINES), counts(caught)),
    )


def contender(name="it", load=4.0, calibration_error=0.01, **components):
    return Contender(name, components, load, dict.fromkeys(components, calibration_error))


FAILURES = [1] * 20
ALL, NONE = FAILURES, [0] * 20
HALF = [1] * 10 + [0] * 10
GOOD = contender("good", comp1=judged(FAILURES, ALL))  # 20 repairs: 40,000
POOR = contender("poor", comp1=judged(FAILURES, HALF))  # 10 repairs, 10 missed: 120,000
RULE = contender("a rule", comp1=judged(FAILURES, ALL, [1] * 4))  # and 4 visits for nothing: 42,000


def unmet(verdict):
    return [condition.name for condition in verdict.conditions if not condition.is_met]


def test_a_challenger_that_costs_less_on_the_same_machines_takes_charge():
    verdict = decide(GOOD, POOR, [RULE], COSTS)
    assert verdict.is_promoted
    assert "40,000 against 120,000 of poor, cheaper in 100%" in verdict.reason
    assert [c.name for c in verdict.conditions] == [
        "calibration errors up to 0.05",
        "alerts come true within 0.2 of what they say",
        "no dearer than the best rule",
        "cheaper than the incumbent in 90% of the resamples",
        "comp1's event recall not down by more than 0.03",
        LOAD,
    ]


def test_one_that_is_no_better_does_not_and_the_reason_names_only_what_spoke_against_it():
    verdict = decide(GOOD, GOOD, [RULE], COSTS)
    assert not verdict.is_promoted
    assert verdict.reason == (
        "cheaper than the incumbent in 90% of the resamples: 40,000 against 40,000 of good, cheaper in 0%"
    )


def test_a_small_saving_of_few_machines_is_not_sure_enough():
    # One visit for nothing less, on one machine of 40: it is drawn at least once in 1 - (39/40)^40 = 64 % of the resamples.
    before = contender("before", comp1=judged(FAILURES, ALL, [1]))
    ours, theirs, share = share_cheaper(GOOD, before, COSTS)
    assert (ours, theirs) == (40_000, 40_500)
    assert share == pytest.approx(1 - (39 / 40) ** 40, abs=0.05)
    assert not decide(GOOD, before, [RULE], COSTS).is_promoted


def test_what_both_get_wrong_cancels_out():
    # Each misses ten failures of its own accord: 100,000 that vary from draw to draw, but not between the two.
    noisy, worse = ([1] * 20, HALF, [0] * 20), ([1] * 20, HALF, [0] * 20 + [1] * 12)
    _, _, share = share_cheaper(contender(comp1=judged(*noisy)), contender(comp1=judged(*worse)), COSTS)
    assert share == 1.0


@pytest.mark.parametrize(
    ("challenger", "incumbent", "rules", "against"),
    [
        (contender(comp1=GOOD.judged["comp1"], calibration_error=0.051), POOR, [RULE], "calibration errors up to 0.05"),
        (GOOD, POOR, [contender(comp1=judged(FAILURES[:-1], ALL[:-1]))], "no dearer than the best rule"),
        (
            contender(comp1=GOOD.judged["comp1"], load=16.1),
            POOR,
            [RULE],
            LOAD,
        ),
        (
            contender(comp1=judged(FAILURES, ALL), comp2=judged(FAILURES, [*ALL[:-1], 0])),
            contender(comp1=judged(FAILURES, HALF), comp2=judged(FAILURES, ALL)),
            [contender(comp1=RULE.judged["comp1"], comp2=judged(FAILURES, NONE))],
            "comp2's event recall not down by more than 0.03",
        ),
    ],
)
def test_each_condition_alone_is_enough_to_refuse(challenger, incumbent, rules, against):
    verdict = decide(challenger, incumbent, rules, COSTS)
    assert not verdict.is_promoted
    assert unmet(verdict) == [against]


def test_a_loss_of_recall_of_exactly_three_in_a_hundred_is_allowed():
    failures = [5] * 20  # 100
    before = contender(comp1=judged(failures, [5] * 20, [20] * 20))
    now = contender(comp1=judged(failures, [5] * 19 + [2]))
    rules = [contender(comp1=judged(failures, [0] * 20))]
    assert unmet(decide(now, before, rules, COSTS)) == []
    lower = contender(comp1=judged(failures, [5] * 19 + [1]))
    assert unmet(decide(lower, before, rules, COSTS)) == ["comp1's event recall not down by more than 0.03"]


@pytest.mark.parametrize(
    ("first", "rule", "against"),
    [
        (GOOD, RULE, []),
        # 44,000 against 40,000: surely dearer than the rule, but by less than a tenth; 46,000 is by more
        (contender(comp1=judged(FAILURES, ALL, [1] * 8)), GOOD, []),
        (contender(comp1=judged(FAILURES, ALL, [1] * 12)), GOOD, ["no rule is cheaper by 10% in 90% of the resamples"]),
        # of nine failures it catches none that the rule would: too few to tell
        (contender(comp1=judged([1] * 9, [1] + [0] * 8)), contender(comp1=judged([1] * 9, [1] * 9)), []),
        (POOR, RULE, ["no rule is cheaper by 10% in 90% of the resamples"]),
        (
            contender(comp1=judged(FAILURES, NONE)),
            contender(comp1=judged(FAILURES, NONE)),
            ["catches a failure where there was one"],
        ),
        (contender(comp1=GOOD.judged["comp1"], load=20.0), RULE, ["alerts on less than 50% of the fleet a day"]),
        (contender(comp1=judged([], [])), contender(comp1=judged([], [])), []),
    ],
)
def test_a_first_model_has_no_one_to_beat_but_must_be_of_use(first, rule, against):
    assert unmet(decide(first, None, [rule], COSTS)) == against


def test_a_first_model_that_no_observation_tells_anything_of_is_refused():
    unseen = contender(comp1=Judged(*[np.zeros(0, np.int64)] * 6, np.zeros(0), np.zeros(0), np.zeros(0, np.int64)), load=0.0)
    verdict = decide(unseen, None, [unseen], COSTS)
    assert not verdict.is_promoted
    assert "the test window has no observation with a known outcome" in verdict.reason


def test_the_same_contenders_get_the_same_verdict():
    before = contender("before", comp1=judged(FAILURES, ALL, [1] * 3))
    assert decide(GOOD, before, [RULE], COSTS) == decide(GOOD, before, [RULE], COSTS)


def test_a_silent_incumbent_can_be_replaced():
    silent = contender("silent", load=0.0, comp1=judged(FAILURES, NONE))
    assert decide(GOOD, silent, [RULE], COSTS).is_promoted
    everywhere = contender(comp1=GOOD.judged["comp1"], load=20.1)  # of 40 machines
    assert unmet(decide(everywhere, silent, [RULE], COSTS)) == [LOAD]


def test_a_noisy_incumbent_can_be_replaced_by_one_that_catches_as_much_with_fewer_alarms():
    noisy = contender("noisy", load=30.0, comp1=judged(FAILURES, ALL, [7] * MACHINES))
    assert decide(GOOD, noisy, [RULE], COSTS).is_promoted
    # who catches less, by as little as is allowed, is not to be all but silent
    failures = [5] * 20
    noisy = contender("noisy", load=30.0, comp1=judged(failures, [5] * 20, [20] * MACHINES))
    less = contender("less", load=14.9, comp1=judged(failures, [5] * 19 + [4]))
    rules = [contender(comp1=judged(failures, [0] * 20))]
    assert unmet(decide(less, noisy, rules, COSTS)) == [LOAD]
    assert decide(dataclasses.replace(less, alarmed_machines_per_day=15.0), noisy, rules, COSTS).is_promoted


@pytest.mark.parametrize(("came_true", "is_met"), [(0.55, True), (0.54, False), (0.95, True), (0.96, False), (None, True)])
def test_alerts_come_true_about_as_often_as_they_say(came_true, is_met):
    told = dataclasses.replace(GOOD, alerts_said=None if came_true is None else 0.75, alerts_came_true=came_true)
    assert unmet(decide(told, POOR, [RULE], COSTS)) == ([] if is_met else ["alerts come true within 0.2 of what they say"])
