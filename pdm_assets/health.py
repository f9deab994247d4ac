"""Is all well? A rule at a time: the lake, Dagster's database, the engine, the disk. Without Spark, and nothing is written.

What `pdm-assets health` prints and monitors fetch. Each rule names the part of docs/operations.md that says what to do.
"""

import dataclasses
import datetime as dt
import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorType, TickStatus
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as EVALUATED,
)
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._daemon.controller import get_daemon_statuses

from pdm_assets.assets.raw import EVENT_TABLES, REJECTED_SHARE
from pdm_assets.automation import daily_scoring, landing_sensor, process_days
from pdm_assets.automation.landing_sensor import UNDER_WAY
from pdm_assets.models.windows import first_possible_cutoff
from pdm_assets.resources.engine import Engine, Sizing
from pdm_assets.resources.lake import Lake, LakeError, LakeGone
from pdm_assets.resources.landing import LandingZone
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore, NoSuchModel
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.features import COMPONENT_RISK, FAILURE_MODEL, OBSERVATIONS
from pdm_assets.schemas.raw import RAW_TABLES, TELEMETRY, quarantine_of
from pdm_assets.schemas.table import DATE
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import Settings

DAY = dt.timedelta(days=1)

# From which value on a rule warns, and from which it is critical.
SCORED_BY_HOUR = 6  # UTC; until then nobody waits for yesterday's scores
UNSCORED_DAYS = (1, 2)  # between the newest day that should be scored and the newest that is
WAITING_S = (3600, 24 * 3600)  # a landed file whose rows are in no table
UNDER_WAY_S = (2 * 3600, 4 * 3600 + 900)  # a run, since it was asked for; run monitoring ends it after four hours
SILENT_DAEMON_S = 300  # critical; a daemon says every 30 s that it lives
SILENT_SENSOR_S = 600  # critical; it ticks every 5 s, but a code server may take six minutes to start
DISK_FREE = (0.15, 0.05)  # share of the disk of the data root
BACKUP_DAYS = (2, 8)  # age of the newest
LOOK_BACK_DAYS = 30  # in which days that are missing are looked for
FAILED_WITHIN = DAY
RUNS_LOOKED_AT = 1000
CHECKS_LOOKED_AT = 200  # evaluations of a failing check, for since when it fails
WEB_PATIENCE_S = 10
NAMED = 3
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
    "pdm_failed_runs": "runs that failed in the last day and were not made good",
    "pdm_run_under_way_seconds": "age of the oldest run that is queued or under way, 0 without one",
    "pdm_failing_checks": "asset checks that fail in their latest evaluation, by severity",
    "pdm_check_failing": "1 for each of these",
    "pdm_daemon_heartbeat_seconds": "since when a daemon last said that it lives",
    "pdm_sensor_tick_seconds": "since the landing sensor's last tick",
    "pdm_model_age_days": "days from the cutoff of the model in force",
    "pdm_training_age_days": "days from the cutoff of the newest training",
    "pdm_engine_running": "1 while the local Spark engine runs",
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


