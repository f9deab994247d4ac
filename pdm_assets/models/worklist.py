"""What the crew should see to: open alarm episodes, ranked by what a visit is expected to save."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pdm_assets.models.events import EPISODE_GAP, HOUR, Costs, Moments, episodes


@dataclass(frozen=True)
class Episode:
    """An alarm of one component of a machine that nothing has ended yet; times in seconds since 1970, UTC."""

    machine: int
    component: str
    first_alert: int
    last_alert: int

    @property
    def id(self) -> str:
        """The same from day to day: an episode is told by where it began."""
        return f"{self.machine}-{self.component}-{dt.datetime.fromtimestamp(self.first_alert, dt.UTC):%Y%m%dT%H%M}"

    def may_begin_before(self, start: int) -> bool:
        """Whether it may go on from alerts before `start`, had these been looked at."""
        return self.first_alert - start <= EPISODE_GAP


def open_episodes(
    alerts: Mapping[str, Moments], closings: Mapping[str, Moments], *, at: int, horizon_hours: int
) -> list[Episode]:
    """The episodes that are open at an instant: repaired and failed ones are closed, and one whose horizon has passed is over.

    A machine's component has one at most: the latest.

    Args:
        alerts: by component, those up to `at`.
        closings: failures and replacements by component, as far as they are known.
        at: the latest observation.
        horizon_hours: so long after its last alert an episode is open.
    """
    found: dict[tuple[int, str], Episode] = {}
    for component, its in alerts.items():
        ordered, number = episodes(its.where(its.at <= at), closings[component])
        begins = np.flatnonzero(np.diff(number, prepend=-1))
        ends = np.append(begins, len(number))[1:] - 1
        is_fresh = ordered.at[ends] > at - horizon_hours * HOUR
        for first, last in zip(begins[is_fresh], ends[is_fresh], strict=True):
            machine, last_alert = int(ordered.machine[first]), int(ordered.at[last])
            past = closings[component]
            if not np.any((past.machine == machine) & (past.at >= last_alert)):
                found[machine, component] = Episode(machine, component, int(ordered.at[first]), last_alert)
    return sorted(found.values(), key=lambda episode: (episode.machine, episode.component))


def expected_hours_left(leads: Sequence[float], hours_since_first_alert: float) -> float | None:
    """Mean of what was left at this point of those earlier episodes that went on longer; None where none did.

    Args:
        leads: hours from first alert to failure of the failures that the model caught in its test window.
        hours_since_first_alert: of the episode.
    """
    left = [lead - hours_since_first_alert for lead in leads if lead > hours_since_first_alert]
    return sum(left) / len(left) if left else None


def expected_saving(probability: float, costs: Costs) -> float:
    """What a visit now saves on average: a failure met as a planned repair, against a visit for nothing."""
    return probability * (costs.missed_failure - costs.planned_repair) - (1 - probability) * costs.false_visit


@dataclass(frozen=True)
class Line:
    """One line of a day's worklist, in the columns of worklist/maintenance but for the rank; times are UTC."""

    episode_id: str
    machine_id: int
    component: str
    first_alerted_at: dt.datetime
    last_alerted_at: dt.datetime
    observed_at: dt.datetime
    probability: float
    threshold: float
    expected_hours_left: float | None
    days_since_replacement: float | None
    expected_saving: float
    reasons: str
    model_version: str


def ranked(lines: Sequence[Line]) -> list[Line]:
    """The greatest expected saving first; of equal ones the older alarm."""
    return sorted(lines, key=lambda line: (-line.expected_saving, line.first_alerted_at, line.machine_id, line.component))
