"""Thresholds and metrics of one component's probabilities: pure functions of arrays.

`probability` is float64 in [0, 1], `fails` is bool, one element per observation. A metric that the data
can't tell (no failing observation, none that is healthy) is None. Formulas: field notes 1.4.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DEFAULT_THRESHOLD = 0.5  # where nothing is known to choose by


@dataclass(frozen=True)
class Metrics:
    """How well probabilities and alerts foretold the outcomes of one window; counts are of observations."""

    rows: int
    positives: int
    average_precision: float | None
    roc_auc: float | None
    brier: float | None
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
    order = np.argsort(-probability, kind="stable")
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


def best_f1_threshold(probability: Floats, fails: Bools) -> float | None:
    """The threshold whose alerts (probability >= threshold) have the greatest F1; the higher one of equals.

    It lies halfway down to the next lower probability seen (to 0 after the last): at the probability itself,
    the smallest change would silence the very observation that set it. None if no observation fails.
    """
    if not fails.any():
        return None
    curve = precision_recall(probability, fails)
    total = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    best = int(np.argmax(f1))
    lower = np.append(curve.probability, 0.0)[best + 1]
    return float((curve.probability[best] + lower) / 2)


def evaluate(probability: Floats, fails: Bools, is_alert: Bools) -> Metrics:
    """All metrics of one component, or of several pooled."""
    true_alerts, false_alerts = int((is_alert & fails).sum()), int((is_alert & ~fails).sum())
    missed, true_quiet = int((~is_alert & fails).sum()), int((~is_alert & ~fails).sum())
    return Metrics(
        rows=len(fails),
        positives=int(fails.sum()),
        average_precision=average_precision(probability, fails),
        roc_auc=roc_auc(probability, fails),
        brier=float(np.mean((probability - fails) ** 2)) if len(fails) else None,
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