@dataclass(frozen=True)
class Finding:
    """What a rule said, with its name and the part of docs/operations.md to read."""

    rule: str
    runbook: str
    said: Said


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
    store: ModelStore = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is opened before a rule asks."""
        lake = Lake.of(self.settings, SparkEngine.of(self.settings))
        object.__setattr__(self, "store", ModelStore.of(self.settings, lake))

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
        return self.store.lake

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
        """The first day that has history enough for a model; None before there is any history."""
        return self.heard and first_possible_cutoff(self.heard[0], self.settings)


def _level(value: float, limits: tuple[float, float]) -> Level:
    return Level((value >= limits[0]) + (value >= limits[1]))


def _database(look: Look) -> Said:
    if look.instance is None:
        return Said(Level.CRITICAL, look.why_no_instance, "start it, or see to DAGSTER_HOME and PDM_DAGSTER_DB")
    where = "PostgreSQL" if look.settings.dagster_db else str(look.instance.root_directory)
    return Said(Level.OK, f"runs and events can be read ({where})")


def _daemon(look: Look) -> Said:
    needed = look.dagster.get_required_daemon_types()
    found = get_daemon_statuses(
        look.dagster, needed, look.now.timestamp(), heartbeat_interval_seconds=0, heartbeat_tolerance_seconds=SILENT_DAEMON_S
    )
    beats = {name: status.last_heartbeat.timestamp for name, status in found.items() if status.last_heartbeat}
    metrics = [
        Metric("pdm_daemon_heartbeat_seconds", look.now.timestamp() - at, {"daemon": name})
        for name, at in sorted(beats.items())
    ]
    silent = sorted(name for name in needed if look.now.timestamp() - beats.get(name, 0) > SILENT_DAEMON_S)
    todo = "is dagster-daemon running? Start it again: no sensor, schedule or queued run goes on without it"
    if silent:
        since = min((beats[name] for name in silent if name in beats), default=None)
        what = f"no sign of life for {SILENT_DAEMON_S} s and more: {', '.join(silent)}"
        return Said(Level.CRITICAL, what, todo, since and _at(since), metrics)
    if troubled := sorted(name for name, status in found.items() if not status.healthy):
        return Said(Level.WARN, f"errors in the last loop: {', '.join(troubled)}", "its log has them", metrics=metrics)
    return Said(Level.OK, f"{len(needed)} daemons live", metrics=metrics)


def _sensor(look: Look) -> Said:
    """The tick of the landing sensor is what needs both the daemon and the code location."""
    state = _instigator(look.dagster, InstigatorType.SENSOR, landing_sensor.name)
    ticked = getattr(state and state.instigator_data, "last_tick_timestamp", None)
    if state is None or (ticked is None and state.is_running):
        return Said(Level.CRITICAL, "the landing sensor has never ticked", "start the daemon; does the code location load?")
    since = ticked and _at(ticked)
    metrics = [Metric("pdm_sensor_tick_seconds", look.now.timestamp() - ticked, {})] if ticked else []
    if not state.is_running:
        schedule = _instigator(look.dagster, InstigatorType.SCHEDULE, daily_scoring.name)
        if schedule is not None and schedule.is_running:
            return Said(Level.OK, "the landing sensor is off, daily_scoring is on", metrics=())
        todo = "turn it on in the UI (Automation), or daily_scoring in its place"
        return Said(Level.WARN, "the landing sensor is off: what lands is not taken", todo, since)
    age = look.now.timestamp() - (ticked or 0)
    if age > SILENT_SENSOR_S:
        what = f"the landing sensor has not ticked for {_long(age)}"
        todo = "does the code location load (UI, Deployment)? Its log says why not; then start code server and daemon again"
        return Said(Level.CRITICAL, what, todo, since, metrics)
    (tick,) = look.dagster.get_ticks(state.instigator_origin_id, state.selector_id, limit=1) or [None]
    if tick is not None and tick.status == TickStatus.FAILURE:
        why = _first_line(tick.error.message) if tick.error else "no reason is kept"
        what = f"the landing sensor's last tick failed: {why}"
        return Said(Level.CRITICAL, what, "the tick in the UI (Automation) has the whole error", since, metrics)
    return Said(Level.OK, f"the landing sensor ticked {_long(age)} ago", metrics=metrics)


def _instigator(instance: dg.DagsterInstance, kind: InstigatorType, name: str) -> InstigatorState | None:
    found = [state for state in instance.all_instigator_state(instigator_type=kind) if state.instigator_name == name]
    return found[-1] if found else None


def _web(look: Look) -> Said:
    if look.web is None:
        raise NotAsked("no --web given")
    query = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
    request = urllib.request.Request(
        f"{look.web.rstrip('/')}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=WEB_PATIENCE_S) as answer:
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the web server does not answer as Dagster's does ({type(error).__name__})"
        return Said(Level.CRITICAL, what, "start it again; its log says why it ended")
    loaded = "RepositoryLocation"
    if bad := [str(each["name"]) for each in entries if (each["locationOrLoadError"] or {}).get("__typename") != loaded]:
        what = f"code location not loaded: {', '.join(bad)}"
        todo = "the UI (Deployment) shows the error: mend what it names, and reload the location there"
        return Said(Level.CRITICAL, what, todo)
    return Said(Level.OK, f"it answers, {len(entries)} code location loaded")


def _failed_runs(look: Look) -> Said:
    """Of each request the latest try, if that failed within a day and no later run has made it good."""
    latest: dict[str, RunRecord] = {}
    records = look.dagster.get_run_records(dg.RunsFilter(updated_after=look.now - FAILED_WITHIN), limit=RUNS_LOOKED_AT)
    for record in records:  # the newest first
        latest.setdefault(_root(record.dagster_run), record)
    failed, again = [], []
    for record in latest.values():
        run = record.dagster_run
        if (not run.is_finished and run.root_run_id is not None) or run.is_complete_and_waiting_to_retry:
            again.append(record)
        elif run.status == dg.DagsterRunStatus.FAILURE:
            later = [each.dagster_run for each in records if each.storage_id > record.storage_id]
            if not any(each.is_success and _makes_good(each, run) for each in later):
                failed.append(record)
    metrics = [Metric("pdm_failed_runs", len(failed), {})]
    if failed:
        what = f"{len(failed)} runs failed: {_few([_named(each) for each in failed])}"
        todo = "read the error in the run's page; mend what it names, and re-execute it there"
        return Said(Level.CRITICAL, what, todo, min(map(_ended, failed)), metrics)
    if again:
        what = f"{len(again)} failed runs are tried again: {_few([_named(each) for each in again])}"
        return Said(Level.WARN, what, "wait: of a fault of the machine it passes", min(map(_ended, again)), metrics)
    return Said(Level.OK, "no run failed in the last day that was not made good", metrics=metrics)


def _makes_good(later: dg.DagsterRun, failed: dg.DagsterRun) -> bool:
    """Whether a run that succeeded took all days and assets of one that failed, or was asked for the same."""
    days, its = _days_of(later), _days_of(failed)
    if its is None:
        return days is None and (later.job_name, later.run_config) == (failed.job_name, failed.run_config)
    if days is None or not days[0] <= its[0] <= its[1] <= days[1]:
        return False
    if later.asset_selection:
        return bool(failed.asset_selection) and failed.asset_selection <= later.asset_selection
    return later.job_name in ((failed.job_name, process_days.name) if failed.asset_selection else (failed.job_name,))


def _root(run: dg.DagsterRun) -> str:
    return run.root_run_id or run.run_id


def _days_of(run: dg.DagsterRun) -> tuple[str, str] | None:
    """First and last day; days as text compare as days."""
    first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    day = run.tags.get(PARTITION_NAME_TAG)
    return (first, last) if first and last else (day, day) if day else None


def _named(record: RunRecord) -> str:
    run = record.dagster_run
    days = _days_of(run)
    of = "" if days is None else f" of {days[0]}" + (f" to {days[1]}" if days[0] != days[1] else "")
    return f"{run.run_id[:8]} ({run.job_name.replace('__ASSET_JOB', 'assets')}{of})"


def _ended(record: RunRecord) -> dt.datetime:
    return _at(record.end_time) if record.end_time else record.update_timestamp


def _runs_under_way(look: Look) -> Said:
    records = look.dagster.get_run_records(dg.RunsFilter(statuses=UNDER_WAY), limit=RUNS_LOOKED_AT)
    if not records:
        return Said(Level.OK, "no run is under way", metrics=[Metric("pdm_run_under_way_seconds", 0, {})])
    oldest = min(records, key=lambda record: record.create_timestamp)
    age = (look.now - oldest.create_timestamp).total_seconds()
    level, status = _level(age, UNDER_WAY_S), oldest.dagster_run.status.value.lower()
    what = f"{len(records)} runs are under way, the oldest {_named(oldest)} {status} for {_long(age)}"
    todo = "what does its page say last? Is another run in the pool spark before it? Cancel it there if it hangs"
    return Said(level, what, todo, oldest.create_timestamp, [Metric("pdm_run_under_way_seconds", age, {})])


def _checks(look: Look) -> Said:
    from pdm_assets.definitions import defs

    log = look.dagster.event_log_storage
    latest = log.get_latest_asset_check_execution_by_key(sorted(defs.resolve_asset_graph().asset_check_keys, key=str))
    failing: list[tuple[dg.AssetCheckKey, AssetCheckExecutionRecord]] = []
    for key, found in latest.items():
        record: AssetCheckExecutionRecord | None = found
        if found.status not in EVALUATED:  # a run is under way, or died before it came to the check
            record = next(iter(log.get_asset_check_execution_history(key, limit=1, status=EVALUATED)), None)
        if record is not None and record.status == AssetCheckExecutionRecordStatus.FAILED and record.evaluation is not None:
            failing.append((key, record))
    by = {name: [each for each in failing if _severity(each[1]) == name] for name in ("error", "warn")}
    metrics = [
        *(Metric("pdm_failing_checks", len(found), {"severity": name}) for name, found in by.items()),
        *(
            Metric("pdm_check_failing", 1, {"asset": k.asset_key.to_user_string(), "check": k.name, "severity": _severity(r)})
            for k, r in failing
        ),
    ]
    if not failing:
        return Said(Level.OK, f"none of the {len(latest)} checks that were asked fails", metrics=metrics)
    worst_first = [*by["error"], *by["warn"]]
    words = [f"{_severity(record)} {key.asset_key.to_user_string()}: {key.name}{_words(record)}" for key, record in worst_first]
    since = min(_failing_since(look.dagster, key) for key, _ in failing)
    todo = "the check's page says what is wrong and what to do; it is asked again by the next run of its asset"
    return Said(Level.CRITICAL if by["error"] else Level.WARN, f"{len(failing)} fail: {_few(words)}", todo, since, metrics)


def _severity(record: AssetCheckExecutionRecord) -> str:
    assert record.evaluation is not None
    return record.evaluation.severity.value.lower()


def _words(record: AssetCheckExecutionRecord) -> str:
    words = _first_line(record.evaluation.description or "") if record.evaluation else ""
    return f" ({words[:SAID]}{' ...' if len(words) > SAID else ''})" if words else ""


def _failing_since(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dt.datetime:
    since = 0.0
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=CHECKS_LOOKED_AT, status=EVALUATED):
        if record.status != AssetCheckExecutionRecordStatus.FAILED:
            break
        since = record.create_timestamp
    return _at(since)


def _files(look: Look) -> Said:
    refused = [(table.name, file) for table in RAW_TABLES for file in look.zone.known(table.key)[0] if file.refusal]
    metrics = [Metric("pdm_refused_files", len(refused), {})]
    if not refused:
        return Said(Level.OK, "no landed file is refused", metrics=metrics)
    since = min(_at(file.mtime_ns / 1e9) for _, file in refused)
    what = f"{len(refused)} files were refused: {_few([f'{table}/{file.name}' for table, file in refused])}"
    todo = "every_landed_file_was_taken says why; land them corrected, then delete the refused ones"
    return Said(Level.CRITICAL, what, todo, since, metrics)


def _landed(look: Look) -> Said:
    """Days whose newest file is younger than the day's tables, and files that nobody has read yet."""
    first, end = max(look.settings.first_day, look.last_day - LOOK_BACK_DAYS * DAY), look.last_day + DAY
    unread = [file.mtime_ns / 1e9 for table in RAW_TABLES for file in look.zone.known(table.key)[1]]
    waiting: dict[dt.date, float] = {}
    for table in (TABLES[key] for key in EVENT_TABLES):
        written = [look.lake.written_at(each, first, end) for each in (table, quarantine_of(table))]
        for file in look.zone.known(table.key)[0]:
            landed = file.mtime_ns / 1e9
            for day in (max(day, look.settings.first_day) for day in file.rows_by_day or ()):
                taken = max((at[day].timestamp() for at in written if day in at), default=0.0)
                if first <= day < end and landed > taken:
                    waiting[day] = min(landed, waiting.get(day, landed))
    oldest = min([*waiting.values(), *unread], default=None)
    age = max(0.0, look.now.timestamp() - oldest) if oldest is not None else 0.0
    metrics = [Metric("pdm_waiting_days", len(waiting), {}), Metric("pdm_waiting_seconds", age, {})]
    if oldest is None:
        return Said(Level.OK, f"what landed for the last {LOOK_BACK_DAYS} days is in the tables", metrics=metrics)
    said = [f"files of {_few(sorted(waiting))} are in no table"] if waiting else []
    said += [f"{len(unread)} files were not read yet"] if unread else []
    todo = "is the landing sensor on, what do its ticks say? Is a run under way, or did one fail? May the files be read?"
    return Said(_level(age, WAITING_S), f"{' and '.join(said)}, for {_long(age)}", todo, _at(oldest), metrics)


