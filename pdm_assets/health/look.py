"""What the rules look at, from which value on they speak, and how they say it."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from deltalake.exceptions import DeltaError

from pdm_assets.models.windows import first_possible_cutoff
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.landing import LandingZone
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.resources.verify import first_line
from pdm_assets.schemas.features import OBSERVATIONS
from pdm_assets.schemas.raw import TELEMETRY
from pdm_assets.settings import Settings

DAY = dt.timedelta(days=1)

# From which value on a rule warns, and from which it is critical.
SCORED_BY_HOUR = 6  # UTC; until then nobody waits for yesterday's scores
UNSCORED_DAYS = (1, 2)  # between the newest day that should be scored and the newest that is
WAITING_S = (3600, 24 * 3600)  # a landed file whose rows are in no table,
WAITING_FOR_THE_SCHEDULE_S = (26 * 3600, 50 * 3600)  # where daily_scoring takes yesterday at 00:30 and the sensor is off
UNDER_WAY_S = (2 * 3600, 4 * 3600 + 900)  # a run, since it was asked for; run monitoring ends it after four hours
SILENT_DAEMON_S = 300  # critical; a daemon says every 30 s that it lives
SILENT_SENSOR_S = 600  # critical; it ticks every 5 s, but a code server may take six minutes to start
DISK_FREE = (0.15, 0.05)  # share of the disk of the data root
BACKUP_DAYS = (2, 8)  # age of the newest
LOOK_BACK_DAYS = 30  # in which days that are missing are looked for, and failed runs of days
FAILED_WITHIN = DAY  # a run without days, such as score_range: none that is like it need ever come
TRIED_AGAIN_S = 900  # a failed run that is about to be tried again for longer is not: what tries it is down, or gave it up
RUNS_LOOKED_AT = 1000
CHECKS_LOOKED_AT = 200  # evaluations of a failing check, for since when it fails
WEB_PATIENCE_S = 10
SAID = 160  # characters of a check's words

METRICS = {
    "pdm_health_status": "0 ok, 1 warn, 2 critical, by rule of pdm-assets health",
    "pdm_health_time_seconds": "when this look was taken",
    "pdm_unscored_days": "days between the newest that should be scored and the newest that is",
    "pdm_missing_score_days": "days of the last 30 that have observations and a model, but no scores",
    "pdm_waiting_days": "days of the last 30 of which files landed that are in no table",
    "pdm_waiting_seconds": "age of the oldest landed file that is in no table",
    "pdm_refused_files": "landed files that were refused",
    "pdm_quarantined_share": "quarantined rows of the newest day that has rows, by table",
    "pdm_failed_runs": "runs that failed and were not made good: of days in the last 30, of other runs in the last day",
    "pdm_run_under_way_seconds": "age of the oldest run that is queued or under way, 0 without one",
    "pdm_failing_checks": "asset checks that fail in their latest evaluation, by severity",
    "pdm_check_failing": "1 for each of these",
    "pdm_daemon_heartbeat_seconds": "since when a daemon last said that it lives",
    "pdm_sensor_tick_seconds": "since the landing sensor's last tick",
    "pdm_model_age_days": "days from the cutoff of the model in force",
    "pdm_training_age_days": "days from the cutoff of the newest training",
    "pdm_disk_free_share": "of the disk of the data root",
    "pdm_backup_age_seconds": "of the newest backup",
}


class Level(IntEnum):
    """How bad it is: the exit code of the command, as those of monitoring plugins."""

    OK = 0
    WARN = 1
    CRITICAL = 2


class Metric(NamedTuple):
    """A number for a monitor; its name is one of METRICS."""

    name: str
    value: float
    labels: dict[str, str]


@dataclass(frozen=True)
class Said:
    """What a rule says of what it found."""

    level: Level
    what: str
    todo: str = ""
    since: dt.datetime | None = None
    metrics: Sequence[Metric] = ()


class NotAsked(Exception):
    """A rule has nothing to look at; the text says why: it does not apply here, or another rule has found the trouble."""

    def __init__(self, why: str, level: Level = Level.OK) -> None:
        super().__init__(why)
        self.level = level


@dataclass(frozen=True)
class Look:
    """What the rules look at."""

    settings: Settings
    now: dt.datetime
    instance: dg.DagsterInstance | None
    why_no_instance: str = ""
    web: str | None = None
    backups: Path | None = None

    @cached_property
    def store(self) -> ModelStore:
        """The registered models and what was decided on them."""
        return ModelStore.of(self.settings, Lake.of(self.settings, SparkEngine.of(self.settings)))

    @property
    def dagster(self) -> dg.DagsterInstance:
        """The instance, for rules that ask its database."""
        if self.instance is None:
            raise NotAsked("Dagster's database can't be read", Level.CRITICAL)
        return self.instance

    @property
    def lake(self) -> Lake:
        """The lake, as far as it can be read without Spark."""
        if self.settings.catalog:
            raise NotAsked("the tables are in a catalog, which only Spark can ask")
        if self.why_no_lake:
            raise NotAsked("the object store of the tables can't be asked", Level.CRITICAL)
        return self.store.lake

    @cached_property
    def why_no_lake(self) -> str:
        """Why an object store can't be asked for the tables, if so: asked once, for a client tries for some time."""
        try:
            if self.settings.lake is not None:
                self.store.lake.exists(TELEMETRY)
        except (OSError, DeltaError) as error:
            return first_line(str(error))
        return ""

    @cached_property
    def zone(self) -> LandingZone:
        """The landing zone."""
        return Landing.of(self.settings).zone

    @property
    def last_day(self) -> dt.date:
        """The running day, or the last that is a partition."""
        return min(self.now.date(), self.settings.last_day or self.now.date())

    @cached_property
    def heard(self) -> tuple[dt.date, dt.date] | None:
        """First and last day of which telemetry was taken."""
        return self.lake.first_and_last_day(TELEMETRY)

    @cached_property
    def first_model_on(self) -> dt.date | None:
        """The first day that has history enough for a model, as models/failure_model reckons; None before there is any."""
        observed = self.lake.first_and_last_day(OBSERVATIONS)
        return observed and first_possible_cutoff(observed[0], self.settings)


def level_of(value: float, limits: tuple[float, float]) -> Level:
    """The level of a value: from the first limit on a warning, from the second on critical."""
    return Level((value >= limits[0]) + (value >= limits[1]))


def instant(seconds: float) -> dt.datetime:
    """The time, UTC, of seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def begin(day: dt.date) -> dt.datetime:
    """When a day begins."""
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def length(seconds: float) -> str:
    """A length of time for a person."""
    for unit, in_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * in_s:
            return f"{seconds / in_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
