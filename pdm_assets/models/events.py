"""What a crew asks of alerts: which failures were warned of, how early, at how many visits for nothing, at what cost.

Pure functions of arrays, one component at a time. Times are whole seconds since 1970, UTC.

An alert is right if the component fails between the least useful lead time and the horizon after it, [observed_at + least_lead,
observed_at + horizon], and was not closed in between: a part put in after the alert is not the one that it told of.
Consecutive alerts of a machine make one episode, for the crew looks once. One whose component was replaced before it failed is
neither right nor wrong: whether it would have failed nobody knows, least of all where the crew did as it was told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdm_assets.models.metrics import Bools, Floats
from pdm_assets.settings import Settings

Ints = NDArray[np.int64]

HOUR, DAY = 3_600, 86_400
EPISODE_GAP = 24 * HOUR  # alerts further apart than this are two episodes
DAYS_A_MONTH = 30.44


@dataclass(frozen=True)
class Moments:
    """Things that happened to machines: element i to machine[i] at the second at[i]. In any order."""

    machine: Ints
    at: Ints

    def where(self, chosen: Bools | Ints | slice) -> "Moments":
        """Those that are chosen, by a mask, in an order, or by a slice."""
        return Moments(self.machine[chosen], self.at[chosen])


@dataclass(frozen=True)
class Rules:
    """How alerts are judged.

    Args:
        horizon_hours: how far ahead a failure may lie.
        least_lead_hours: a warning later than this before the failure is none.
        cadence_hours: hours between two observations of a machine, for machine-days.
        landing_hours: data lands every so many hours from midnight on, and an alert is given when its reading has
            landed; 0 judges as observed, as if there were no way to the crew.
    """

    horizon_hours: int
    least_lead_hours: int = 6
    cadence_hours: int = 12
    landing_hours: int = 0

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """Those of the settings, as observed."""
        return cls(settings.horizon_hours, settings.least_lead_hours, settings.cadence_hours)


@dataclass(frozen=True)
class Costs:
    """Costs of one event each, in any one unit."""

    missed_failure: float
    false_visit: float
    planned_repair: float

    @classmethod
    def of(cls, settings: Settings) -> "Costs":
        """Those of the settings."""
        return cls(settings.cost_missed_failure, settings.cost_false_visit, settings.cost_planned_repair)


@dataclass(frozen=True)
class Judged:
    """What became of one component's alerts in a window, by machine: element i is of machine[i].

    An episode is true if one of its alerts is right; else replaced, if the component was replaced within the horizon of its
    first alert and had not failed before; else false.
    `lead_hours` has an element per failure that was warned of, `lead_machine` is its machine's position in `machine`.
    `judged_share` is the share of the window in which failures are judged: what is charged by the day, not by the failure, is
    charged for as much of it.
    """

    machine: Ints
    failures: Ints
    caught: Ints
    true_episodes: Ints
    false_episodes: Ints
    replaced_episodes: Ints
    machine_days: Floats
    lead_hours: Floats
    lead_machine: Ints
    judged_share: float = 1.0


@dataclass(frozen=True)
class EventMetrics:
    """How good the alerts of a window were to a crew; None where nothing happened to tell by.

    Leads are those of the failures caught, from the first alert: the median, the tenth of them that is shortest, and the share
    with a day or more.
    """

    failures: int
    caught: int
    event_recall: float | None
    lead_median_hours: float | None
    lead_p10_hours: float | None
    lead_24h_share: float | None
    true_episodes: int
    false_episodes: int
    alarm_precision: float | None
    false_alarms_per_machine_month: float | None
    cost: float
    replaced_episodes: int = 0  # cards of earlier releases do not say


def delivered_at(observed_at: Ints, landing_hours: int) -> Ints:
    """When an observation's last reading has landed: the end of the file that it is in.

    A file holds the readings of [k n, (k + 1) n) hours and lands at its end, so with one file a day what was observed at
    06:00 is known at midnight.
    """
    if landing_hours == 0:
        return observed_at
    every = landing_hours * HOUR
    return (observed_at // every + 1) * every


def episodes(alerts: Moments, closings: Moments) -> tuple[Moments, Ints]:
    """The alerts by machine and time, and the number of the episode that each belongs to, from 0 on.

    An episode ends where the next alert is more than 24 h away, or where the component failed or was replaced in between: an
    alert at the very instant of a closing still belongs to what is closed, for the readings behind it are from before.
    """
    order = np.lexsort((alerts.at, alerts.machine))
    alerts = alerts.where(order)
    keys = _Keys(alerts, closings)
    closed_before = np.searchsorted(np.sort(keys.of(closings)), keys.of(alerts), side="left")
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(alerts.machine) != 0) | (np.diff(alerts.at) > EPISODE_GAP) | (np.diff(closed_before) != 0)
    return alerts, np.cumsum(begins) - 1


def judge(
    observations: Moments,
    is_alert: Bools,
    failures: Moments,
    closings: Moments,
    *,
    start: int,
    end: int,
    rules: Rules,
) -> Judged:
    """Judge the alerts of the observations in [start, end) by the failures up to `end` + horizon.

    Judged failures are those in [start + horizon, end): all that could warn of them was observed. An alert of the window's
    last hours is judged by a failure after its end, so the failures must be known for a horizon more.

    Args:
        observations: the scored observations of one component, all in [start, end).
        is_alert: which of them alert.
        failures: failures of the component, of any time.
        closings: failures and replacements of the component, of any time.
        start: first second of the window.
        end: first second after it.
        rules: what counts as a warning.
    """
    machines, counts = np.unique(observations.machine, return_counts=True)
    alerts = observations.where(is_alert)
    return judge_alerts(alerts, (machines, counts), failures, closings, start=start, end=end, rules=rules)


def judge_alerts(
    alerts: Moments, observed: tuple[Ints, Ints], failures: Moments, closings: Moments, *, start: int, end: int, rules: Rules
) -> Judged:
    """As `judge`, where it is known already which machines were observed, in order, and how often each."""
    horizon, least = rules.horizon_hours * HOUR, rules.least_lead_hours * HOUR
    machines, counts = observed
    alerts, episode = episodes(alerts, closings)
    keys = _Keys(alerts, failures, closings)

    given = delivered_at(alerts.at, rules.landing_hours)
    failure_keys, closing_keys = np.sort(keys.of(failures)), np.sort(keys.of(closings))
    alert_keys, given_keys = keys.of(alerts), keys.of(Moments(alerts.machine, given))
    # What closes the component at the alert's instant or first after it: a failure of later tells nothing of the alert.
    closed_at = _next(closing_keys, alert_keys, keys.beyond)
    next_failure = _next(failure_keys, given_keys + least, keys.beyond)
    is_right = (next_failure <= alert_keys + horizon) & (next_failure <= closed_at)
    begins = np.unique(episode, return_index=True)[1]
    machine_of_episode = np.searchsorted(machines, alerts.machine[begins])
    is_true = np.zeros(len(begins), bool)
    np.logical_or.at(is_true, episode, is_right)
    closed = closed_at[begins]
    is_replaced = ~is_true & (closed <= alert_keys[begins] + horizon) & ~np.isin(closed, failure_keys)

    due = failures.where(are_due(failures, machines, start=start, end=end, rules=rules))
    due_keys = keys.of(due)
    # The first alert inside the horizon and after the closing before the failure is also the first to be given.
    opened = np.append(-1, closing_keys)[np.searchsorted(closing_keys, due_keys, side="left")]
    first = np.searchsorted(alert_keys, np.maximum(due_keys - horizon, opened + 1), side="left")
    first_given = np.append(given_keys, keys.beyond)[first]
    is_caught = first_given <= due_keys - least
    place = np.searchsorted(machines, due.machine)

    def by_machine(places: Ints) -> Ints:
        return np.bincount(places, minlength=len(machines)).astype(np.int64)

    return Judged(
        machine=machines,
        failures=by_machine(place),
        caught=by_machine(place[is_caught]),
        true_episodes=by_machine(machine_of_episode[is_true]),
        false_episodes=by_machine(machine_of_episode[~is_true & ~is_replaced]),
        replaced_episodes=by_machine(machine_of_episode[is_replaced]),
        machine_days=counts * rules.cadence_hours / 24,
        lead_hours=(due_keys - first_given)[is_caught] / HOUR,
        lead_machine=place[is_caught],
        judged_share=1 - horizon / max(end - start, horizon),
    )


def are_due(failures: Moments, machines: Ints, *, start: int, end: int, rules: Rules) -> Bools:
    """Which failures are judged in the window [start, end): those of its machines that all warnings of were observed."""
    return (failures.at >= start + rules.horizon_hours * HOUR) & (failures.at < end) & np.isin(failures.machine, machines)


def hours_ahead(observations: Moments, failures: Moments) -> Floats:
    """Hours from each observation to the next failure of its machine after it, infinite where none is known."""
    keys = _Keys(observations, failures)
    observed = keys.of(observations)
    following = _next(np.sort(keys.of(failures)), observed + 1, keys.beyond)
    # the next key is of this machine only if it lies within its width
    return np.where(following // keys.width == observed // keys.width, (following - observed) / HOUR, np.inf)


def are_decided(observations: Moments, failures: Moments, closings: Moments, horizon_hours: int) -> Bools:
    """Of which observations it is known whether the part that was observed fails within the horizon.

    Not where it was taken out first, nor at the very instant at which it failed: what is observed then is over. (What a crew
    that does as it is told takes out never fails: learnt from as healthy, it would teach the next model to keep quiet.)

    Args:
        observations: of the component.
        failures: failures of the component, of any time.
        closings: failures and replacements of the component, of any time.
        horizon_hours: from each observation on.
    """
    keys = _Keys(observations, closings)
    observed = keys.of(observations)
    closed = _next(np.sort(keys.of(closings)), observed, keys.beyond)
    fails = np.isin(closed, keys.of(failures)) & (closed > observed)
    return fails | (closed > observed + horizon_hours * HOUR)


def pool(parts: Sequence[Judged]) -> Judged:
    """Several components of the same observations as one: counts add up, machine-days are theirs once."""
    first = parts[0]
    return Judged(
        machine=first.machine,
        failures=np.sum([part.failures for part in parts], axis=0),
        caught=np.sum([part.caught for part in parts], axis=0),
        true_episodes=np.sum([part.true_episodes for part in parts], axis=0),
        false_episodes=np.sum([part.false_episodes for part in parts], axis=0),
        replaced_episodes=np.sum([part.replaced_episodes for part in parts], axis=0),
        machine_days=first.machine_days,
        lead_hours=np.concatenate([part.lead_hours for part in parts]),
        lead_machine=np.concatenate([part.lead_machine for part in parts]),
        judged_share=first.judged_share,
    )


def summarize(judged: Judged, costs: Costs) -> EventMetrics:
    """The metrics of a window from the counts by machine."""
    failures, caught = int(judged.failures.sum()), int(judged.caught.sum())
    right, wrong = int(judged.true_episodes.sum()), int(judged.false_episodes.sum())
    months = judged.machine_days.sum() / DAYS_A_MONTH
    leads = judged.lead_hours
    return EventMetrics(
        failures=failures,
        caught=caught,
        event_recall=caught / failures if failures else None,
        lead_median_hours=float(np.median(leads)) if len(leads) else None,
        lead_p10_hours=float(np.percentile(leads, 10)) if len(leads) else None,
        lead_24h_share=float(np.mean(leads >= 24)) if len(leads) else None,
        true_episodes=right,
        false_episodes=wrong,
        alarm_precision=right / (right + wrong) if right + wrong else None,
        false_alarms_per_machine_month=float(wrong / months) if months else None,
        cost=float(cost_by_machine(judged, costs).sum()),
        replaced_episodes=int(judged.replaced_episodes.sum()),
    )


def cost_by_machine(judged: Judged, costs: Costs) -> Floats:
    """C = cFA FalseEp + cFN Missed + cTP Caught, for each machine.

    Failures of the window's first horizon are not judged, so of its false episodes as large a share is not charged. What a
    replaced episode saved or cost is not known, and not charged.

    Not cTP TrueEp, as is often written: a failure is repaired once, however many episodes told of it, and an episode that
    tells of a failure after the window is charged to no window that counts the failure: with TrueEp, whoever warns earlier pays
    for repairs that whoever warns late does not.
    """
    return (
        costs.false_visit * judged.judged_share * judged.false_episodes
        + costs.missed_failure * (judged.failures - judged.caught)
        + costs.planned_repair * judged.caught
    )


def resampled(judged: Judged, costs: Costs, resamples: int = 1_000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """90 % intervals of the metrics that are ratios of counts, of the median lead and of cost, by drawing whole machines.

    A machine's episodes depend on each other, machines do not: so machines are drawn, not rows.
    """
    if not len(judged.machine):
        return {}
    draws = np.random.default_rng(seed).multinomial(
        len(judged.machine), np.full(len(judged.machine), 1 / len(judged.machine)), size=resamples
    )

    def totals(by_machine: NDArray[Any]) -> Floats:
        return (draws @ by_machine).astype(float)

    with np.errstate(invalid="ignore", divide="ignore"):
        right, wrong = totals(judged.true_episodes), totals(judged.false_episodes)
        drawn = {
            "event_recall": totals(judged.caught) / totals(judged.failures),
            "alarm_precision": right / (right + wrong),
            "false_alarms_per_machine_month": wrong / (totals(judged.machine_days) / DAYS_A_MONTH),
            "cost": totals(cost_by_machine(judged, costs)),
            "lead_median_hours": _medians(judged, draws),
        }
    known = {name: values[np.isfinite(values)] for name, values in drawn.items()}
    return {
        name: (float(np.percentile(values, 5)), float(np.percentile(values, 95)))
        for name, values in known.items()
        if len(values)
    }


def _next(ordered: Ints, wanted: Ints, beyond: int) -> Ints:
    """The first of the ordered keys that is not before each wanted one, `beyond` where there is none."""
    return np.append(ordered, beyond)[np.searchsorted(ordered, wanted, side="left")]


def _medians(judged: Judged, draws: NDArray[Any]) -> Floats:
    """The median lead of each draw of machines, NaN where it has none."""
    order = np.argsort(judged.lead_hours)
    if not len(order):
        return np.full(len(draws), np.nan)
    weights = np.cumsum(draws[:, judged.lead_machine[order]], axis=1)
    median = judged.lead_hours[order][np.argmax(weights * 2 >= weights[:, -1:], axis=1)]
    return np.where(weights[:, -1] > 0, median, np.nan)


class _Keys:
    """One number for a machine and a second, in the order of (machine, second), so that a search stays with its machine."""

    def __init__(self, *moments: Moments) -> None:
        machines = np.unique(np.concatenate([m.machine for m in moments]))
        times = np.concatenate([m.at for m in moments])
        self.machines, self.origin = machines, int(times.min()) if len(times) else 0
        # room for any horizon or landing on both sides of a machine's times
        self.width = (int(times.max()) - self.origin if len(times) else 0) + 4 * 366 * DAY
        self.beyond = np.iinfo(np.int64).max // 2

    def of(self, moments: Moments) -> Ints:
        return np.searchsorted(self.machines, moments.machine) * self.width + (moments.at - self.origin)