def _lake(look: Look) -> Said:
    try:
        look.lake.delta(TELEMETRY)
    except LakeGone as error:
        return Said(Level.CRITICAL, str(error), "mount it, or restore it from a backup")
    except LakeError:
        return Said(Level.OK, "no telemetry was taken yet")
    assert look.heard is not None
    return Said(Level.OK, f"telemetry from {look.heard[0]} to {look.heard[1]}")


def _scores(look: Look) -> Said:
    due = min((look.now - dt.timedelta(hours=SCORED_BY_HOUR)).date() - DAY, look.settings.last_day or dt.date.max)
    scored = look.lake.first_and_last_day(COMPONENT_RISK)
    if scored is None:
        if look.first_model_on is None:
            return Said(
                Level.WARN, "there are no scores, for no telemetry was taken yet", "land files: README, Bring your own data"
            )
        if due < look.first_model_on:
            return Said(Level.OK, f"no scores yet: the first day that has history enough for a model is {look.first_model_on}")
        todo = "has the run failed, is a model in force (`pdm-assets models list`)?"
        return Said(Level.CRITICAL, "no day was ever scored", todo, _begin(look.first_model_on))
    behind = max(0, (due - scored[1]).days)
    start = max(scored[0], look.last_day - LOOK_BACK_DAYS * DAY)
    with_model = {row[DATE] for row in look.lake.rows(FAILURE_MODEL, start, scored[1] + DAY) if row["model_version"]}
    observed = look.lake.rows_by_day(OBSERVATIONS, start, scored[1] + DAY)
    scores = look.lake.rows_by_day(COMPONENT_RISK, start, scored[1] + DAY)
    missing = sorted(day for day in with_model if observed[day] and not scores[day])
    metrics = [Metric("pdm_unscored_days", behind, {}), Metric("pdm_missing_score_days", len(missing), {})]
    level = max(_level(behind, UNSCORED_DAYS), Level(bool(missing)))
    what = f"the newest scored day is {scored[1]}"
    todo = "has its telemetry landed, was it taken? Is the landing sensor on, a model in force?"
    if behind:
        return Said(level, f"{what}, {due} should be", todo, _begin(scored[1] + 2 * DAY), metrics)
    if missing:
        todo = "materialize scores/component_risk of these days"
        return Said(level, f"{what}, but days before it have none: {_few(missing)}", todo, _begin(missing[0] + DAY), metrics)
    return Said(level, what, metrics=metrics)


