"""What is to be said of a model and its backtest, in tables: for the metadata of assets and for the model's page."""

from collections.abc import Sequence
from dataclasses import dataclass

from pdm_assets.models import markdown
from pdm_assets.models.backtest import Fold, MeanAndWorst, compared, summarize
from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.events import EventMetrics
from pdm_assets.models.promotion import Verdict

CREW_HEAD = ("failures caught", "alarm precision", "false alarms a machine-month", "median lead", "cost")


@dataclass(frozen=True)
class Tabular:
    """A table of text: the heads of its columns and its rows, all as long."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown.table(self.head, self.rows)


def baselines(card: ModelCard) -> Tabular:
    """The model beside the rules, never acting and the calendar, all components pooled."""
    found = card.events[POOLED]
    rows = [(card.model_type, *_crew(found.observed))]
    rows += [(f"{card.model_type}, {landing}", *_crew(metrics)) for landing, metrics in found.delivered.items()]
    rows += [(f"rule: {name}", *_crew(metrics)) for name, metrics in found.rules.items()]
    days = ", ".join(f"{component} every {days} d" for component, days in found.calendar_days.items())
    rows.append(("never acting", f"0 of {found.observed.failures}", "", "", "", f"{found.never_cost:,.0f}"))
    rows.append((f"calendar ({days})", "", "", "", "", f"{found.calendar_cost:,.0f}"))
    return Tabular(("", *CREW_HEAD), tuple(rows))


def conditions(verdict: Verdict) -> Tabular:
    """What the gate asked of a model and what it found."""
    return Tabular(
        ("met", "condition", "found"), tuple(("yes" if c.is_met else "NO", c.name, c.found) for c in verdict.conditions)
    )


def components(card: ModelCard) -> Tabular:
    """Each component, and all pooled, in the test window: what a crew had of the alerts, and how good probabilities were."""
    rows = []
    for name, report in card.events.items():
        said = card.metrics["test"][name]
        rows.append(
            (
                name,
                *_crew(report.observed),
                _text(card.thresholds.get(name), "{:.3g}"),
                _text(said.average_precision, "{:.3f}"),
                _text(said.lift, "{:.0f}"),
                _text(said.brier, "{:.5f}"),
                _text(said.brier_skill, "{:.3f}"),
                _text(said.calibration_error, "{:.4f}"),
                _text(said.calibration_slope, "{:.2f}"),
                "" if said.alerts_said is None else f"{said.alerts_said:.0%} / {said.observation_precision or 0:.0%}",
            )
        )
    head = ("", *CREW_HEAD, "threshold", "PR-AUC", "lift", "Brier", "Brier skill", "calibration error", "slope")
    return Tabular((*head, "alerts said / came true"), tuple(rows))


def intervals(card: ModelCard) -> Tabular:
    """How sure that is: 90 % intervals by drawing the fleet's machines again and again, by component and pooled."""
    shown = {
        "event_recall": ("failures caught", "{:.1%}"),
        "alarm_precision": ("alarm precision", "{:.1%}"),
        "false_alarms_per_machine_month": ("false alarms a machine-month", "{:.3f}"),
        "lead_median_hours": ("median lead", "{:.0f} h"),
        "cost": ("cost", "{:,.0f}"),
    }
    rows = [
        (name, *(_from_to(report.intervals.get(metric), form) for metric, (_, form) in shown.items()))
        for name, report in card.events.items()
    ]
    return Tabular(("90 % sure", *(title for title, _ in shown.values())), tuple(rows))


def _from_to(interval: tuple[float, float] | None, form: str) -> str:
    return "" if interval is None else f"{form.format(interval[0])} to {form.format(interval[1])}"


def observations(card: ModelCard) -> Tabular:
    """Alerts by observation, to compare with the reference, which counts rows."""
    rows = []
    for name, said in card.metrics["test"].items():
        counts = (said.true_alerts, said.false_alerts, said.missed, said.true_quiet)
        shares = (said.observation_precision, said.observation_recall, said.observation_f1)
        rows.append((name, *(f"{count:,}" for count in counts), *(_text(share, "{:.3f}") for share in shares)))
    return Tabular(("", "right alerts", "false alerts", "missed", "rightly quiet", "precision", "recall", "F1"), tuple(rows))


def leads(card: ModelCard) -> Tabular:
    """Share of the observations so long before a failure that alert: where the signal ends."""
    bands = tuple(card.events[POOLED].recall_by_lead)
    rows = [
        (
            name,
            *(_text(report.recall_by_lead[band], "{:.1%}") for band in bands),
            _text(report.observed.lead_24h_share, "{:.1%}"),
            _text(report.observed.lead_p10_hours, "{:.0f} h"),
        )
        for name, report in card.events.items()
    ]
    head = ("", *(f"{band} before" for band in bands), "caught 24 h ahead or more", "a tenth are caught less than")
    return Tabular(head, tuple(rows))


def backtest(folds: Sequence[Fold]) -> Tabular:
    """Mean and worst fold of each type of model, all components pooled, and what the baselines cost; the cheapest first.

    A type that has too few folds to be compared has a line that says how many.
    """
    shown = {
        "cost": ("cost", "{:,.0f}"),
        "event_recall": ("failures caught", "{:.1%}"),
        "alarm_precision": ("alarm precision", "{:.1%}"),
        "false_alarms_per_machine_month": ("false alarms a machine-month", "{:.3f}"),
        "lead_median_hours": ("median lead", "{:.0f} h"),
        "average_precision": ("PR-AUC", "{:.3f}"),
        "calibration_error": ("calibration error", "{:.4f}"),
        "fit_seconds": ("fit", "{:.1f} s"),
    }
    rows = [
        (name, *(_mean_and_worst(figures.get(figure), form) for figure, (_, form) in shown.items()))
        for name, figures in summarize(folds).items()
    ]
    types, shared = compared(folds)
    cutoffs = {(fold.model_type, fold.cutoff) for fold in folds}
    for name in sorted({fold.model_type for fold in folds} - set(types)):
        of = sum(model_type == name for model_type, _ in cutoffs)
        rows.append((f"{name}: {of} folds, too few in common", *("" for _ in shown)))
    return Tabular((f"mean (worst) of {len(shared)} folds", *(title for title, _ in shown.values())), tuple(rows))


def _mean_and_worst(found: MeanAndWorst | None, form: str) -> str:
    return "" if found is None else f"{form.format(found.mean)} ({form.format(found.worst)})"


def _crew(metrics: EventMetrics) -> tuple[str, ...]:
    return (
        f"{metrics.caught} of {metrics.failures}{_text(metrics.event_recall, ' ({:.1%})')}",
        _text(metrics.alarm_precision, "{:.1%}"),
        _text(metrics.false_alarms_per_machine_month, "{:.3f}"),
        _text(metrics.lead_median_hours, "{:.0f} h"),
        f"{metrics.cost:,.0f}",
    )


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
