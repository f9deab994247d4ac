"""One window's report: the model beside the rules, never acting and the calendar, as observed and as delivered."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pdm_assets.models.events import (
    DAY,
    Costs,
    EventMetrics,
    Judged,
    Moments,
    Rules,
    are_due,
    hours_ahead,
    judge,
    pool,
    resampled,
    summarize,
)
from pdm_assets.models.metrics import Bools, Floats, calibration_error
from pdm_assets.models.promotion import Contender
from pdm_assets.models.rules import Healthy, ages_at, by_the_calendar, never_acting, rule_alerts
from pdm_assets.models.windows import Window

POOLED = "pooled"  # beside the components: all of them together
LANDINGS = {"hourly files": 1, "six-hourly files": 6, "daily files": 24}
LEAST_ALERTS = 50  # observations that alert: with fewer, how many of them came true is mostly chance
LEAD_BANDS_HOURS = ((0, 6), (6, 24), (24, 48), (48, 168))


class Outcomes(NamedTuple):
    """What a model said of one component in a window and what came of it, one element per observation.

    Of some that is not known, for the component was replaced: metrics of observations are of those that are decided.
    """

    probability: Floats
    fails: Bools
    observations: Moments
    is_decided: Bools

    @property
    def decided(self) -> "Outcomes":
        """Those of which it is known what came of them."""
        chosen = self.is_decided
        return Outcomes(self.probability[chosen], self.fails[chosen], self.observations.where(chosen), chosen[chosen])


def pooled(components: Sequence[Outcomes]) -> tuple[Floats, Bools, Floats]:
    """Several components' decided outcomes as one: probability, whether it failed, and how often that component fails."""
    rates = [np.full(len(its.fails), its.fails.mean() if len(its.fails) else 0.0) for its in components]
    return (
        np.concatenate([its.probability for its in components]),
        np.concatenate([its.fails for its in components]),
        np.concatenate(rates),
    )


@dataclass(frozen=True)
class History:
    """What happened to one component of the fleet, as far as it was known."""

    failures: Moments
    closings: Moments  # failures and replacements


@dataclass(frozen=True)
class EventReport:
    """How a component's alerts, or all of them pooled, served a crew in one window.

    `intervals` are 90 % by drawing machines. `delivered` says the same when files land so often. `rules` are the baselines
    without learning. `saving` is the share of the cheaper of `never_cost` and `calendar_cost` that the model's alerts save.
    `recall_by_lead` is the share of the observations so many hours before a failure that alert. `leads_hours` are those from
    first alert to failure of the failures caught, as observed, the shortest first.
    """

    observed: EventMetrics
    intervals: Mapping[str, tuple[float, float]]
    delivered: Mapping[str, EventMetrics]
    rules: Mapping[str, EventMetrics]
    never_cost: float
    calendar_days: Mapping[str, int]
    calendar_cost: float
    saving: float | None
    alarmed_machines_per_day: float
    recall_by_lead: Mapping[str, float | None]
    leads_hours: tuple[float, ...]


@dataclass(frozen=True)
class Capacity:
    """A crew that visits so many machine components a day, those of the greatest probability at their last observation."""

    visits_a_day: int
    precision: float | None  # of the visits of which it is known: the share after which the component failed within the horizon
    recall: float | None  # share of the failures that were visited in time


def report(
    outcomes: Mapping[str, Outcomes],
    thresholds: Mapping[str, float],
    history: Mapping[str, History],
    signs: Mapping[str, Floats],
    healthy: Mapping[str, Healthy],
    *,
    window: Window,
    rules: Rules,
    costs: Costs,
) -> dict[str, EventReport]:
    """The report of each component and of all pooled.

    Args:
        outcomes: by component, of the window's observations, which are the same for all.
        thresholds: by component.
        history: by component; failures must be known for a horizon past the window.
        signs: the columns rules.RULE_FEATURES of the observations.
        healthy: usual values of the channels, from the training window.
        window: the days that were observed.
        rules: how alerts are judged; its landing_hours are those of "as observed".
        costs: of one event each.
    """
    start, end = _seconds(window.start_at), _seconds(window.end_at)

    def judged(component: str, is_alert: Bools, landing_hours: int = 0) -> Judged:
        its, past = outcomes[component].observations, history[component]
        as_landed = replace(rules, landing_hours=landing_hours)
        return judge(its, is_alert, past.failures, past.closings, start=start, end=end, rules=as_landed)

    alerts = {c: outcome.probability >= thresholds[c] for c, outcome in outcomes.items()}
    by_rule = {c: rule_alerts(c, signs, healthy) for c in outcomes}
    observed = {c: judged(c, alerts[c]) for c in outcomes}
    delivered = {name: {c: judged(c, alerts[c], hours) for c in outcomes} for name, hours in LANDINGS.items()}
    ruled = {name: {c: judged(c, by_rule[c][name]) for c in outcomes} for name in next(iter(by_rule.values()))}
    calendar = {c: _calendar(observed[c], history[c], start, end, rules, costs) for c in outcomes}

    def of(components: Sequence[str]) -> EventReport:
        together = pool([observed[c] for c in components])
        model = summarize(together, costs)
        never = float(never_acting(together, costs).sum())
        by_calendar = sum(calendar[c][1] for c in components)
        cheapest = min(never, by_calendar)
        any_alert = np.any([alerts[c] for c in components], axis=0)
        return EventReport(
            observed=model,
            intervals=resampled(together, costs),
            delivered={n: summarize(pool([parts[c] for c in components]), costs) for n, parts in delivered.items()},
            rules={n: summarize(pool([parts[c] for c in components]), costs) for n, parts in ruled.items()},
            never_cost=never,
            calendar_days={c: calendar[c][0] for c in components},
            calendar_cost=by_calendar,
            saving=1 - model.cost / cheapest if cheapest else None,
            alarmed_machines_per_day=machine_days(outcomes[components[0]].observations, any_alert) / ((end - start) / DAY),
            recall_by_lead=_recall_by_lead([(outcomes[c].observations, alerts[c], history[c]) for c in components]),
            leads_hours=tuple(np.sort(together.lead_hours).tolist()),
        )

    return {**{c: of([c]) for c in outcomes}, POOLED: of(list(outcomes))}