def _quarantine(look: Look) -> Said:
    shares: dict[str, tuple[float, dt.date]] = {}
    start, end = look.last_day - 7 * DAY, look.last_day + DAY
    for table in RAW_TABLES:
        raw, bad = (look.lake.rows_by_day(each, start, end) for each in (table, quarantine_of(table)))
        if newest := max((day for day in raw if raw[day] + bad[day]), default=None):
            shares[table.name] = bad[newest] / (raw[newest] + bad[newest]), newest
    metrics = [Metric("pdm_quarantined_share", share, {"table": name}) for name, (share, _) in shares.items()]
    many = {name: found for name, found in shares.items() if found[0] > REJECTED_SHARE}
    if not many:
        return Said(Level.OK, f"no more than {REJECTED_SHARE:.0%} of any table's newest rows", metrics=metrics)
    said = [f"{share:.0%} of {name} on {day}" for name, (share, day) in many.items()]
    todo = "`pdm-assets quarantine show` says of what; correct and release them"
    return Said(Level.WARN, _few(said), todo, _begin(min(day for _, day in many.values())), metrics)


def _model(look: Look) -> Said:
    lake, store, today = look.lake, look.store, look.last_day
    known = store.registered()
    now = store.in_force(today, known, store.decisions())
    if now is None:
        if look.first_model_on is None or today < look.first_model_on:
            return Said(Level.OK, f"none yet: history is enough from {look.first_model_on or 'some day'} on")
        todo = "`pdm-assets models list` says what was decided; a refused one can be promoted by hand"
        return Said(Level.CRITICAL, f"no model is in force ({len(known)} are registered)", todo, _begin(look.first_model_on))
    try:
        store.whole(now.version)
    except NoSuchModel as error:
        return Said(Level.CRITICAL, _first_line(str(error)), "restore its folder from a backup, or promote another version")
    heard = lake.first_and_last_day(TELEMETRY)
    until = min(today, heard[1]) if heard else today  # no day, no training: then it is the scores that are missing
    age, trained = (today - now.cutoff).days, store.fitting(today, known)[-1]
    unrenewed = (until - trained.cutoff).days
    metrics = [
        Metric("pdm_model_age_days", age, {}),
        Metric("pdm_training_age_days", (today - trained.cutoff).days, {}),
    ]
    said = f"{now.version} is in force, {age} days old"
    due = look.settings.retrain_every_days + look.settings.retrain_cooldown_days
    if unrenewed > due:
        what = f"{said}; nothing was trained for {unrenewed} days, PDM_RETRAIN_EVERY_DAYS={look.settings.retrain_every_days}"
        todo = "what do the runs of models/failure_model say? To train now: materialize it with force: true"
        return Said(Level.WARN, what, todo, _begin(trained.cutoff + due * DAY), metrics)
    return Said(Level.OK, said, metrics=metrics)


