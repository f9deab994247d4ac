"""What a model must beat: rules without any learning, never acting, and maintenance by the calendar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pdm_assets.models.events import DAY, Costs, Judged, Moments
from pdm_assets.models.metrics import Bools, Floats
from pdm_assets.schemas.raw import CHANNEL_NAMES, ERROR_CODES, OWN_SIGNS
from pdm_assets.settings import ERROR_LOOKBACK_HOURS, LOOKBACK_HOURS

SHIFTED_FROM = 3.0  # standard errors of the mean; a real step is 4 to 9 of them on the public data set
CALENDAR_DAYS = (15, 30, 45, 60, 90, 120, 180)
SHIFT_HOURS = min(LOOKBACK_HOURS)


@dataclass(frozen=True)
class Healthy:
    """A channel's usual mean over SHIFT_HOURS, and how far such a mean strays by chance."""

    level: float
    spread: float

    def spread_over(self, hours: int) -> float:
        """How far a mean over other hours strays: standard errors go with one over the root of the number of readings."""
        return self.spread * (SHIFT_HOURS / hours) ** 0.5


def mean_of(channel: str) -> str:
    """The feature whose shift the rule looks at."""
    return f"{channel}_mean_{SHIFT_HOURS}h"


def deviation_of(channel: str) -> str:
    """The feature that says how much single readings vary."""
    return f"{channel}_std_{SHIFT_HOURS}h"


def count_of(error: str) -> str:
    """The feature that counts an error."""
    return f"{error}_count_{ERROR_LOOKBACK_HOURS}h"


RULE_FEATURES = (
    *(mean_of(channel) for channel in CHANNEL_NAMES),
    *(count_of(error) for error in ERROR_CODES),
)


def rule_alerts(component: str, features: Mapping[str, Floats], healthy: Mapping[str, Healthy]) -> dict[str, Bools]:
    """Which observations each rule alerts on: own errors within 24 h, own channel shifted, both; without own signs, on none.

    Args:
        component: the component.
        features: the columns RULE_FEATURES, an element per observation; unknown values are NaN and never shifted.
        healthy: usual values of each channel, from the training window; one that is not there is never shifted.
    """
    signs = OWN_SIGNS[component]
    never = np.zeros(len(next(iter(features.values()))), bool)
    has_error = np.all([features[count_of(error)] > 0 for error in signs.errors], axis=0) if signs.errors else never
    if signs.channel is None or (usual := healthy.get(signs.channel)) is None:
        has_shift = never
    else:
        has_shift = np.abs(features[mean_of(signs.channel)] - usual.level) > SHIFTED_FROM * usual.spread
    return {"own error": has_error, "own channel shifted": has_shift, "own error and channel": has_error & has_shift}


def never_acting(judged: Judged, costs: Costs) -> Floats:
    """Cost by machine of waiting for each failure."""
    return costs.missed_failure * judged.failures.astype(float)


def by_the_calendar(judged: Judged, ages: Sequence[float], costs: Costs) -> tuple[int, float]:
    """The cheapest interval of replacing a component whatever its state, in days, and what it would have cost.

    Each machine has machine_days / interval replacements, charged for the share of the window in which failures are judged; a
    failure is prevented where the component had reached the interval.
    The interval is chosen with hindsight, in favour of the calendar.

    Args:
        judged: of one component, for its machine-days.
        ages: days since the component's replacement at each judged failure, infinite where none is on record.
        costs: of one event each.
    """
    found = {
        days: float(
            judged.judged_share * judged.machine_days.sum() / days * costs.planned_repair
            + sum(a < days for a in ages) * costs.missed_failure
        )
        for days in CALENDAR_DAYS
    }
    best = min(found, key=lambda days: found[days])
    return best, found[best]


def ages_at(failures: Moments, closings: Moments) -> list[float]:
    """Days since the latest earlier failure or replacement of the component, at each failure; infinite where there is none."""
    ages = []
    for machine, at in zip(failures.machine, failures.at, strict=True):
        earlier = closings.at[(closings.machine == machine) & (closings.at < at)]
        ages.append(float(at - earlier.max()) / DAY if len(earlier) else float("inf"))
    return ages