def contender(
    name: str,
    alerts: Mapping[str, Bools],
    outcomes: Mapping[str, Outcomes],
    history: Mapping[str, History],
    *,
    window: Window,
    rules: Rules,
) -> Contender:
    """What alerts by component did in a window, for the gate; `outcomes` has the probabilities behind them."""
    start, end = _seconds(window.start_at), _seconds(window.end_at)
    observations = next(iter(outcomes.values())).observations
    judged = {
        c: judge(observations, alerts[c], history[c].failures, history[c].closings, start=start, end=end, rules=rules)
        for c in outcomes
    }
    decided = {c: outcome.decided for c, outcome in outcomes.items()}
    said, came_true = said_and_came_true(
        [(its.probability, its.fails, alerts[c][outcomes[c].is_decided]) for c, its in decided.items()]
    )
    return Contender(
        name,
        judged,
        machine_days(observations, np.any(list(alerts.values()), axis=0)) / ((end - start) / DAY),
        {c: calibration_error(its.probability, its.fails) for c, its in decided.items()},
        said,
        came_true,
    )


def said_and_came_true(parts: Sequence[tuple[Floats, Bools, Bools]]) -> tuple[float, float] | tuple[None, None]:
    """The mean probability of the alerts and the share of them that failed; None where they are too few to tell.

    Failures are so rare that a calibration error over all observations stays small whatever the alerts say.

    Args:
        parts: probability, whether it fails and whether it alerts, of each component's observations.
    """
    alerts = np.concatenate([is_alert for _, _, is_alert in parts])
    if alerts.sum() < LEAST_ALERTS:
        return None, None
    probability, fails = (np.concatenate([part[n] for part in parts])[alerts] for n in (0, 1))
    return float(probability.mean()), float(fails.mean())


def at_capacity(
    outcomes: Mapping[str, Outcomes], history: Mapping[str, History], visits_a_day: int, *, window: Window, rules: Rules
) -> Capacity:
    """Precision and recall of the visits_a_day most probable machine components of each day, alerting or not.

    Whom to visit is decided in the evening, on the last observation of each machine: what an earlier one of the day said, and
    a failure that came in between, is over by then.
    """
    import pandas as pd

    observed = pd.concat(
        pd.DataFrame(
            {
                "component": component,
                "machine": outcome.observations.machine,
                "at": outcome.observations.at,
                "day": outcome.observations.at // DAY,
                "probability": outcome.probability,
                "fails": np.where(outcome.is_decided, outcome.fails, np.nan),
            }
        )
        for component, outcome in outcomes.items()
    )
    visits = (
        observed.sort_values("at")
        .groupby(["day", "machine", "component"])
        .tail(1)
        .sort_values(["day", "probability", "machine", "component"], ascending=[True, False, True, True])
        .groupby("day")
        .head(visits_a_day)
    )
    start, end = _seconds(window.start_at), _seconds(window.end_at)
    found = []
    for component, outcome in outcomes.items():
        its, past = outcome.observations, history[component]
        visited = pd.MultiIndex.from_frame(visits.loc[visits["component"] == component, ["machine", "at"]])
        is_visit = pd.MultiIndex.from_arrays([its.machine, its.at]).isin(visited)
        found.append(judge(its, is_visit, past.failures, past.closings, start=start, end=end, rules=rules))
    together = pool(found)
    failures = int(together.failures.sum())
    return Capacity(
        visits_a_day,
        float(visits["fails"].mean()) if visits["fails"].notna().any() else None,
        int(together.caught.sum()) / failures if failures else None,
    )


def _calendar(judged: Judged, history: History, start: int, end: int, rules: Rules, costs: Costs) -> tuple[int, float]:
    due = are_due(history.failures, judged.machine, start=start, end=end, rules=rules)
    return by_the_calendar(judged, ages_at(history.failures.where(due), history.closings), costs)


def machine_days(observations: Moments, chosen: Bools) -> int:
    """On how many days of how many machines one of the chosen observations was made."""
    machine, day = observations.machine[chosen], observations.at[chosen] // DAY
    return len(np.unique(np.unique(machine, return_inverse=True)[1] * (day.max(initial=0) + 1) + day))


def _recall_by_lead(parts: Sequence[tuple[Moments, Bools, History]]) -> dict[str, float | None]:
    ahead = np.concatenate([hours_ahead(observations, history.failures) for observations, _, history in parts])
    alerts = np.concatenate([is_alert for _, is_alert, _ in parts])
    found: dict[str, float | None] = {}
    for low, high in LEAD_BANDS_HOURS:
        inside = (ahead > low) & (ahead <= high)
        found[f"{low}-{high} h"] = float(alerts[inside].mean()) if inside.any() else None
    return found


def _seconds(at: dt.datetime) -> int:
    return int(at.timestamp())