def _engine(look: Look) -> Said:
    if look.settings.spark_mode != "engine":
        raise NotAsked(f"PDM_SPARK_MODE={look.settings.spark_mode}: there is no engine of ours")
    engine = Engine(look.settings.data, Sizing.of(look.settings))
    info = engine.info()
    metrics = [Metric("pdm_engine_running", float(info is not None), {})]
    if info is None and engine.ran_out_of_memory():
        todo = "PDM_SPARK_MEMORY_MB higher, or fewer days at a time; then re-execute the run: it is not tried again by itself"
        since = _at(engine.log.stat().st_mtime)
        return Said(Level.CRITICAL, "the last Spark engine ran out of memory", todo, since, metrics)
    if engine.is_dead():
        since = _at((engine.folder / "engine.json").stat().st_mtime)
        what = f"the Spark engine that was started {since:%Y-%m-%d %H:%M} UTC ended without being stopped: it or the machine was killed"
        todo = f"the next run starts another, `pdm-assets engine stop` forgets it; {engine.log} and the system's log say why"
        return Said(Level.WARN, what, todo, None, metrics)
    return Said(Level.OK, "it runs" if info else "it is not needed at present", metrics=metrics)


def _disk(look: Look) -> Said:
    data = look.settings.data.absolute()
    if not data.is_dir():
        return Said(Level.CRITICAL, f"{data} is not there", "is PDM_DATA right, is its disk mounted?")
    usage = shutil.disk_usage(data)
    free = usage.free / usage.total if usage.total else 0.0
    level = Level((free < DISK_FREE[0]) + (free < DISK_FREE[1]))
    todo = "make room; the job upkeep deletes dead files of the tables"
    return Said(level, f"{free:.0%} of {usage.total / 1e9:,.0f} GB free", todo, None, [Metric("pdm_disk_free_share", free, {})])


