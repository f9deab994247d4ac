"""Open alarm episodes of days, from the lake: who alerts, since when, and what the model says of it."""

import datetime as dt
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from pdm_assets.models.card import ModelCard
from pdm_assets.models.events import HOUR, Costs, Moments
from pdm_assets.models.reasons import in_words, shares
from pdm_assets.models.worklist import Episode, Line, expected_hours_left, expected_saving, open_episodes
from pdm_assets.models.worklist_page import CHART_DAYS
from pdm_assets.partitions import SETTINGS
from pdm_assets.resources.lake import Lake, LakeError
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.features import COMPONENT_RISK, OBSERVATION_KEY, OBSERVATIONS
from pdm_assets.schemas.raw import COMPONENTS, ERRORS, FAILURES, MAINTENANCE
from pdm_assets.schemas.table import DATE, Table
from pdm_assets.settings import ERROR_LOOKBACK_HOURS

LOOKBACK = dt.timedelta(days=31)  # as far as an episode is traced at first; doubled while one may have begun earlier


class OpenAlarms:
    """The open episodes of each day of [start, end) that has scores, and the scores of their machines, without Spark."""

    def __init__(self, lake: Lake, start: dt.date, end: dt.date) -> None:
        self.lake, self.start, self.end = lake, start, end
        self.by_day = self._open_episodes()
        # an episode may be open for a horizon after its machine's last score
        first = start - dt.timedelta(days=max(CHART_DAYS, SETTINGS.horizon_days))
        chosen = pc.field("machine_id").isin(sorted({episode.machine for its in self.by_day.values() for episode in its}))
        self._parts: dict[tuple[int, str], tuple[int, int]] = {}  # of each machine's component the first row, and the one after
        if self.by_day:
            columns = ["machine_id", "component", "observed_at", "probability", "threshold", "model_version"]
            rows = lake.arrow(COMPONENT_RISK, first, end).to_table(columns=columns, filter=chosen)
            self._scores = rows.sort_by([(name, "ascending") for name in columns[:3]]).combine_chunks()
            self._at = moments(self._scores, "observed_at").at
            self._parts = _stretches(self._scores["machine_id"], self._scores["component"])

    def _open_episodes(self) -> dict[dt.date, list[Episode]]:
        lookback, rows = LOOKBACK, self.lake.rows_by_day(COMPONENT_RISK, self.start, self.end)
        if not any(rows.values()):
            return {}
        while True:
            first = max(self.start - lookback, SETTINGS.first_day)
            latest, alerts = self._alerts(first)
            closings = _moments(self.lake, (MAINTENANCE, "performed_at"), (FAILURES, "failed_at"), start=first, end=self.end)
            found = {
                day: open_episodes(
                    alerts,
                    {c: past.where(past.at < seconds(day + dt.timedelta(days=1))) for c, past in closings.items()},
                    at=at,
                    horizon_hours=SETTINGS.horizon_hours,
                )
                for day, at in sorted(latest.items())
                if day >= self.start
            }
            reaches_back = any(episode.may_begin_before(seconds(first)) for its in found.values() for episode in its)
            if not reaches_back or first == SETTINGS.first_day:
                return found
            lookback *= 2

    def _alerts(self, first: dt.date) -> tuple[dict[dt.date, int], dict[str, Moments]]:
        """The latest observation of each day, in seconds, and the alerts by component."""
        scores = self.lake.arrow(COMPONENT_RISK, first, self.end)
        times = scores.to_table(columns=[DATE, "observed_at"]).group_by(DATE).aggregate([("observed_at", "max")])
        latest = {row[DATE]: int(row["observed_at_max"].timestamp()) for row in times.to_pylist()}
        alerts = scores.to_table(columns=["machine_id", "observed_at", "component"], filter=pc.field("is_alert"))
        return latest, moments_by_component(alerts, "observed_at")

    def latest(self, episode: Episode, day: dt.date) -> dict[str, Any]:
        """The newest score of an episode's machine and component as of the end of a day."""
        last = self._until(episode.machine, episode.component, day)[1] - 1
        return self._scores.slice(last, 1).to_pylist()[0]

    def history(self, machine: int, component: str, day: dt.date) -> list[tuple[dt.datetime, float]]:
        """The scores of a machine's component up to the end of a day, for its chart."""
        first, end = self._until(machine, component, day)
        its = self._scores.slice(first, end - first)
        return list(zip(its["observed_at"].to_pylist(), its["probability"].to_pylist(), strict=True))

    def _until(self, machine: int, component: str, day: dt.date) -> tuple[int, int]:
        first, end = self._parts[machine, component]
        return first, first + int(np.searchsorted(self._at[first:end], seconds(day + dt.timedelta(days=1))))


