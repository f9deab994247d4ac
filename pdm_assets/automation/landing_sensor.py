"""The sensor that materializes the days for which files have landed. It starts no Spark."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import dagster as dg

from pdm_assets.assets import features, raw, training
from pdm_assets.automation.jobs import process_days
from pdm_assets.automation.plan import Request, SeenStore, mark_days, next_request
from pdm_assets.models.windows import first_possible_cutoff
from pdm_assets.partitions import DAILY, LOOKBACK_DAYS, SETTINGS
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.raw import RAW_TABLES, TELEMETRY

CURSOR_VERSION = 1
QUIET_S = 2.0  # files that land together are gathered: it waits until none has come for so long,
PATIENCE_S = 30.0  # but no longer than this
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
    minimum_interval_seconds=5,
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
    now = dt.datetime.now(dt.UTC)
    if (busy := landing.stage_in_background()) is not None:
        return dg.SkipReason(f"reading {busy}")
    waiting_since = _number(cursor, "waiting_since", now.timestamp())
    if landing.seconds_since_last_change() < QUIET_S and now.timestamp() - waiting_since < PATIENCE_S:
        return dg.SensorResult(
            skip_reason="files are still landing",
            cursor=_cursor(cursor.get("seen"), waiting_since, **_counted(cursor)),
        )
    store = SeenStore(Path(landing.staging) / "seen")
    touched = {key: landing.zone.days_touched(key) for key in raw.EVENT_TABLES}
    marks = mark_days(
        touched,
        landing.zone.machine_lists(),
        now,
        lambda day: DAILY.has_partition_key(day.isoformat()),
    )
    found = next_request(marks, store.load(cursor.get("seen")), LOOKBACK_DAYS, SETTINGS.horizon_days)
    if found is None:
        return dg.SensorResult(skip_reason=_nothing_new(landing), cursor=_cursor(cursor.get("seen"), **_counted(cursor)))
    request, seen = found
    # Counted, for Dagster drops a run key that it knows: the same days may come to the same files once more. Without a readable
    # cursor the count begins where no earlier one was.
    number = int(_number(cursor, "requests", now.timestamp() * 1000)) + 1
    can_score = _can_score(request.last, min(touched[TELEMETRY.key], default=request.first), model_store)
    return dg.SensorResult(
        run_requests=[_run_request(request, can_score, number)],
        cursor=_cursor(store.save(seen), requests=number),
    )


def _nothing_new(landing: Landing) -> str:
    over = [f"{t.name}/{name} ({why})" for t in RAW_TABLES for name, why in landing.zone.passed_over(t.key).items()]
    return "nothing new has landed" + (f". Passed over: {'; '.join(over[:FILES_NAMED])}" if over else "")


def _can_score(last: dt.date, history_begins: dt.date, store: ModelStore) -> bool:
    """Whether a model is in force for the last day, or there is history enough to train one in the same run."""
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
