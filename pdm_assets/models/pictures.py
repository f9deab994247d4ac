"""Pictures of a model, as PNG bytes for the metadata of its asset."""

import io
from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdm_assets.models.backtest import Fold
from pdm_assets.models.calibration import CostCurve
from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import POOLED, Outcomes
from pdm_assets.models.metrics import Floats, evaluate, precision_recall
from pdm_assets.models.windows import WindowName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pdm_assets.models.training import TrainedModel

TOP_FEATURES = 15
RELIABILITY_BINS = 10
LEAD_STEP_HOURS = 6
CURVE_STYLES: Mapping[WindowName, str] = {"calibration": "--", "test": "-"}


def pictures_of(trained: "TrainedModel") -> dict[str, bytes]:
    """Every picture of a trained model by its name."""
    test, card = {c: outcome.decided for c, outcome in trained.outcomes["test"].items()}, trained.card
    return {
        "precision_recall": precision_recall_picture(test, card),
        "reliability": reliability_picture(test, card),
        "lead_times": leads_picture(card),
        "cost_curves": costs_picture(trained.curves, card),
        "feature_importance": importance_picture(card),
    }


def precision_recall_picture(outcomes: Mapping[str, Outcomes], card: ModelCard) -> bytes:
    """Precision against recall of each component's observations, a dot where its threshold lies.

    A component that does not fail in the window has no curve; the legend says so.
    """
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    for position, (component, (probability, fails, *_)) in enumerate(outcomes.items()):
        colour = f"C{position}"
        if not fails.any():
            axes.plot([], [], color=colour, label=f"{component}: no failure in the window")
            continue
        curve = precision_recall(probability, fails)
        at_threshold = evaluate(probability, fails, probability >= card.thresholds[component])
        # the first point is drawn back to recall 0, where no alert has been given yet
        recall, precision = [0.0, *curve.recall], [curve.precision[0], *curve.precision]
        label = f"{component}: average precision {at_threshold.average_precision:.2f}, {fails.sum()} failing"
        axes.step(recall, precision, where="pre", color=colour, label=label)
        chosen_recall, chosen_precision = at_threshold.observation_recall, at_threshold.observation_precision
        if chosen_recall is not None and chosen_precision is not None:
            axes.plot(chosen_recall, chosen_precision, "o", color=colour)
    axes.set(
        xlim=(0, 1.02),
        ylim=(0, 1.02),
        xlabel="recall: share of failing observations that alert",
        ylabel="precision: share of alerts that are right",
        title=f"{card.version}: alerts {card.horizon_hours} h ahead\n(dot = chosen threshold)",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    return _png(figure)


def reliability_picture(outcomes: Mapping[str, Outcomes], card: ModelCard) -> bytes:
    """How often a component failed where such a probability was given, with 90 % intervals, and how often it was given.

    Ten bins of equal width, all components pooled.
    """
    probability = np.concatenate([outcome.probability for outcome in outcomes.values()])
    fails = np.concatenate([outcome.fails for outcome in outcomes.values()])
    edges = np.linspace(0, 1, RELIABILITY_BINS + 1)
    place = np.clip(np.digitize(probability, edges) - 1, 0, RELIABILITY_BINS - 1)
    count, failed, said = (
        np.bincount(place, weights=weights, minlength=RELIABILITY_BINS) for weights in (None, fails, probability)
    )
    seen = count > 0
    rate, mean = failed[seen] / count[seen], said[seen] / count[seen]
    low, high = wilson(failed[seen], count[seen])
    figure = _figure(7.0, 6.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="taken at its word")
    above.errorbar(mean, rate, yerr=[rate - low, high - rate], fmt="o-", capsize=3, label="observed, 90 % interval")
    errors = card.metrics["test"]
    known = [f"{name} {its.calibration_error:.3f}" for name, its in errors.items() if its.calibration_error is not None]
    above.set(
        ylim=(-0.02, 1.02),
        ylabel="share that failed",
        title=f"{card.version}: are probabilities to be taken at their word?\ncalibration error: {', '.join(known)}",
    )
    above.title.set_fontsize(10)
    above.legend(loc="upper left", fontsize=8)
    below.bar(edges[:-1], count, width=1 / RELIABILITY_BINS, align="edge", edgecolor="white")
    below.set(yscale="log", ylabel="how many", xlabel="probability given")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return _png(figure)


def leads_picture(card: ModelCard) -> bytes:
    """How long before the failure the first alert of each caught failure came, in steps of the observations."""
    figure = _figure(7.0, 4.0)
    axes = figure.add_subplot()
    observed = card.events[POOLED].observed
    leads = np.array(card.events[POOLED].leads_hours)
    # an episode may begin more than a horizon before its failure, as later alerts of it are what is right
    reach = max(card.horizon_hours, leads.max(initial=0))
    steps = np.arange(0, reach + LEAD_STEP_HOURS, LEAD_STEP_HOURS)
    # around each step, for leads are whole steps where observations and failures keep to them
    axes.hist(leads, bins=[*(steps - LEAD_STEP_HOURS / 2), steps[-1] + LEAD_STEP_HOURS / 2], edgecolor="white")
    if observed.lead_median_hours is not None:
        axes.axvline(observed.lead_median_hours, color="C1", label=f"median {observed.lead_median_hours:.0f} h")
        axes.legend(fontsize=8)
    axes.set(
        xticks=steps[:: max(1, len(steps) // 10)],
        xlabel="hours from the first alert to the failure, as observed",
        ylabel="failures caught",
        title=f"{card.version}: {observed.caught} of {observed.failures} failures caught, how early",
    )
    axes.title.set_fontsize(10)
    axes.grid(axis="y", alpha=0.3)
    return _png(figure)


def costs_picture(curves: Mapping[WindowName, Mapping[str, CostCurve | None]], card: ModelCard) -> bytes:
    """What alerts would have cost by threshold: where the threshold was chosen, and in the test window after it."""
    figure = _figure(8.0, 6.0)
    panels = figure.subplots(2, -(-len(card.thresholds) // 2), squeeze=False).flat
    for axes, component in zip(panels, card.thresholds, strict=False):
        for window, style in CURVE_STYLES.items():
            curve = curves[window].get(component)
            if curve is None:
                axes.plot([], [], style, color="grey", label=f"{window}: no failure was due")
                continue
            axes.step(curve.thresholds, curve.costs, style, where="mid", label=f"{window} window")
        axes.axvline(card.thresholds[component], color="C3", linewidth=1, label=f"chosen: {card.thresholds[component]:.3g}")
        axes.set(xscale="log", title=component, ylabel="cost", xlabel="threshold")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.suptitle(f"{card.version}: what alerts would have cost", fontsize=10)
    return _png(figure)


def backtest_picture(folds: Sequence[Fold]) -> bytes:
    """Cost, recall and precision of each month's fold, all components pooled; the best rule beside the models' cost."""
    pooled = sorted((fold for fold in folds if fold.component == POOLED), key=lambda fold: fold.cutoff)
    figure = _figure(8.0, 7.0)
    cost, recall, precision = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2, 2])
    for kind in sorted({fold.model_type for fold in pooled}):
        its = [fold for fold in pooled if fold.model_type == kind]
        days = [fold.cutoff for fold in its]
        cost.plot(days, [fold.cost for fold in its], "o-", label=kind)
        for axes, name in ((recall, "event_recall"), (precision, "alarm_precision")):
            axes.plot(days, [nan if (value := getattr(fold, name)) is None else value for fold in its], "o-")
    rules = {fold.cutoff: fold.best_rule_cost for fold in pooled}
    cost.plot(list(rules), list(rules.values()), "s:", color="grey", label="best rule of each fold")
    cost.set(ylabel="cost", title="Rolling-origin backtest: each month's model in the days before its cutoff")
    cost.set_ylim(bottom=0)
    cost.yaxis.set_major_formatter("{x:,.0f}")
    cost.legend(fontsize=8)
    recall.set(ylabel="failures caught", ylim=(-0.02, 1.02))
    precision.set(ylabel="alarms that\nare right", ylim=(-0.02, 1.02), xlabel="cutoff of the fold", xticks=list(rules))
    precision.tick_params(axis="x", rotation=45)
    for axes in (cost, recall, precision):
        axes.grid(alpha=0.3)
    return _png(figure)


def importance_picture(card: ModelCard) -> bytes:
    """The features that weigh most, as the mean share over the learnt components."""
    shares = dict(list(card.mean_importances().items())[:TOP_FEATURES])
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    axes.barh(list(shares), list(shares.values()))
    axes.invert_yaxis()
    axes.set(xlabel="share of importance, mean over components", title=f"{card.version}: what it looks at")
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def wilson(hits: NDArray[Any], of: NDArray[Any]) -> tuple[Floats, Floats]:
    """Wilson's 90 % interval of a share."""
    z = 1.645
    centre = (hits + z**2 / 2) / (of + z**2)
    half = z / (of + z**2) * np.sqrt(hits * (of - hits) / of + z**2 / 4)
    share = hits / of  # inside, also where rounding puts an end a last digit short of 0 or 1
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def _figure(width: float, height: float) -> "Figure":
    # Figure, not pyplot: no global state, no display, safe in any thread
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