def lines_by_day(alarms: OpenAlarms, store: ModelStore) -> dict[dt.date, list[Line]]:
    """The lines of each day, not yet ranked; each model is asked once for all of its days."""
    lake = alarms.lake
    wanted = [(day, episode, alarms.latest(episode, day)) for day, its in alarms.by_day.items() for episode in its]
    if not wanted:
        return {}
    asked = sorted({(score["machine_id"], score["observed_at"]) for _, _, score in wanted})
    session = lake.spark.spark_session
    pairs = session.createDataFrame(asked, "machine_id long, observed_at timestamp")
    first = alarms.start - dt.timedelta(days=SETTINGS.horizon_days + 1)
    rows = lake.read(OBSERVATIONS, first, alarms.end).join(F.broadcast(pairs), [*OBSERVATION_KEY]).drop(DATE).toArrow()
    features = {(row["machine_id"], row["observed_at"]): row for row in rows.to_pylist()}
    reported = _reports(lake, first - dt.timedelta(days=1), alarms.end, {machine for machine, _ in asked})
    found: dict[dt.date, list[Line]] = {}
    for version in sorted({score["model_version"] for _, _, score in wanted}):
        its = [entry for entry in wanted if entry[2]["model_version"] == version]
        pipeline, card = store.load(version)
        keys = {(score["machine_id"], score["observed_at"]) for _, _, score in its}
        if gone := sorted(keys - features.keys()):
            machine, at = gone[0]
            raise LakeError(
                f"{COMPONENT_RISK.key} has scores of {len(gone)} observations that {OBSERVATIONS.key} does not have any more, "
                f"the first of machine {machine} at {at:%Y-%m-%d %H:%M}: materialize both for that day, then the worklist"
            )
        chosen = [features[key] for key in sorted(keys)]
        told = shares(chosen, pipeline, card)
        for day, episode, score in its:
            key = score["machine_id"], score["observed_at"]
            errors = _last_reports(reported.get(episode.machine, []), key[1])
            reasons = in_words(told[(*key, episode.component)], score["probability"], features[key], errors, card, day)
            found.setdefault(day, []).append(_line(episode, score, features[key], reasons, card))
    return found


def _line(
    episode: Episode, score: Mapping[str, Any], features: Mapping[str, Any], reasons: Sequence[str], card: ModelCard
) -> Line:
    costs = Costs.of(SETTINGS)
    observed_at = score["observed_at"]
    hours = (observed_at.timestamp() - episode.first_alert) / HOUR
    return Line(
        episode_id=episode.id,
        machine_id=episode.machine,
        component=episode.component,
        first_alerted_at=dt.datetime.fromtimestamp(episode.first_alert, dt.UTC),
        last_alerted_at=dt.datetime.fromtimestamp(episode.last_alert, dt.UTC),
        observed_at=observed_at,
        probability=score["probability"],
        threshold=score["threshold"],
        expected_hours_left=expected_hours_left(card.events[episode.component].leads_hours, hours),
        days_since_replacement=features[f"{episode.component}_days_since_replacement"],
        expected_saving=expected_saving(score["probability"], costs),
        reasons="; ".join(reasons),
        model_version=card.version,
    )


def _stretches(machines: pa.ChunkedArray, components: pa.ChunkedArray) -> dict[tuple[int, str], tuple[int, int]]:
    """Where each machine's component begins and ends in rows that are sorted by both."""
    codes = components.combine_chunks().dictionary_encode().indices.to_numpy()
    is_first = (np.diff(machines.to_numpy(), prepend=-1) != 0) | (np.diff(codes, prepend=-1) != 0)
    firsts = np.flatnonzero(is_first)
    of = zip(machines.take(firsts).to_pylist(), components.take(firsts).to_pylist(), strict=True)
    return dict(zip(of, itertools.pairwise([*firsts.tolist(), len(machines)]), strict=True))


def _moments(lake: Lake, *tables: tuple[Table, str], start: dt.date, end: dt.date) -> dict[str, Moments]:
    """Machine and time of the rows of tables with a component, by component."""
    parts = []
    for its, instant in tables:
        rows = lake.arrow(its, start, end).to_table(columns=["machine_id", instant, "component"])
        parts.append(rows.rename_columns(["machine_id", "observed_at", "component"]))
    return moments_by_component(pa.concat_tables(parts), "observed_at")


def by_component(rows: pa.Table) -> dict[str, pa.Table]:
    """The rows of each component, in their order."""
    return {c: rows.filter(pc.equal(rows["component"], c)) for c in COMPONENTS}


def moments(rows: pa.Table, instant: str) -> Moments:
    """Machine and time of rows."""
    at = rows[instant].cast(pa.timestamp("us", "UTC")).cast("int64").to_numpy() // 1_000_000
    return Moments(rows["machine_id"].to_numpy(), at)


def moments_by_component(rows: pa.Table, instant: str) -> dict[str, Moments]:
    """Machine and time of rows, by component."""
    return {c: moments(its, instant) for c, its in by_component(rows).items()}


def _reports(lake: Lake, start: dt.date, end: dt.date, machines: set[int]) -> dict[int, list[tuple[dt.datetime, str]]]:
    """When each machine reported which error, the earliest first."""
    chosen = pc.field("machine_id").isin(sorted(machines))
    rows = lake.arrow(ERRORS, start, end).to_table(columns=["machine_id", "occurred_at", "error_code"], filter=chosen)
    found: dict[int, list[tuple[dt.datetime, str]]] = {}
    for row in rows.sort_by("occurred_at").to_pylist():
        found.setdefault(row["machine_id"], []).append((row["occurred_at"], row["error_code"]))
    return found


def _last_reports(reports: Sequence[tuple[dt.datetime, str]], observed_at: dt.datetime) -> dict[str, dt.datetime]:
    """The latest report of each error that the features of an observation count."""
    since = observed_at - dt.timedelta(hours=ERROR_LOOKBACK_HOURS)
    return {code: at for at, code in reports if since < at <= observed_at}


def seconds(day: dt.date) -> int:
    """The start of a day, UTC, in seconds since 1970."""
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp())
