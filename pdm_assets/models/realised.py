"""What became of the scores that were given: the metrics of evaluation, on days whose outcomes have become known."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, lgamma, log, log1p

import numpy as np

from pdm_assets.models.evaluation import POOLED, History, Outcomes, machine_days, pooled, said_and_came_true
from pdm_assets.models.events import (
    DAY,
    HOUR,
    Costs,
    EventMetrics,
    Ints,
    Judged,
    Moments,
    Rules,
    are_decided,
    hours_ahead,
    judge_alerts,
    pool,
    summarize,
)
from pdm_assets.models.metrics import Bools, Floats, average_precision, brier, brier_skill, calibration_error
from pdm_assets.models.promotion import WORST_ALERT_GAP, WORST_CALIBRATION_ERROR

ROLLING_DAYS = 30
LESS_RECALL = 0.1  # than in the model's test window
LESS_PRECISION = 0.15
CHANCE = 0.05  # that so few would be caught or right, were the model still as good as allowed
LEAST_OBSERVATIONS = 1_000  # with fewer the calibration error is mostly chance


@dataclass(frozen=True)
class Given:
    """Scores of one component, the earliest first, and what came of them: `history` is what happened from the first one on.

    Whether one fails, and whether that is decided, tells of the horizon after its observation: as of any instant after that it
    is what was known then. `ranked` are the places of the scores, the least probable first; `fleet` are the machines in order,
    `member` the place of each score's among them.
    """

    observations: Moments
    probability: Floats
    is_alert: Bools
    history: History
    fails: Bools
    is_decided: Bools
    ranked: Ints
    fleet: Ints
    member: Ints

    @classmethod
    def of(cls, observations: Moments, probability: Floats, is_alert: Bools, history: History, horizon_hours: int) -> "Given":
        """Scores with their outcomes: worked out once, for every window that they are in."""
        fails = hours_ahead(observations, history.failures) <= horizon_hours
        is_decided = are_decided(observations, history.failures, history.closings, horizon_hours)
        fleet, member = np.unique(observations.machine, return_inverse=True)
        ranked = np.argsort(probability, kind="stable")
        return cls(observations, probability, is_alert, history, fails, is_decided, ranked, fleet, member)

    def places(self, start: int, end: int) -> slice:
        """Where those are that were observed in [start, end), in seconds."""
        return slice(*np.searchsorted(self.observations.at, [start, end]).tolist())

    def observed(self, within: slice) -> tuple[Ints, Ints]:
        """The machines of some places, in order, and how many scores each has there."""
        counts = np.bincount(self.member[within], minlength=len(self.fleet))
        return self.fleet[counts > 0], counts[counts > 0]

    def decided(self, within: slice) -> tuple[Outcomes, Bools]:
        """Of some places the scores of which it is known what came of them, and which alert: the least probable first."""
        chosen = self.ranked[(self.ranked >= within.start) & (self.ranked < within.stop)]
        chosen = chosen[self.is_decided[chosen]]
        outcomes = self.probability[chosen], self.fails[chosen], self.observations.where(chosen), self.is_decided[chosen]
        return Outcomes(*outcomes), self.is_alert[chosen]


@dataclass(frozen=True)
class Realised:
    """What a window's scores were worth; `worse` says what fell short of the model's test window, if anything did."""

    component: str
    window_days: int
    observations: int
    events: EventMetrics
    never_cost: float
    alarmed_machines_per_day: float
    average_precision: float | None
    brier: float | None
    brier_skill: float | None
    calibration_error: float | None
    alerts_said: float | None
    alerts_came_true: float | None
    worse: str | None = None


def realise(given: Mapping[str, Given], *, end: int, window_days: int, rules: Rules, costs: Costs) -> list[Realised]:
    """Judge the scores of each component, and of all pooled, as of an instant.

    Failures are those of the `window_days` before `end`: warnings of them reach a horizon further back. Alarms and
    probabilities are of as many days, ending a horizon before `end`: of later ones the outcome is not known. A failure from
    before there were scores a horizon earlier is nobody's miss.

    Args:
        given: by component, of the same observations; from window_days and a horizon before `end` on. What happened from `end`
            on is not looked at.
        end: the instant, in seconds.
        window_days: length of the window.
        rules: what counts as a warning; the horizon is that of `given`.
        costs: of one event each.
    """
    horizon, length = rules.horizon_hours * HOUR, window_days * DAY
    first = end - length - horizon  # what happened before it tells nothing of the scores from it on

    def within(moments: Moments) -> Moments:
        return moments.where((moments.at >= first) & (moments.at < end))

    judged, judged_alarms, outcomes = {}, {}, {}
    for component, its in given.items():
        past = History(within(its.history.failures), within(its.history.closings))
        begin = max(first, int(its.observations.at.min(initial=end)))

        def judging(start: int, until: int, its: Given = its, past: History = past) -> Judged:
            part = its.places(start, until)
            alerts, observed = its.observations.where(part).where(its.is_alert[part]), its.observed(part)
            return judge_alerts(alerts, observed, past.failures, past.closings, start=start, end=until, rules=rules)

        judged[component] = judging(begin, end)
        judged_alarms[component] = judging(begin, end - horizon)
        outcomes[component] = its.decided(its.places(first, end - horizon))

    def realised(name: str, components: list[str]) -> Realised:
        failures, alarms = pool([judged[c] for c in components]), pool([judged_alarms[c] for c in components])
        of_failures, of_alarms = summarize(failures, costs), summarize(alarms, costs)
        events = replace(
            of_alarms,
            **{
                field: getattr(of_failures, field)
                for field in ("failures", "caught", "event_recall", "lead_median_hours", "lead_p10_hours", "lead_24h_share")
            },
            cost=costs.false_visit * of_alarms.false_episodes
            + costs.planned_repair * of_failures.caught
            + costs.missed_failure * (of_failures.failures - of_failures.caught),
        )
        scores = [given[c] for c in components]
        part = scores[0].places(first, end - horizon)
        any_alert = np.any([its.is_alert[part] for its in scores], axis=0)
        probability, fails, rate = pooled([outcomes[c][0] for c in components])
        said, came_true = said_and_came_true(
            [(its.probability, its.fails, its_alerts) for its, its_alerts in (outcomes[c] for c in components)]
        )
        return Realised(
            component=name,
            window_days=window_days,
            observations=part.stop - part.start,
            events=events,
            never_cost=float(costs.missed_failure * of_failures.failures),
            alarmed_machines_per_day=machine_days(scores[0].observations.where(part), any_alert) / window_days,
            average_precision=average_precision(probability, fails),
            brier=brier(probability, fails),
            brier_skill=brier_skill(probability, fails, rate),
            calibration_error=calibration_error(probability, fails),
            alerts_said=said,
            alerts_came_true=came_true,
        )

    return [*(realised(c, [c]) for c in given), realised(POOLED, list(given))]


def compared(found: Realised, expected: EventMetrics) -> str | None:
    """What is worse than in the test window of the model in force, if anything; a daily window is too short to tell.

    Args:
        found: what the scores of that very model were worth.
        expected: of its test window.
    """
    said: list[str | None] = []
    if found.window_days == ROLLING_DAYS:
        events, error = found.events, found.calibration_error
        episodes = events.true_episodes + events.false_episodes
        said.append(_fallen("event recall", events.caught, events.failures, expected.event_recall, LESS_RECALL))
        said.append(_fallen("alarm precision", events.true_episodes, episodes, expected.alarm_precision, LESS_PRECISION))
        if found.observations >= LEAST_OBSERVATIONS and error is not None and error > WORST_CALIBRATION_ERROR:
            said.append(f"calibration error {error:.3f}")
        if found.alerts_said is not None and found.alerts_came_true is not None:
            gap = abs(found.alerts_said - found.alerts_came_true)
            words = f"alerts said {found.alerts_said:.2f}, {found.alerts_came_true:.2f} came true"
            said.append(words if gap > WORST_ALERT_GAP else None)
    return "; ".join(text for text in said if text) or None


def _fallen(name: str, hits: int, of: int, before: float | None, allowed: float) -> str | None:
    """What to say where so few hits are no chance: a binomial test against the test window's share less what is allowed."""
    if not of or before is None:
        return None
    by_chance = _at_most(hits, of, before - allowed)
    return f"{name} {hits} of {of}, {before:.2f} in the test window" if by_chance < CHANCE else None


def _at_most(hits: int, of: int, share: float) -> float:
    """The chance of so few hits, or fewer: the binomial distribution, by logarithms, for its coefficients exceed any float."""
    if share <= 0:
        return 1.0
    all_ways = lgamma(of + 1)
    return sum(
        exp(all_ways - lgamma(n + 1) - lgamma(of - n + 1) + n * log(share) + (of - n) * log1p(-share)) for n in range(hits + 1)
    )
