"""What monitoring reads from the lake, without Spark: scores, failures, features by day."""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pdm_assets.models.card import ModelCard
from pdm_assets.models.drift import (
    MORE_MISSING,
    WINDOW_DAYS,
    Counts,
    N,
    Reference,
    count_by_day,
    is_lasting,
    limit_of,
    stability,
)
from pdm_assets.models.evaluation import History
from pdm_assets.models.events import Costs, Moments, Rules
from pdm_assets.models.realised import ROLLING_DAYS, Given, Realised, compared, realise
from pdm_assets.partitions import SETTINGS
from pdm_assets.resources.lake import Lake, known_until
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.open_alarms import by_component, moments, moments_by_component, seconds
from pdm_assets.schemas.features import (
    COMPONENT_RISK,
    FAILURE_MODEL,
    FEATURE_DRIFT,
    NUMERIC_FEATURES,
    OBSERVATIONS,
    REALISED_PERFORMANCE,
)
from pdm_assets.schemas.raw import COMPONENTS, FAILURES, MAINTENANCE
from pdm_assets.schemas.table import DATE, Table

CHUNK_DAYS = 31  # of features in memory at once

DAY = dt.timedelta(days=1)


def cards_by_day(lake: Lake, store: ModelStore, start: dt.date, end: dt.date) -> dict[dt.date, ModelCard]:
    """The card of the model in force of each day that has one."""
    versions = {row[DATE]: row["model_version"] for row in lake.rows(FAILURE_MODEL, start, end) if row["model_version"]}
    cards = {version: store.card(version) for version in set(versions.values())}
    return {day: cards[version] for day, version in sorted(versions.items())}


def realised_by_day(lake: Lake, cards: Mapping[dt.date, ModelCard]) -> Iterator[tuple[dt.date, list[Realised]]]:
    """The realised performance of each day with a model in force that is known to its end, of it and of the 30 days up to it.

    Scores are those that the table holds: a day that was scored anew counts as it is now, and when it was scored is not asked.
    All of them are judged, by whichever model; what is said to be worse is only what the model in force itself has scored.
    """
    until = known_until(lake, dt.datetime.now(dt.UTC))
    cards = {day: card for day, card in cards.items() if seconds(day + DAY) <= until.timestamp()}
    if not cards:
        return
    end = max(cards) + DAY
    start = min(cards) - dt.timedelta(days=ROLLING_DAYS + SETTINGS.horizon_days)
    rules, costs = Rules.of(SETTINGS), Costs.of(SETTINGS)
    given, by_version = _given(lake, start, end, {card.version for card in cards.values()}, rules.horizon_hours)

    def judged(its: Mapping[str, Given], day: dt.date, days: int) -> list[Realised]:
        return realise(its, end=seconds(day + DAY), window_days=days, rules=rules, costs=costs)

    for day, card in cards.items():
        daily, rolling = judged(given, day, 1), judged(given, day, ROLLING_DAYS)
        if not any(one.observations for one in (*daily, *rolling)):
            continue
        own = by_version[card.version]
        own_rolling = rolling if own is given else judged(own, day, ROLLING_DAYS)
        worse = {one.component: compared(one, card.events[one.component].observed) for one in own_rolling}
        yield day, [*daily, *(replace(one, worse=worse[one.component]) for one in rolling)]


def _given(
    lake: Lake, start: dt.date, end: dt.date, versions: Collection[str], horizon_hours: int
) -> tuple[dict[str, Given], dict[str, dict[str, Given]]]:
    """All scores by component, and those of each version by component: the same object where one version gave all."""
    columns = ["machine_id", "observed_at", "component", "probability", "is_alert", "model_version"]
    rows = lake.arrow(COMPONENT_RISK, start, end).to_table(columns=columns).sort_by([("observed_at", "ascending")])
    history = _history(lake, start, end)

    def of(rows: pa.Table) -> dict[str, Given]:
        return {
            c: Given.of(
                moments(its, "observed_at"),
                its["probability"].to_numpy(),
                its["is_alert"].to_numpy(),
                history[c],
                horizon_hours,
            )
            for c, its in by_component(rows).items()
        }

    given, all_by = of(rows), pc.unique(rows["model_version"]).to_pylist()

    def own(version: str) -> dict[str, Given]:
        return given if all_by == [version] else of(rows.filter(pc.equal(rows["model_version"], version)))

    return given, {version: own(version) for version in versions}


