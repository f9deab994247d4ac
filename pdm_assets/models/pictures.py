"""Pictures of a model, as PNG bytes for the metadata of its asset."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import Outcomes
from pdm_assets.models.metrics import evaluate, precision_recall

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP_FEATURES = 15


def precision_recall_picture(outcomes: Mapping[str, Outcomes], card: ModelCard) -> bytes:
    """Precision against recall of each component's observations, a dot where its threshold lies.

    A component that does not fail in the window has no curve; the legend says so.
    """
    figure = _figure(7.0, 5.0)
    axes = figure.add_subplot()
    for position, (component, (probability, fails, _)) in enumerate(outcomes.items()):
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


def _figure(width: float, height: float) -> "Figure":
    # Figure, not pyplot: no global state, no display, safe in any thread
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
