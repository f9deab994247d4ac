"""The sensor that materializes the days for which files have landed. It starts no Spark."""

import datetime as dt
import itertools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG

from pdm_assets.assets import features, raw, training
from pdm_assets.automation.jobs import process_days
from pdm_assets.automation.plan import Request, SeenStore, mark_days, next_request
from pdm_assets.models.windows import first_possible_cutoff
from pdm_assets.partitions import DAILY, LOOKBACK_DAYS, SETTINGS
from pdm_assets.resources.faults import TRIED_AGAIN
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.raw import RAW_TABLES, TELEMETRY

CURSOR_VERSION = 1
WATCHED_S = 4.0  # a tick that finds nothing new stays for so long: the next one comes five seconds after it began
QUIET_S = 2.0  # files that land together are gathered: it waits until none has come for so long,
PATIENCE_S = 30.0  # but no longer than this
FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0  # after a run that failed of a fault; doubled with each that follows
FAULTS_BORNE = 24  # one after the other: about a day
TRIES_A_REQUEST = 4  # max_retries of dagster.yaml, and the first
MOST = 2**52  # of a number in the cursor; the milliseconds since 1970 are a 2,000th of it
FILES_NAMED = 20  # of those that are passed over
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
BEFORE_SCORES = [
    *(key for asset in raw.ASSETS for key in asset.keys),
    *features.observations.keys,
    *features.component_failures.keys,
    *training.failure_model.keys,
]


@dg.sensor(
    job=process_days,
    # Dagster comes by every five seconds and measures from when a tick got going, a little later: with five in here, many a
    # time would be too soon, and the next one five seconds away.
    minimum_interval_seconds=4,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Materializes the days whose files are new or changed, and the days after them that look back on them.",
)
def landing_sensor(
    context: dg.SensorEvaluationContext, landing: Landing, model_store: dg.ResourceParam[ModelStore]
) -> dg.SensorResult | dg.SkipReason:
    """Request the earliest range of dirty days as one run; while one is under way, files gather for the next."""
    cursor = _read_cursor(context.cursor)
    under_way = context.instance.get_runs(
        dg.RunsFilter(statuses=UNDER_WAY, tags={"dagster/sensor_name": context.sensor_name}), limit=1
    )
    if under_way:
        return dg.SkipReason(f"run {under_way[0].run_id[:8]} is under way: what lands meanwhile goes into the next one")
    now = dt.datetime.now(dt.UTC).timestamp()
    failed = _failed_of_a_fault(context, now)
    # Meanwhile nothing else is requested: made without these days, later ones would be made of less. A clock that was set back
    # must not make the wait longer.
    if failed is not None and 0 < (wait := failed.again_at - now) <= LONGEST_WAIT_S:
        return dg.SkipReason(f"{failed.words} (at the latest in {wait:.0f} s)")
    until = time.monotonic() + WATCHED_S
    while True:
        was = landing.folders()
        if (found := _look(cursor, failed, landing, model_store)) is not None:
            return found
        if not landing.differs_from(was, until - time.monotonic()):
            return dg.SensorResult(skip_reason=_nothing_new(landing), cursor=_cursor(cursor.get("seen"), **_counted(cursor)))
        cursor["waiting_since"] = None  # nothing was: what has come now is waited for from now on


def _look(
    cursor: dict[str, Any], failed: "_Failed | None", landing: Landing, model_store: ModelStore
) -> dg.SensorResult | dg.SkipReason | None:
    """What to request, or why nothing yet; None if nothing new has landed."""
    # Better to wait here, for less than two seconds, than to come back in five.
    if (age := landing.seconds_since_last_change()) < QUIET_S:
        time.sleep(QUIET_S - age)
    if (busy := landing.stage_in_background()) is not None:
        return dg.SkipReason(f"reading {busy}")
    now = dt.datetime.now(dt.UTC)
    waiting_since = _number(cursor, "waiting_since", now.timestamp())
    # abs: a clock that was set back
    if landing.seconds_since_last_change() < QUIET_S and abs(now.timestamp() - waiting_since) < PATIENCE_S:
        return dg.SensorResult(
            skip_reason="files are still landing",
            cursor=_cursor(cursor.get("seen"), waiting_since, **_counted(cursor)),
        )
    store = SeenStore(Path(landing.staging) / "seen")
    touched = {key: landing.zone.days_touched(key) for key in raw.EVENT_TABLES}

    def is_partition(day: dt.date) -> bool:
        return DAILY.has_partition_key(day.isoformat())

    marks = mark_days(touched, landing.zone.machine_lists(), now, is_partition)
    # A day that a setting has cut off since is not asked for as one that was taken away.
    seen = {day: mark for day, mark in store.load(cursor.get("seen")).items() if is_partition(day)}
    if failed is not None:  # one of its days may have no mark any more, for its file was taken away
        days = (failed.first + dt.timedelta(days=n) for n in range((failed.last - failed.first).days + 1))
        seen |= {day: {} for day in days if is_partition(day)}
    found = next_request(marks, seen, LOOKBACK_DAYS, SETTINGS.horizon_days)
    if found is None:
        return None
    request, will_be_seen = found
    # Counted, for Dagster drops a run key that it knows: the same days may come to the same files once more. Without a readable
    # cursor the count begins where no earlier one was.
    number = int(_number(cursor, "requests", now.timestamp() * 1000)) + 1
    can_score = _can_score(request.last, min(touched[TELEMETRY.key], default=request.first), model_store)
    return dg.SensorResult(
        run_requests=[_run_request(request, can_score, number)],
        cursor=_cursor(store.save(will_be_seen), requests=number),
    )