def _history(lake: Lake, start: dt.date, end: dt.date) -> dict[str, History]:
    """What happened on the days [start, end): an observation is judged by what came after it."""

    def of(table: Table, instant: str) -> dict[str, Moments]:
        rows = lake.arrow(table, start, end).to_table(columns=["machine_id", instant, "component"])
        return moments_by_component(rows, instant)

    failures, replacements = of(FAILURES, "failed_at"), of(MAINTENANCE, "performed_at")
    return {
        c: History(
            failures[c],
            Moments(
                np.concatenate([failures[c].machine, replacements[c].machine]),
                np.concatenate([failures[c].at, replacements[c].at]),
            ),
        )
        for c in COMPONENTS
    }


def drift_by_day(
    lake: Lake, cards: Mapping[dt.date, ModelCard]
) -> Iterator[tuple[dt.date, list[tuple[str, int, float | None, float, float, float, bool]]]]:
    """Rows of monitoring/feature_drift up to is_drifted, of each day that has observations."""
    days = sorted(cards)
    for first in range(0, len(days), CHUNK_DAYS):
        chunk = days[first : first + CHUNK_DAYS]
        start, end = chunk[0] - (WINDOW_DAYS - 1) * DAY, chunk[-1] + DAY
        observed = lake.arrow(OBSERVATIONS, start, end).to_table(columns=["machine_id", DATE, *NUMERIC_FEATURES])
        scored = lake.arrow(COMPONENT_RISK, start, end).to_table(
            columns=["machine_id", DATE, "component", "probability", "model_version"]
        )
        for version in sorted({cards[day].version for day in chunk}):
            its = [day for day in chunk if cards[day].version == version]
            own = scored.filter(pc.equal(scored["model_version"], version))  # another model's scores are distributed otherwise
            counted = _counted(observed, own, cards[its[0]], start, (end - start).days)
            for day in its:
                last = (day - start).days + 1
                window = range(max(0, last - WINDOW_DAYS), last)
                found = [_row(name, reference, counts, machines, window) for name, reference, counts, machines in counted]
                if any(row[1] for row in found):
                    yield day, found


def _counted(
    observed: pa.Table, scored: pa.Table, card: ModelCard, start: dt.date, days: int
) -> list[tuple[str, Reference, Counts, np.ndarray]]:
    """Of each feature and component with a reference: its counts by day, and the machines of each day."""
    found = []
    day, machines = _days(observed, start), _machines(observed, start, days)
    for name in (name for name in NUMERIC_FEATURES if name in card.references):
        values = observed[name].to_numpy(zero_copy_only=False).astype(float)
        found.append((name, card.references[name], count_by_day(values, day, days, card.references[name]), machines))
    for name, its in by_component(scored).items():
        if name not in card.references:
            continue
        counts = count_by_day(its["probability"].to_numpy(), _days(its, start), days, card.references[name])
        found.append((name, card.references[name], counts, machines))
    return found


def _row(
    name: str, reference: Reference, counts: Counts, machines: np.ndarray, window: range
) -> tuple[str, int, float | None, float, float, float, bool]:
    total = counts[window.start : window.stop].sum(axis=0)
    observations = int(total.sum())
    psi = stability(reference, total)
    limit = limit_of(reference, int(machines[window.start : window.stop].max(initial=0)))
    missing = float(total[-1] / observations) if observations else 0.0
    is_drifted = (psi is not None and psi > limit) or missing > reference.missing + MORE_MISSING
    return name, observations, psi, limit, missing, reference.missing, is_drifted


def _days(rows: pa.Table, start: dt.date) -> np.ndarray:
    return rows[DATE].cast(pa.int32()).to_numpy() - (start - dt.date(1970, 1, 1)).days


def _machines(rows: pa.Table, start: dt.date, days: int) -> np.ndarray:
    """How many machines were observed on each day."""
    pairs = rows.group_by(["machine_id", DATE]).aggregate([])
    return np.bincount(_days(pairs, start), minlength=days)


def lasting_drift(lake: Lake, last: dt.date) -> list[str]:
    """Features that have moved on K of the N days up to the last, and on the last."""
    return _lasting(lake, FEATURE_DRIFT, "feature", "is_drifted", last)


def lasting_decline(lake: Lake, last: dt.date) -> list[str]:
    """Components, or pooled, whose realised performance has been worse than in the test window for as long."""
    return _lasting(lake, REALISED_PERFORMANCE, "component", "is_worse", last)


def _lasting(lake: Lake, table: Table, name: str, flag: str, last: dt.date) -> list[str]:
    if not lake.exists(table):
        return []
    days = [last - n * DAY for n in reversed(range(N))]
    raised = {(row[name], row[DATE]) for row in lake.rows(table, days[0], last + DAY, [name, flag, DATE]) if row[flag]}
    return [its for its in sorted({its for its, _ in raised}) if is_lasting([(its, day) in raised for day in days])]