def _backup(look: Look) -> Said:
    if look.backups is None:
        raise NotAsked("no --backups given")
    todo = "`pdm-assets backup FOLDER`"
    made = [path.stat().st_mtime for path in look.backups.glob("*.tar.gz")]
    if not made:
        return Said(Level.CRITICAL, f"there is no backup in {look.backups}", todo)
    age = look.now.timestamp() - max(made)
    level = _level(age / DAY.total_seconds(), BACKUP_DAYS)
    return Said(level, f"the newest is {_long(age)} old", todo, _at(max(made)), [Metric("pdm_backup_age_seconds", age, {})])


class Rule(NamedTuple):
    """A question, and the heading of docs/operations.md for when the answer is bad."""

    name: str
    runbook: str
    ask: Callable[[Look], Said]


SCORES, RUNS, FILES, QUARANTINE = "scores-are-missing", "a-run-failed", "a-file-is-not-taken", "many-rows-are-in-quarantine"
ENGINE, DISK, SERVICES = "the-spark-engine-died", "the-disk-is-full-or-gone", "dagster-is-down"
HANGS, MODEL, LOST = "a-run-does-not-end", "no-model-or-one-that-no-longer-fits", "a-table-is-damaged-or-lost"
CHECKS = "checks"  # which of the others it is, a table there says by check

RULES = (
    Rule("database", SERVICES, _database),
    Rule("daemon", SERVICES, _daemon),
    Rule("sensor", SERVICES, _sensor),
    Rule("web", SERVICES, _web),
    Rule("failed_runs", RUNS, _failed_runs),
    Rule("runs_under_way", HANGS, _runs_under_way),
    Rule("checks", CHECKS, _checks),
    Rule("files", FILES, _files),
    Rule("landed", FILES, _landed),
    Rule("lake", DISK, _lake),
    Rule("scores", SCORES, _scores),
    Rule("quarantine", QUARANTINE, _quarantine),
    Rule("model", MODEL, _model),
    Rule("engine", ENGINE, _engine),
    Rule("disk", DISK, _disk),
    Rule("backup", LOST, _backup),
)


