"""Whether what a model sees still looks like what it learnt from: population stability, and a rule against odd days."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdm_assets.models.metrics import Floats

BINS = 10
WINDOW_DAYS = 7  # that a day's drift is measured over, the day included
MOVED = 0.25  # the usual reading of PSI: below 0.1 stable, above 0.25 moved
MORE_MISSING = 0.1  # of the observations
# An edge is a value that was seen, often that of most rows. The same value made elsewhere may differ in its last digits, as
# probabilities do, NumPy's in training and Spark's in scoring: it belongs to the same bin.
ROUNDING = 1e-9  # of the edge
# An odd day raises no alarm: it takes so many of the latest days, and the latest itself.
K, N = 3, 5

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """How a feature was distributed in a training window: shares between edges, of the values that were known.

    Bin i holds edges[i - 1] < value <= edges[i]. A feature with few distinct values has fewer bins than ten.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    missing: float


def reference_of(values: Floats, weights: Floats | None = None) -> Reference:
    """The reference of values, NaN being a missing one; edges are deciles."""
    weights = np.ones(len(values)) if weights is None else weights
    known = ~np.isnan(values)
    missing = float(weights[~known].sum() / weights.sum()) if len(values) else 1.0
    if not known.any():
        return Reference((), (), missing)
    deciles = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS))
    slack = ROUNDING * np.abs(deciles)
    edges = deciles + slack
    if len(edges) == 1:
        # all but a constant: with an edge right below it, one that falls leaves its bin as one that rises does
        below = deciles - slack if slack[0] else np.nextafter(deciles, -np.inf)
        edges = np.append(below, edges)
    bins = np.bincount(np.searchsorted(edges, values[known]), weights[known], minlength=len(edges) + 1)
    return Reference(tuple(edges.tolist()), tuple((bins / bins.sum()).tolist()), missing)


def count_by_day(values: Floats, day: NDArray[np.integer], days: int, reference: Reference) -> Counts:
    """How many values of each day fall in each bin, missing ones in the last column; shape (days, bins + 1).

    Args:
        values: NaN is missing.
        day: number of the day of each value, from 0 on.
        days: number of days.
        reference: whose bins.
    """
    width = len(reference.edges) + 2
    bins = np.where(np.isnan(values), width - 1, np.searchsorted(np.array(reference.edges), values))
    return np.bincount(day * width + bins, minlength=days * width).reshape(days, width)


def stability(reference: Reference, counts: Counts) -> float | None:
    """PSI = sum over bins of (q - p) ln(q / p) of the known values; None where there are none.

    Half a value is added to each bin of both, as an empty one would be infinitely far.

    Args:
        reference: p.
        counts: q, as of count_by_day, summed over days.
    """
    known = counts[:-1]
    if not known.sum() or not reference.shares:
        return None
    q = (known + 0.5) / (known.sum() + 0.5 * len(known))
    p = (np.array(reference.shares) * known.sum() + 0.5) / (known.sum() + 0.5 * len(known))
    return float(np.sum((q - p) * np.log(q / p)))


def limit_of(reference: Reference, machines: int) -> float:
    """PSI above which a feature has moved: MOVED and twice what chance alone gives.

    By chance PSI is about (bins - 1) / n. A machine's observations of one week resemble each other, so n counts machines.
    """
    return MOVED + 2 * (len(reference.shares) - 1) / machines if machines else MOVED


def is_lasting(flags: Sequence[bool]) -> bool:
    """K of the latest N windows, and the latest: `flags` are of consecutive windows, the latest last."""
    return bool(flags) and flags[-1] and sum(flags[-N:]) >= K
