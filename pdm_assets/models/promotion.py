"""The gate: a model takes charge only if it is better than the one in charge, on later rows that neither has learnt from.

Conditions are data: each has a name, what was found and whether it holds, so a refusal says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pdm_assets.models.events import Costs, Judged, cost_by_machine, pool
from pdm_assets.models.metrics import Floats

CONFIDENCE = 0.9
MARGIN = 0.1  # of its cost, by which a rule must be cheaper than a first model: a few visits more are no reason for no scores
LEAST_FAILURES = 10  # in the test window: with fewer, a rule that never alerts looks cheapest
WORST_RECALL_LOSS = 0.03
WORST_CALIBRATION_ERROR = 0.05
WORST_ALERT_GAP = 0.2  # between the mean probability of the alerts and the share of them that failed
ALARM_LOAD = (0.5, 2.0)  # of the incumbent's
WORST_ALARMED_SHARE = 0.5  # of the fleet a day, of a first model
RESAMPLES = 1_000


@dataclass(frozen=True)
class Contender:
    """What a model, or a rule, did with the rows that all are compared on."""

    name: str
    judged: Mapping[str, Judged]  # by component, of the same observations for all contenders
    alarmed_machines_per_day: float
    calibration_errors: Mapping[str, float | None]
    alerts_said: float | None = None  # mean probability of the alerts; None where they are too few
    alerts_came_true: float | None = None  # share of them that failed within the horizon


@dataclass(frozen=True)
class Condition:
    """One condition of the gate and what was found."""

    name: str
    is_met: bool
    found: str


@dataclass(frozen=True)
class Verdict:
    """Whether a model takes charge, and all conditions."""

    is_promoted: bool
    conditions: tuple[Condition, ...]

    @property
    def reason(self) -> str:
        """Why it was refused, or what it was promoted by."""
        said = [c for c in self.conditions if self.is_promoted or not c.is_met]
        return "; ".join(f"{c.name}: {c.found}" for c in said)


def decide(challenger: Contender, incumbent: Contender | None, rules: Sequence[Contender], costs: Costs) -> Verdict:
    """Weigh a challenger.

    Against an incumbent: cheaper with 90 % confidence (machines drawn in pairs) and no dearer than the best rule, no event
    recall of a component down by more than 0.03, an alarm load up to twice the incumbent's, or more by as much as it catches
    more, and where it catches less at least half of it. A first model, without which there would be no scores at all: it
    catches something, alerts on less than half of the fleet a day, and no rule is cheaper by a tenth with 90 % confidence,
    where ten failures or more can tell. Either: calibration errors up to 0.05, and alerts that come true about as often as
    they say.
    """
    conditions = [
        _calibrated(challenger),
        _alerts_come_true(challenger),
        _against_rules(challenger, rules, costs, certainly=incumbent is None),
    ]
    if incumbent is None:
        conditions += [_catches(challenger), _is_bearable(challenger)]
    else:
        conditions += [_cheaper(challenger, incumbent, costs), *_recalls(challenger, incumbent), _load(challenger, incumbent)]
    return Verdict(all(condition.is_met for condition in conditions), tuple(conditions))


def share_cheaper(
    one: Contender, other: Contender, costs: Costs, *, margin: float = 0.0, seed: int = 0
) -> tuple[float, float, float]:
    """Costs of both, and in which share of the resamples the one is cheaper, by more than a margin of the other's cost.

    Whole machines are drawn, the same for both: what the two have in common cancels out.
    """
    ours, theirs = (cost_by_machine(pool(list(c.judged.values())), costs) for c in (one, other))
    if not len(ours):
        return 0.0, 0.0, 0.0
    draws = np.random.default_rng(seed).multinomial(len(ours), np.full(len(ours), 1 / len(ours)), size=RESAMPLES)
    differences: Floats = draws @ ((1 - margin) * theirs - ours)
    return float(ours.sum()), float(theirs.sum()), float(np.mean(differences > 0))


def _cheaper(challenger: Contender, incumbent: Contender, costs: Costs) -> Condition:
    ours, theirs, share = share_cheaper(challenger, incumbent, costs)
    found = f"{ours:,.0f} against {theirs:,.0f} of {incumbent.name}, cheaper in {share:.0%}"
    return Condition(f"cheaper than the incumbent in {CONFIDENCE:.0%} of the resamples", share >= CONFIDENCE, found)


def _against_rules(challenger: Contender, rules: Sequence[Contender], costs: Costs, *, certainly: bool) -> Condition:
    margin = MARGIN if certainly else 0.0
    compared = [(rule, *share_cheaper(rule, challenger, costs, margin=margin)) for rule in rules]
    best, cost, ours, share = min(compared, key=lambda entry: entry[1])
    found = f"{ours:,.0f} against {cost:,.0f} of {best.name}"
    if not certainly:
        return Condition("no dearer than the best rule", ours <= cost, found)
    found += f", which is cheaper by {MARGIN:.0%} in {share:.0%}"
    if cost < ours:
        found += ". The rule costs less, but without a first model nothing is scored"
    failures = int(pool(list(challenger.judged.values())).failures.sum())
    if failures < LEAST_FAILURES:
        found = f"{failures} failures in the test window are too few to tell; {found}"
    return Condition(
        f"no rule is cheaper by {MARGIN:.0%} in {CONFIDENCE:.0%} of the resamples",
        share < CONFIDENCE or failures < LEAST_FAILURES,
        found,
    )


def _calibrated(challenger: Contender) -> Condition:
    name = f"calibration errors up to {WORST_CALIBRATION_ERROR}"
    known = {component: error for component, error in challenger.calibration_errors.items() if error is not None}
    if not known:
        return Condition(name, True, "none is known")
    worst = max(known, key=known.__getitem__)
    return Condition(name, known[worst] <= WORST_CALIBRATION_ERROR, f"{known[worst]:.3f} at most, of {worst}")


def _alerts_come_true(challenger: Contender) -> Condition:
    name = f"alerts come true within {WORST_ALERT_GAP} of what they say"
    said, came_true = challenger.alerts_said, challenger.alerts_came_true
    if said is None or came_true is None:
        return Condition(name, True, "too few alerts to tell")
    return Condition(name, abs(said - came_true) <= WORST_ALERT_GAP, f"they say {said:.2f}, {came_true:.2f} came true")


def _recalls(challenger: Contender, incumbent: Contender) -> list[Condition]:
    found = []
    for component, ours in challenger.judged.items():
        failures = int(ours.failures.sum())
        if not failures:
            continue
        now, before = (int(judged.caught.sum()) / failures for judged in (ours, incumbent.judged[component]))
        found.append(
            Condition(
                f"{component}'s event recall not down by more than {WORST_RECALL_LOSS}",
                before - now <= WORST_RECALL_LOSS + 1e-9,
                f"{now:.3f} against {before:.3f}",
            )
        )
    return found


def _load(challenger: Contender, incumbent: Contender) -> Condition:
    low, high = ALARM_LOAD
    ours, theirs = challenger.alarmed_machines_per_day, incumbent.alarmed_machines_per_day
    caught, before = (int(pool(list(c.judged.values())).caught.sum()) for c in (challenger, incumbent))
    # Who catches more alerts more: else an incumbent that is all but silent could never be replaced.
    most = high * theirs * max(1.0, caught / before) if before else _machines(challenger) * WORST_ALARMED_SHARE
    # Who is as good and alerts less is what a crew wants of the successor of a noisy incumbent.
    least = low * theirs if caught < before else 0.0
    return Condition(
        f"alarm load {low} to {high} times the incumbent's, more where more is caught, less where no less is",
        least <= ours <= most,
        f"{ours:.1f} machines a day, {caught} failures caught, against {theirs:.1f} and {before}",
    )


def _catches(challenger: Contender) -> Condition:
    together = pool(list(challenger.judged.values()))
    failures, caught = int(together.failures.sum()), int(together.caught.sum())
    found = f"{caught} of {failures}" if failures else "none was due: what it is worth is not known"
    return Condition("catches a failure where there was one", caught > 0 or failures == 0, found)


def _is_bearable(challenger: Contender) -> Condition:
    name, machines = f"alerts on less than {WORST_ALARMED_SHARE:.0%} of the fleet a day", _machines(challenger)
    if not machines:
        return Condition(name, False, "the test window has no observation with a known outcome: nothing can be told")
    share = challenger.alarmed_machines_per_day / machines
    return Condition(name, share < WORST_ALARMED_SHARE, f"{share:.1%}")


def _machines(contender: Contender) -> int:
    return len(next(iter(contender.judged.values())).machine)