def look_at(
    settings: Settings, home: Path, now: dt.datetime, *, web: str | None = None, backups: Path | None = None
) -> list[Finding]:
    """Ask each rule of a data root and the DAGSTER_HOME of its instance; one that can't be asked is critical."""
    with ExitStack() as opened:
        instance, why = _open(settings, home, opened)
        look = Look(settings, now, instance, why, web, backups)
        return [Finding(rule.name, f"docs/operations.md#{rule.runbook}", _ask(rule, look)) for rule in RULES]


def _ask(rule: Rule, look: Look) -> Said:
    try:
        said = rule.ask(look)
    except NotAsked as why:
        said = Said(why.level, f"not asked: {why}", "see to the rule database first")
    except Exception as error:
        todo = "where the reason is none of the other rules', run `pdm-assets lake verify`"
        said = Said(Level.CRITICAL, f"can't be asked: {type(error).__name__}: {_first_line(str(error))}", todo)
    return dataclasses.replace(said, what=_hidden(said.what, look.settings), todo=said.todo if said.level else "")


def _open(settings: Settings, home: Path, opened: ExitStack) -> tuple[dg.DagsterInstance | None, str]:
    """The instance, or why there is none. One that never ran is not made: the look writes nothing."""
    if not (home / "dagster.yaml").exists() or (settings.dagster_db is None and not (home / "history").is_dir()):
        return None, f"Dagster has never run on {home}"
    try:
        instance = opened.enter_context(dg.DagsterInstance.from_config(str(home)))
        instance.get_run_records(limit=1)
    except Exception as error:  # a database's words may hold its address: they are not shown
        what = "the PostgreSQL of PDM_DAGSTER_DB does not answer, or does not let us in" if settings.dagster_db else str(home)
        return None, f"Dagster's database can't be read: {what} ({type(error).__name__})"
    return instance, ""


def _hidden(text: str, settings: Settings) -> str:
    """A text without what settings keep secret."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if each.repr or not value:
            continue
        password = urlsplit(value).password or ""
        for secret in (value, password, unquote(password), *re.findall(r"=([^;]+)", value)):
            text = text.replace(secret, "***") if secret else text
    return text


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """For a person, and for monitors that show the first line."""
    level = worst(findings)
    bad = [finding for finding in findings if finding.said.level]
    yield f"{level.name}: {', '.join(finding.rule for finding in bad) or f'{len(findings)} rules are fine'}"
    for finding in findings:
        said = finding.said
        since = f", since {said.since:%Y-%m-%d %H:%M} UTC" if said.since and said.level else ""
        yield f"{said.level.name:8} {finding.rule:14} {said.what}{since}"
        if said.level:
            yield f"{'':8} {'':14} what to do: {said.todo}; {finding.runbook}"


def as_json(findings: Sequence[Finding], now: dt.datetime) -> str:
    """All that was found."""
    rules = [
        {
            "rule": finding.rule,
            "level": finding.said.level.name.lower(),
            "what": finding.said.what,
            "since": finding.said.since and finding.said.since.isoformat(),
            "todo": finding.said.todo,
            "runbook": finding.runbook,
            "metrics": [metric._asdict() for metric in finding.said.metrics],
        }
        for finding in findings
    ]
    return json.dumps({"level": worst(findings).name.lower(), "at": now.isoformat(), "rules": rules}, indent=1)


def prometheus(findings: Sequence[Finding], now: dt.datetime) -> str:
    """The metrics in Prometheus' text format, all gauges."""
    found = [
        *(Metric("pdm_health_status", float(finding.said.level), {"rule": finding.rule}) for finding in findings),
        Metric("pdm_health_time_seconds", now.timestamp(), {}),
        *(metric for finding in findings for metric in finding.said.metrics),
    ]
    text = []
    for name, doc in METRICS.items():
        its = [metric for metric in found if metric.name == name]
        if its:
            text += [f"# HELP {name} {doc}", f"# TYPE {name} gauge"]
        text += [f"{name}{_labels(metric.labels)} {float(metric.value)!r}" for metric in its]
    return "\n".join(text) + "\n"


def _labels(labels: dict[str, str]) -> str:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'

    return "{" + ",".join(f"{name}={quoted(value)}" for name, value in labels.items()) + "}" if labels else ""


def worst(findings: Sequence[Finding]) -> Level:
    """The worst of all."""
    return max((finding.said.level for finding in findings), default=Level.OK)


def _at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _begin(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _few(things: Sequence[object]) -> str:
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return ", ".join(map(str, things[:NAMED])) + more


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


def _long(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
