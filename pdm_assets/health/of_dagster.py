"""Rules that ask Dagster: its database, daemons, sensor, web server, runs and checks."""

import datetime as dt
import json
import urllib.request
from http.client import HTTPException

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

from pdm_assets.automation import daily_scoring, landing_sensor, process_days
from pdm_assets.automation.landing_sensor import UNDER_WAY
from pdm_assets.health.look import (
    CHECKS_LOOKED_AT,
    DAY,
    FAILED_WITHIN,
    LOOK_BACK_DAYS,
    RUNS_LOOKED_AT,
    SAID,
    SILENT_DAEMON_S,
    SILENT_SENSOR_S,
    TRIED_AGAIN_S,
    UNDER_WAY_S,
    WEB_PATIENCE_S,
    Level,
    Look,
    Metric,
    NotAsked,
    Said,
    instant,
    length,
    level_of,
)
from pdm_assets.resources.verify import few, first_line


def database(look: Look) -> Said:
    """Can runs and events be read?"""
    if look.instance is None:
        return Said(Level.CRITICAL, look.why_no_instance, "start it, or see to DAGSTER_HOME and PDM_DAGSTER_DB")
    where = "PostgreSQL" if look.settings.dagster_db else str(look.instance.root_directory)
    return Said(Level.OK, f"runs and events can be read ({where})")


def daemon(look: Look) -> Said:
    """When did each daemon last say that it lives?"""
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
        return Said(Level.CRITICAL, what, todo, None if since is None else instant(since), metrics)
    if troubled := sorted(name for name, status in found.items() if not status.healthy):
        return Said(Level.WARN, f"errors in the last loop: {', '.join(troubled)}", "its log has them", metrics=metrics)
    return Said(Level.OK, f"{len(needed)} daemons live", metrics=metrics)


def sensor(look: Look) -> Said:
    """The tick of the landing sensor is what needs both the daemon and the code location."""
    state = _instigator(look.dagster, InstigatorType.SENSOR, landing_sensor.name)
    ticked = getattr(state and state.instigator_data, "last_tick_timestamp", None)
    if state is None or (ticked is None and state.is_running):
        return Said(Level.CRITICAL, "the landing sensor has never ticked", "start the daemon; does the code location load?")
    since = ticked and instant(ticked)
    metrics = [Metric("pdm_sensor_tick_seconds", look.now.timestamp() - ticked, {})] if ticked else []
    if not state.is_running:
        if takes_daily(look.dagster):
            return Said(Level.OK, "the landing sensor is off, daily_scoring is on", metrics=())
        todo = "turn it on in the UI (Automation), or daily_scoring in its place"
        return Said(Level.WARN, "the landing sensor is off: what lands is not taken", todo, since)
    age = look.now.timestamp() - (ticked or 0)
    if age > SILENT_SENSOR_S:
        what = f"the landing sensor has not ticked for {length(age)}"
        todo = "does the code location load (UI, Deployment)? Its log says why not; then start code server and daemon again"
        return Said(Level.CRITICAL, what, todo, since, metrics)
    tick = next(iter(look.dagster.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)), None)
    if tick is not None and tick.status == TickStatus.FAILURE:
        why = first_line(tick.error.message) if tick.error else "no reason is kept"
        what = f"the landing sensor's last tick failed: {why}"
        return Said(Level.CRITICAL, what, "the tick in the UI (Automation) has the whole error", since, metrics)
    return Said(Level.OK, f"the landing sensor ticked {length(age)} ago", metrics=metrics)


def takes_daily(instance: dg.DagsterInstance) -> bool:
    """Whether the schedule takes what has landed, in place of the sensor."""
    state = _instigator(instance, InstigatorType.SENSOR, landing_sensor.name)
    schedule = _instigator(instance, InstigatorType.SCHEDULE, daily_scoring.name)
    return state is not None and not state.is_running and schedule is not None and schedule.is_running


def _instigator(instance: dg.DagsterInstance, kind: InstigatorType, name: str) -> InstigatorState | None:
    found = [state for state in instance.all_instigator_state(instigator_type=kind) if state.instigator_name == name]
    return found[-1] if found else None


