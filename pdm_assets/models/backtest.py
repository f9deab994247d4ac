"""The rolling-origin backtest: what a model trained for the first of each month would have been worth in the month before it.

A fold is the training of that day (training.train): fitted, calibrated and given thresholds on the days before its test window,
one horizon apart, so a fold's figures are of days that its model knew nothing of.
"""

import dataclasses
import datetime as dt
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.windows import LOOKBACK_DAYS, model_windows
from pdm_assets.settings import Settings

LEAST_TRAIN_DAYS = 90  # or PDM_TRAIN_DAYS, if that is less


class TooLittleHistory(ValueError):
    """The training window of a fold would be too short; the text says from when on it is not."""


@dataclass(frozen=True)
class Fold:
    """What one type of model was worth to a crew in the test window before a cutoff: one component, or all pooled."""

    cutoff: dt.date
    model_type: str
    component: str
    train_days: int
    observations: int
    failures: int
    caught: int
    event_recall: float | None
    lead_median_hours: float | None
    lead_24h_share: float | None
    true_episodes: int
    false_episodes: int
    alarm_precision: float | None
    false_alarms_per_machine_month: float | None
    cost: float
    never_cost: float
    calendar_cost: float
    best_rule: str
    best_rule_cost: float
    average_precision: float | None
    brier_skill: float | None
    calibration_error: float | None
    fit_seconds: float


@dataclass(frozen=True)
class MeanAndWorst:
    """Of the folds in which a figure is known."""

    mean: float
    worst: float


# Figures of a fold, and whether the worst is the least or the greatest.
SUMMARIZED: Mapping[str, bool] = {
    "cost": False,
    "event_recall": True,
    "alarm_precision": True,
    "false_alarms_per_machine_month": False,
    "lead_median_hours": True,
    "average_precision": True,
    "calibration_error": False,
    "fit_seconds": False,
}


def fold_days(days: Iterable[dt.date]) -> list[dt.date]:
    """Those of the days that are a fold's cutoff: the first of each month."""
    return sorted(day for day in days if day.day == 1)


def fold_settings(cutoff: dt.date, history_begins: dt.date, settings: Settings) -> Settings:
    """The settings with a training window that begins where complete observations do, if it can't be as long as it should.

    Raises:
        TooLittleHistory: if that leaves fewer than LEAST_TRAIN_DAYS.
    """
    begins = history_begins + dt.timedelta(days=LOOKBACK_DAYS)
    lacking = max(0, (begins - model_windows(cutoff, settings).train.start).days)
    least = min(LEAST_TRAIN_DAYS, settings.train_days)
    if settings.train_days - lacking < least:
        possible = cutoff + dt.timedelta(days=least - (settings.train_days - lacking))
        raise TooLittleHistory(
            f"{max(0, settings.train_days - lacking)} days are left to learn from before {cutoff}, it takes {least}: "
            f"folds work from {possible} on"
        )
    return dataclasses.replace(settings, train_days=settings.train_days - lacking)


def folds_of(card: ModelCard, fit_seconds: float) -> list[Fold]:
    """A trained model's test window as folds: each component, and pooled."""
    window = card.windows["train"].window
    found = []
    for component, report in card.events.items():
        rows, events = card.metrics["test"][component], report.observed
        best = min(report.rules, key=lambda name: report.rules[name].cost)
        of_events = {
            field.name: getattr(events, field.name) for field in dataclasses.fields(Fold) if hasattr(events, field.name)
        }
        found.append(
            Fold(
                cutoff=card.cutoff,
                model_type=card.model_type,
                component=component,
                train_days=(window.end - window.start).days,
                observations=card.windows["test"].rows,
                never_cost=report.never_cost,
                calendar_cost=report.calendar_cost,
                best_rule=best,
                best_rule_cost=report.rules[best].cost,
                average_precision=rows.average_precision,
                brier_skill=rows.brier_skill,
                calibration_error=rows.calibration_error,
                fit_seconds=fit_seconds,
                **of_events,
            )
        )
    return found


def terms_of(settings: Settings) -> str:
    """What a fold is foretold and charged by, in one text: folds of other terms do not compare."""
    return (
        f"{settings.horizon_hours} h ahead, {settings.least_lead_hours} h at least, seen every {settings.cadence_hours} h; "
        f"a missed failure {settings.cost_missed_failure:g}, a false visit {settings.cost_false_visit:g}, "
        f"a planned repair {settings.cost_planned_repair:g}"
    )


def last_twelve_months(folds: Sequence[Fold]) -> list[Fold]:
    """The folds of the newest cutoff and of the eleven months before it, the earliest first."""
    newest = max((fold.cutoff for fold in folds), default=dt.date.max)
    before = newest.replace(year=newest.year - 1)  # the first of a month: every year has it
    return sorted((fold for fold in folds if fold.cutoff > before), key=lambda fold: fold.cutoff)


def summarize(folds: Sequence[Fold], component: str = POOLED) -> dict[str, dict[str, MeanAndWorst]]:
    """Mean and worst fold of each type that is compared, cheapest type first, over the cutoffs that all of these have.

    The baselines stand beside the types, with their cost alone: "best rule" is the cheapest of each fold, with hindsight.
    """
    chosen = [fold for fold in folds if fold.component == component]
    types, shared = compared(chosen)
    if not shared:
        return {}
    by_type = {t: [f for f in chosen if f.model_type == t and f.cutoff in shared] for t in types}
    found = {t: _mean_and_worst(its, SUMMARIZED) for t, its in by_type.items()}
    any_type = by_type[types[0]]  # the baselines are the same for all of them
    for name, figure in (("best rule", "best_rule_cost"), ("calendar", "calendar_cost"), ("never acting", "never_cost")):
        found[name] = {"cost": _mean_and_worst(any_type, {figure: False})[figure]}
    return dict(sorted(found.items(), key=lambda item: item[1]["cost"].mean))


def compared(folds: Sequence[Fold]) -> tuple[list[str], set[dt.date]]:
    """The types of model that are compared, and the cutoffs that all of them have: types compare on the same days alone.

    Of those with the newest cutoff it is the type with most folds, and any other that has half of the cutoffs left or more: one
    trial of another type must not hide what the model in use was worth in the other months.
    """
    by_type: dict[str, set[dt.date]] = {}
    for fold in folds:
        by_type.setdefault(fold.model_type, set()).add(fold.cutoff)
    newest = max((fold.cutoff for fold in folds), default=None)
    types: list[str] = []
    shared: set[dt.date] = set()
    for name in sorted(by_type, key=lambda its: (newest not in by_type[its], -len(by_type[its]), its)):
        common = shared & by_type[name] if types else by_type[name]
        if 2 * len(common) >= len(shared):
            types, shared = [*types, name], common
    return types, shared


def _mean_and_worst(folds: Sequence[Fold], figures: Mapping[str, bool]) -> dict[str, MeanAndWorst]:
    found = {}
    for name, least_is_worst in figures.items():
        known = [value for fold in folds if (value := getattr(fold, name)) is not None]
        if known:
            found[name] = MeanAndWorst(statistics.fmean(known), min(known) if least_is_worst else max(known))
    return found
