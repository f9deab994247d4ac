"""Metrics of one component's probabilities, observation by observation: pure functions of arrays.

`probability` is float64 in [0, 1], `fails` is bool, one element per observation. A metric that the data
can't tell (no failing observation, none that is healthy) is None.
Sources: Brier, Monthly Weather Review 78 (1950), and his score's skill; the expected calibration error of Naeini, Cooper and
Hauskrecht, AAAI 2015, with bins of equal mass; Platt, Advances in Large Margin Classifiers (1999), for smoothed targets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CALIBRATION_BINS = 10
LEAST = 1e-6  # probabilities of 0 and 1 have no logit
NEWTON_STEPS = 50


@dataclass(frozen=True)
class Metrics:
    """How well probabilities and alerts foretold the outcomes of one window; counts are of observations.

    Slope and intercept are those of logit(outcome) on logit(probability): 1 and 0 where probabilities come true, a slope below
    1 where they are too sure. `alerts_said` is the mean probability of the alerts, to be held against observation_precision.
    """

    rows: int
    positives: int
    average_precision: float | None
    roc_auc: float | None
    brier: float | None
    brier_skill: float | None
    calibration_error: float | None
    calibration_slope: float | None
    calibration_intercept: float | None
    alerts_said: float | None
    lift: float | None
    observation_precision: float | None
    observation_recall: float | None
    observation_f1: float | None
    true_alerts: int
    false_alerts: int
    missed: int
    true_quiet: int


@dataclass(frozen=True)
class PrecisionRecall:
    """One point per distinct probability, highest first: what alerting from that probability on gives."""

    probability: Floats
    precision: Floats
    recall: Floats


def precision_recall(probability: Floats, fails: Bools) -> PrecisionRecall:
    """The precision-recall curve. Observations of equal probability alert together, so they are one point.

    Raises:
        ValueError: if no observation fails, for then recall has no meaning.
    """
    if not fails.any():
        raise ValueError("no failing observation: recall is undefined")
    order = np.argsort(probability, kind="stable")[::-1]  # quick where they are in order, or several such runs
    ranked = probability[order]
    last_of_equals = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    caught = np.cumsum(fails[order])[last_of_equals]
    return PrecisionRecall(ranked[last_of_equals], caught / (last_of_equals + 1), caught / fails.sum())


def average_precision(probability: Floats, fails: Bools) -> float | None:
    """Area under the precision-recall curve: sum over k of (R_k - R_{k-1}) P_k, no interpolation."""
    if not fails.any():
        return None
    curve = precision_recall(probability, fails)
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def roc_auc(probability: Floats, fails: Bools) -> float | None:
    """Chance that a failing observation ranks above a healthy one; equal probabilities count one half."""
    positives, negatives = int(fails.sum()), int((~fails).sum())
    if positives == 0 or negatives == 0:
        return None
    _, place, ties = np.unique(probability, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(ties) - (ties - 1) / 2
    rank_sum = mean_rank[place][fails].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def brier(probability: Floats, fails: Bools) -> float | None:
    """BS = mean (p - y)^2."""
    return float(np.mean((probability - fails) ** 2)) if len(fails) else None


def brier_skill(probability: Floats, fails: Bools, rate: Floats | None = None) -> float | None:
    """1 - BS / BS of always saying the failure rate: above 0, the probabilities tell more than that rate.

    None where that rate says it all: everything fails, or nothing, of each component.
    `rate` is that of each observation's component where several are pooled; else it is the window's.
    """
    score = brier(probability, fails)
    if score is None or fails.all() or not fails.any():
        return None
    usual = np.full(len(fails), fails.mean()) if rate is None else rate
    reference = float(np.mean((usual - fails) ** 2))
    return 1 - score / reference if reference else None


def calibration_error(probability: Floats, fails: Bools) -> float | None:
    """ECE = sum over bins of (n_b / N) |mean y_b - mean p_b|, ten bins of equal mass by probability.

    Equal probabilities may lie in two bins: each counts with the failure rate of all of them, whatever the order of rows.
    """
    if not len(fails):
        return None
    order = np.argsort(probability, kind="stable")
    ranked, failed = probability[order], fails[order]
    first_of_equals = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    ties = np.diff(np.append(first_of_equals, len(ranked)))
    rate = np.repeat(np.add.reduceat(failed.astype(float), first_of_equals) / ties, ties)
    bins = np.array_split(rate - ranked, min(CALIBRATION_BINS, len(ranked)))
    return float(sum(abs(float(np.sum(b))) for b in bins) / len(ranked))


def logit(probability: Floats) -> Floats:
    """log(p / (1 - p)), of probabilities kept off 0 and 1."""
    kept = np.clip(probability, LEAST, 1 - LEAST)
    return np.log(kept / (1 - kept))


def logistic_fit(x: Floats, target: Floats) -> tuple[float, float]:
    """The most likely slope and intercept of logit(target) on x, by Newton's method; targets may lie between 0 and 1."""
    columns = np.column_stack([x, np.ones(len(x))])
    beta = np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-columns @ beta))
        curvature = columns.T @ (columns * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, columns.T @ (target - p))
        beta = beta + step / max(1.0, float(np.abs(step).max()))  # no leap beyond where the parabola holds
        if np.abs(step).max() < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def calibration_line(probability: Floats, fails: Bools) -> tuple[float, float] | None:
    """Slope and intercept of logit(outcome) on logit(probability); None where outcomes, or probabilities, are all alike.

    Towards Platt's targets, so that probabilities that separate perfectly have a finite one.
    """
    if not fails.any() or fails.all() or np.ptp(probability) == 0:
        return None
    return logistic_fit(logit(probability), smoothed(fails))


def smoothed(fails: Bools) -> Floats:
    """Platt's targets (n + 1) / (n + 2) and 1 / (n + 2) for 1 and 0, n being how many there are of each."""
    positives, negatives = int(fails.sum()), int((~fails).sum())
    return np.where(fails, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def evaluate(probability: Floats, fails: Bools, is_alert: Bools, rate: Floats | None = None) -> Metrics:
    """All metrics of one component, or of several pooled; `rate` as of brier_skill."""
    precision = average_precision(probability, fails)
    true_alerts, false_alerts = int((is_alert & fails).sum()), int((is_alert & ~fails).sum())
    missed, true_quiet = int((~is_alert & fails).sum()), int((~is_alert & ~fails).sum())
    line = calibration_line(probability, fails)
    return Metrics(
        rows=len(fails),
        positives=int(fails.sum()),
        average_precision=precision,
        roc_auc=roc_auc(probability, fails),
        brier=brier(probability, fails),
        brier_skill=brier_skill(probability, fails, rate),
        calibration_error=calibration_error(probability, fails),
        calibration_slope=line[0] if line else None,
        calibration_intercept=line[1] if line else None,
        alerts_said=float(probability[is_alert].mean()) if is_alert.any() else None,
        lift=None if precision is None else precision / float(fails.mean()),
        observation_precision=_ratio(true_alerts, true_alerts + false_alerts),
        observation_recall=_ratio(true_alerts, true_alerts + missed),
        observation_f1=_ratio(2 * true_alerts, 2 * true_alerts + false_alerts + missed),
        true_alerts=true_alerts,
        false_alerts=false_alerts,
        missed=missed,
        true_quiet=true_quiet,
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
