"""From a classifier's score to a probability to be taken at its word, and from there to the threshold that costs least."""

from dataclasses import dataclass

import numpy as np

from pdm_assets.models.events import Costs, Moments, Rules, cost_by_machine, judge
from pdm_assets.models.metrics import Bools, Floats, logistic_fit, logit, smoothed
from pdm_assets.models.served import calibrated

CANDIDATES = 60


@dataclass(frozen=True)
class Platt:
    """A probability as 1 / (1 + exp(-(slope logit(score) + intercept))), Platt 1999; slope 1 and intercept 0 change nothing."""

    slope: float = 1.0
    intercept: float = 0.0

    def of(self, score: Floats) -> Floats:
        """The probabilities of scores."""
        return calibrated(score, self.slope, self.intercept)


def fit_platt(score: Floats, fails: Bools) -> Platt:
    """The most likely slope and intercept, towards Platt's targets.

    The targets (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0 keep the fit finite where scores separate perfectly. Scores
    that tell nothing, or the wrong way round (slope not above 0), are left as they are: ranks must not turn.
    """
    if not fails.any() or fails.all():
        return Platt()
    slope, intercept = logistic_fit(logit(score), smoothed(fails))
    return Platt(slope, intercept) if slope > 0 else Platt()


def fair_threshold(costs: Costs) -> float:
    """Act when p >= cFA / (cFA + cFN - cTP): where a visit costs as much as it saves, of a calibrated probability."""
    return costs.false_visit / (costs.false_visit + costs.missed_failure - costs.planned_repair)


@dataclass(frozen=True)
class CostCurve:
    """What the alerts of a window would have cost, by the threshold that they were given from on; thresholds ascend."""

    thresholds: Floats
    costs: Floats


def cost_curve(
    probability: Floats,
    observations: Moments,
    failures: Moments,
    closings: Moments,
    *,
    start: int,
    end: int,
    rules: Rules,
    costs: Costs,
) -> CostCurve | None:
    """Costs of candidate thresholds in a window; None where no failure was due in it, for then no alert is the cheapest.

    Candidates lie halfway between probabilities that were seen, mostly among the highest, and at the fair threshold.
    """
    seen = np.unique(probability)
    if not len(seen):
        return None
    ranks = np.unique(np.linspace(0, 1, CANDIDATES) ** 0.25 * (len(seen) - 1)).astype(int)
    chosen = seen[np.unique(ranks)]
    # above the highest it is silent: the cheapest where the model is worth nothing
    edges = np.append(chosen, 1.0)
    candidates = np.unique([fair_threshold(costs), *((edges[1:] + edges[:-1]) / 2)])
    found = []
    for theta in candidates:
        judged = judge(observations, probability >= theta, failures, closings, start=start, end=end, rules=rules)
        if not judged.failures.any():
            return None
        found.append(float(cost_by_machine(judged, costs).sum()))
    return CostCurve(candidates, np.array(found))


def cheapest_threshold(curve: CostCurve | None, costs: Costs) -> float:
    """The threshold that would have cost least; of equals, the one nearest to the fair one, which it is without a curve.

    Few failures make wide plateaus of equal cost: the fair threshold then decides, not chance.
    """
    fair = fair_threshold(costs)
    if curve is None:
        return fair
    equals = curve.thresholds[curve.costs == curve.costs.min()]
    return float(equals[np.abs(equals - fair).argmin()])