def web(look: Look) -> Said:
    """With --web: does the web server answer, and is the code location loaded there?"""
    if look.web is None:
        raise NotAsked("no --web given")
    query = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
    request = urllib.request.Request(
        f"{look.web.rstrip('/')}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=WEB_PATIENCE_S) as answer:
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        what = f"the web server does not answer as Dagster's does ({type(error).__name__})"
        return Said(Level.CRITICAL, what, "start it again; its log says why it ended")
    loaded = "RepositoryLocation"
    if bad := [str(each["name"]) for each in entries if (each["locationOrLoadError"] or {}).get("__typename") != loaded]:
        what = f"code location not loaded: {', '.join(bad)}"
        todo = "the UI (Deployment) shows the error: mend what it names, and reload the location there"
        return Said(Level.CRITICAL, what, todo)
    return Said(Level.OK, f"it answers, {len(entries)} code location loaded")


def failed_runs(look: Look) -> Said:
    """Of each request the latest try, if that failed and no later run has made it good: its days are as they were."""
    latest: dict[str, RunRecord] = {}
    since = look.now - LOOK_BACK_DAYS * DAY
    records = look.dagster.get_run_records(dg.RunsFilter(updated_after=since), limit=RUNS_LOOKED_AT)
    for record in records:  # the newest first
        latest.setdefault(_root(record.dagster_run), record)
    failed, again = [], []
    for record in latest.values():
        run = record.dagster_run
        waits = run.is_complete_and_waiting_to_retry and (look.now - _ended(record)).total_seconds() < TRIED_AGAIN_S
        if waits or (not run.is_finished and run.root_run_id is not None):
            again.append(record)
        elif run.status == dg.DagsterRunStatus.FAILURE and (_days_of(run) or look.now - _ended(record) < FAILED_WITHIN):
            later = [each.dagster_run for each in records if each.storage_id > record.storage_id]
            if not any(each.is_success and _makes_good(each, run) for each in later):
                failed.append(record)
    metrics = [Metric("pdm_failed_runs", len(failed), {})]
    if failed:
        what = f"{len(failed)} runs failed: {few([_named(each) for each in failed])}"
        todo = "read the error in the run's page; mend what it names, and re-execute it there"
        return Said(Level.CRITICAL, what, todo, min(map(_ended, failed)), metrics)
    if again:
        what = f"{len(again)} failed runs are tried again: {few([_named(each) for each in again])}"
        return Said(Level.WARN, what, "wait: of a fault of the machine it passes", min(map(_ended, again)), metrics)
    return Said(Level.OK, "no run failed that was not made good", metrics=metrics)


def _makes_good(later: dg.DagsterRun, failed: dg.DagsterRun) -> bool:
    """Whether a run that succeeded took all days and assets of one that failed, or was asked for the same."""
    days, its = _days_of(later), _days_of(failed)
    if its is None:
        return days is None and (later.job_name, later.run_config) == (failed.job_name, failed.run_config)
    if days is None or not days[0] <= its[0] <= its[1] <= days[1]:
        return False
    if later.asset_selection:
        its_assets = failed.asset_selection or frozenset()
        return bool(its_assets) and its_assets <= later.asset_selection
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
    return instant(record.end_time) if record.end_time else record.update_timestamp


def runs_under_way(look: Look) -> Said:
    """For how long has the oldest run been waiting or going on?"""
    records = look.dagster.get_run_records(dg.RunsFilter(statuses=UNDER_WAY), limit=RUNS_LOOKED_AT)
    if not records:
        return Said(Level.OK, "no run is under way", metrics=[Metric("pdm_run_under_way_seconds", 0, {})])
    oldest = min(records, key=lambda record: record.create_timestamp)
    age = (look.now - oldest.create_timestamp).total_seconds()
    level, status = level_of(age, UNDER_WAY_S), oldest.dagster_run.status.value.lower()
    what = f"{len(records)} runs are under way, the oldest {_named(oldest)} {status} for {length(age)}"
    todo = "what does its page say last? Is another run in the pool spark before it? Cancel it there if it hangs"
    return Said(level, what, todo, oldest.create_timestamp, [Metric("pdm_run_under_way_seconds", age, {})])


def checks(look: Look) -> Said:
    """Which asset checks failed when they were last asked?"""
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
    return Said(Level.CRITICAL if by["error"] else Level.WARN, f"{len(failing)} fail: {few(words)}", todo, since, metrics)


def _severity(record: AssetCheckExecutionRecord) -> str:
    assert record.evaluation is not None
    return record.evaluation.severity.value.lower()


def _words(record: AssetCheckExecutionRecord) -> str:
    words = first_line(record.evaluation.description or "") if record.evaluation else ""
    return f" ({words[:SAID]}{' ...' if len(words) > SAID else ''})" if words else ""


def _failing_since(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dt.datetime:
    since = 0.0
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=CHECKS_LOOKED_AT, status=EVALUATED):
        if record.status != AssetCheckExecutionRecordStatus.FAILED:
            break
        since = record.create_timestamp
    return instant(since)