class _Failed(NamedTuple):
    """Days whose run failed of a fault, and when they are to be requested again."""

    first: dt.date
    last: dt.date
    again_at: float
    words: str


def _failed_of_a_fault(context: dg.SensorEvaluationContext, now: float) -> _Failed | None:
    """The days of the sensor's newest run, if that failed of what the machine did to it.

    To look at the newest is enough: until its days are requested again, the sensor requests nothing else.
    """
    newest = context.instance.get_run_records(
        dg.RunsFilter(tags={"dagster/sensor_name": context.sensor_name}), limit=FAULTS_BORNE * TRIES_A_REQUEST
    )
    faults = list(itertools.takewhile(lambda record: _is_fault(record.dagster_run), newest))
    requests = sum(1 for record in faults if record.dagster_run.root_run_id is None)
    if not faults or requests >= FAULTS_BORNE:
        return None
    run, ended_at = faults[0].dagster_run, faults[0].end_time or now
    days = run.tags["landing/days"].split("..")
    first, last = dt.date.fromisoformat(days[0]), dt.date.fromisoformat(days[-1])
    if run.is_complete_and_waiting_to_retry and now - ended_at < LONGEST_WAIT_S:
        return _Failed(first, last, ended_at + LONGEST_WAIT_S, f"run {run.run_id[:8]} failed and is about to be tried again")
    again_at = ended_at + min(FIRST_WAIT_S * 2 ** max(requests - 1, 0), LONGEST_WAIT_S)
    return _Failed(first, last, again_at, f"run {run.run_id[:8]} failed of what its log names: its days are requested again")


def _is_fault(run: dg.DagsterRun) -> bool:
    """Whether a run's process died, or an asset failed of what faults.py knows."""
    is_of_an_asset = run.tags.get(RUN_FAILURE_REASON_TAG) == RunFailureReason.STEP_FAILURE.value
    return run.status == dg.DagsterRunStatus.FAILURE and (run.tags.get(TRIED_AGAIN) == "true" or not is_of_an_asset)


def _nothing_new(landing: Landing) -> str:
    over = [f"{t.name}/{name} ({why})" for t in RAW_TABLES for name, why in landing.zone.passed_over(t.key).items()]
    return "nothing new has landed" + (f". Passed over: {'; '.join(over[:FILES_NAMED])}" if over else "")


def _can_score(last: dt.date, history_begins: dt.date, store: ModelStore) -> bool:
    """Whether a model is in force for the last day, or there is history enough to train one in the same run.

    Told by what landed: an early row that is refused later makes it too soon, and the days are then made without scores.
    """
    if last >= first_possible_cutoff(history_begins, SETTINGS):
        return True
    return store.in_force(last, store.registered(), store.decisions()) is not None


def _run_request(request: Request, can_score: bool, number: int) -> dg.RunRequest:
    first, last = request.first.isoformat(), request.last.isoformat()
    tags = {"landing/reason": request.reason, "landing/days": first if first == last else f"{first}..{last}"}
    key = f"{first}..{last}:{request.fingerprint}:{number}"
    selection = None if can_score else BEFORE_SCORES
    if first == last:
        return dg.RunRequest(run_key=key, partition_key=first, tags=tags, asset_selection=selection)
    range_tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return dg.RunRequest(run_key=key, tags={**tags, **range_tags}, asset_selection=selection)


def _read_cursor(text: str | None) -> dict[str, Any]:
    """The cursor's content; nothing, if it is from another version or damaged."""
    try:
        cursor = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return cursor if isinstance(cursor, dict) and cursor.get("version") == CURSOR_VERSION else {}


def _number(cursor: dict[str, Any], name: str, otherwise: float) -> float:
    """A number of the cursor, which may be damaged: one that no clock or count has reached is none."""
    number = cursor.get(name)
    return number if isinstance(number, int | float) and 0 < number < MOST else otherwise


def _counted(cursor: dict[str, Any]) -> dict[str, int]:
    number = int(_number(cursor, "requests", 0))
    return {"requests": number} if number else {}


def _cursor(seen: str | None, waiting_since: float | None = None, **requests: int) -> str:
    return json.dumps({"version": CURSOR_VERSION, "seen": seen, "waiting_since": waiting_since, **requests})
