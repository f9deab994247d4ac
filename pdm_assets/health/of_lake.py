"""Rules that ask the data root: landed files, tables, models, the disk, backups. None starts Spark."""

import datetime as dt
import shutil

from pdm_assets.assets.raw import EVENT_TABLES, REJECTED_SHARE
from pdm_assets.engine.java import JavaError, java_home
from pdm_assets.health.look import (
    BACKUP_DAYS,
    DAY,
    DISK_FREE,
    LOOK_BACK_DAYS,
    SCORED_BY_HOUR,
    UNSCORED_DAYS,
    WAITING_FOR_THE_SCHEDULE_S,
    WAITING_S,
    Level,
    Look,
    Metric,
    NotAsked,
    Said,
    begin,
    instant,
    length,
    level_of,
)
from pdm_assets.health.of_dagster import takes_daily
from pdm_assets.resources.lake import LakeError, LakeGone
from pdm_assets.resources.landing import LandingGone
from pdm_assets.resources.model_store import NoSuchModel
from pdm_assets.resources.verify import few, first_line
from pdm_assets.schemas.features import COMPONENT_RISK, FAILURE_MODEL, OBSERVATIONS
from pdm_assets.schemas.raw import RAW_TABLES, TELEMETRY, quarantine_of
from pdm_assets.schemas.table import DATE
from pdm_assets.schemas.tables import TABLES


def files(look: Look) -> Said:
    """Are the landed files there, which of them were refused, and what lies there that is never taken?"""
    try:
        for table in RAW_TABLES:
            look.zone.must_be_there(table.key)
    except LandingGone as error:
        what, _, todo = str(error).partition(": ")
        return Said(Level.CRITICAL, what, todo)
    refused = [(table.name, file) for table in RAW_TABLES for file in look.zone.known(table.key)[0] if file.refusal]
    metrics = [Metric("pdm_refused_files", len(refused), {})]
    over = [f"{t.name}/{name} ({why})" for t in RAW_TABLES for name, why in look.zone.passed_over(t.key).items()]
    if not refused and over:
        return Said(
            Level.WARN, f"{len(over)} are passed over: {few(over)}", "land them as files that can be taken", None, metrics
        )
    if not refused:
        return Said(Level.OK, "no landed file is refused", metrics=metrics)
    since = min(instant(file.mtime_ns / 1e9) for _, file in refused)
    what = f"{len(refused)} files were refused: {few([f'{table}/{file.name}' for table, file in refused])}"
    todo = "every_landed_file_was_taken says why; land them corrected, then delete the refused ones"
    return Said(Level.CRITICAL, what, todo, since, metrics)


def landed(look: Look) -> Said:
    """Days whose newest file is younger than the day's tables, and files that nobody has read yet."""
    first, end = max(look.settings.first_day, look.last_day - LOOK_BACK_DAYS * DAY), look.last_day + DAY
    unread = [file.mtime_ns / 1e9 for table in RAW_TABLES for file in look.zone.known(table.key)[1]]
    waiting: dict[dt.date, float] = {}
    for table in (TABLES[key] for key in EVENT_TABLES):
        written = [look.lake.written_at(each, first, end) for each in (table, quarantine_of(table))]
        for file in look.zone.known(table.key)[0]:
            landed = min(file.mtime_ns / 1e9, look.now.timestamp())  # a clock that is ahead where it came from
            for day in (max(day, look.settings.first_day) for day in file.rows_by_day or ()):
                taken = max((at[day].timestamp() for at in written if day in at), default=0.0)
                if first <= day < end and landed > taken:
                    waiting[day] = min(landed, waiting.get(day, landed))
    oldest = min([*waiting.values(), *unread], default=None)
    age = max(0.0, look.now.timestamp() - oldest) if oldest is not None else 0.0
    metrics = [Metric("pdm_waiting_days", len(waiting), {}), Metric("pdm_waiting_seconds", age, {})]
    if oldest is None:
        return Said(Level.OK, f"what landed for the last {LOOK_BACK_DAYS} days is in the tables", metrics=metrics)
    said = [f"files of {few(sorted(waiting))} are in no table"] if waiting else []
    said += [f"{len(unread)} files were not read yet"] if unread else []
    todo = "is the landing sensor on, what do its ticks say? Is a run under way, or did one fail? May the files be read?"
    limits = WAITING_FOR_THE_SCHEDULE_S if look.instance and takes_daily(look.instance) else WAITING_S
    return Said(level_of(age, limits), f"{' and '.join(said)}, for {length(age)}", todo, instant(oldest), metrics)


def lake(look: Look) -> Said:
    """Is the lake there?"""
    if look.why_no_lake:
        todo = "see to network, endpoint and credentials of the object store"
        return Said(Level.CRITICAL, f"{look.settings.lake} can't be asked: {look.why_no_lake}", todo)
    try:
        look.lake.delta(TELEMETRY)
    except LakeGone as error:
        return Said(Level.CRITICAL, str(error), "mount it, or restore it from a backup")
    except LakeError as error:
        if look.lake.exists(OBSERVATIONS):
            return Said(Level.CRITICAL, f"{error}, but {OBSERVATIONS.key} was: its folder is gone", "restore it from a backup")
        return Said(Level.OK, "no telemetry was taken yet")
    if look.heard is None:
        return Said(Level.OK, "no row of telemetry was taken yet")
    return Said(Level.OK, f"telemetry from {look.heard[0]} to {look.heard[1]}")


def scores(look: Look) -> Said:
    """Are all days scored that should be?"""
    due = min((look.now - dt.timedelta(hours=SCORED_BY_HOUR)).date() - DAY, look.settings.last_day or dt.date.max)
    scored = look.lake.first_and_last_day(COMPONENT_RISK)
    if scored is None:
        if look.first_model_on is None:
            return Said(
                Level.WARN, "there are no scores, for nothing was observed yet", "land files: README, Bring your own data"
            )
        if due < look.first_model_on:
            return Said(Level.OK, f"no scores yet: the first day that has history enough for a model is {look.first_model_on}")
        todo = "has the run failed, is a model in force (`pdm-assets models list`)?"
        return Said(Level.CRITICAL, "no day was ever scored", todo, begin(look.first_model_on))
    behind = max(0, (due - scored[1]).days)
    start = max(scored[0], look.last_day - LOOK_BACK_DAYS * DAY)
    with_model = {row[DATE] for row in look.lake.rows(FAILURE_MODEL, start, scored[1] + DAY) if row["model_version"]}
    observed = look.lake.rows_by_day(OBSERVATIONS, start, scored[1] + DAY)
    scores = look.lake.rows_by_day(COMPONENT_RISK, start, scored[1] + DAY)
    missing = sorted(day for day in with_model if observed[day] and not scores[day])
    metrics = [Metric("pdm_unscored_days", behind, {}), Metric("pdm_missing_score_days", len(missing), {})]
    level = max(level_of(behind, UNSCORED_DAYS), Level(bool(missing)))
    what = f"the newest scored day is {scored[1]}"
    todo = "has its telemetry landed, was it taken? Is the landing sensor on, a model in force?"
    if behind:
        return Said(level, f"{what}, {due} should be", todo, begin(scored[1] + 2 * DAY), metrics)
    if missing:
        todo = "materialize scores/component_risk of these days"
        return Said(level, f"{what}, but days before it have none: {few(missing)}", todo, begin(missing[0] + DAY), metrics)
    return Said(level, what, metrics=metrics)


def quarantine(look: Look) -> Said:
    """How much of each table's newest day can't be used?"""
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
    return Said(Level.WARN, few(said), todo, begin(min(day for _, day in many.values())), metrics)


def model(look: Look) -> Said:
    """Is a whole model in force, and was one trained when it was due?"""
    lake, store, today = look.lake, look.store, look.last_day
    known = store.registered()
    now = store.in_force(today, known, store.decisions())
    if now is None:
        if look.first_model_on is None or today < look.first_model_on:
            return Said(Level.OK, f"none yet: history is enough from {look.first_model_on or 'some day'} on")
        todo = "`pdm-assets models list` says what was decided; a refused one can be promoted by hand"
        return Said(Level.CRITICAL, f"no model is in force ({len(known)} are registered)", todo, begin(look.first_model_on))
    try:
        store.whole(now.version)
    except NoSuchModel as error:
        return Said(Level.CRITICAL, first_line(str(error)), "restore its folder from a backup, or promote another version")
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
        return Said(Level.WARN, what, todo, begin(trained.cutoff + due * DAY), metrics)
    return Said(Level.OK, said, metrics=metrics)


def java(look: Look) -> Said:
    """Is there a Java to fit the next model with?"""
    if look.settings.engine != "duckdb":
        raise NotAsked("PDM_ENGINE=spark: models are fitted by that Spark")
    try:
        return Said(Level.OK, f"models can be fitted with {java_home()}")
    except JavaError as error:
        return Said(Level.WARN, f"no model can be fitted: {first_line(str(error))}", "run scripts/setup.sh, or set JAVA_HOME")


def disk(look: Look) -> Said:
    """How much room is left?"""
    data = look.settings.data.absolute()
    if not data.is_dir():
        return Said(Level.CRITICAL, f"{data} is not there", "is PDM_DATA right, is its disk mounted?")
    usage = shutil.disk_usage(data)
    free = usage.free / usage.total if usage.total else 0.0
    level = Level((free < DISK_FREE[0]) + (free < DISK_FREE[1]))
    todo = "make room; the job upkeep deletes dead files of the tables"
    return Said(level, f"{free:.0%} of {usage.total / 1e9:,.0f} GB free", todo, None, [Metric("pdm_disk_free_share", free, {})])


def backup(look: Look) -> Said:
    """With --backups: how old is the newest?"""
    if look.backups is None:
        raise NotAsked("no --backups given")
    todo = "`pdm-assets backup FOLDER`"
    made = [path.stat().st_mtime for path in look.backups.glob("*.tar.gz")]
    if not made:
        return Said(Level.CRITICAL, f"there is no backup in {look.backups}", todo)
    age = look.now.timestamp() - max(made)
    level = level_of(age / DAY.total_seconds(), BACKUP_DAYS)
    return Said(
        level, f"the newest is {length(age)} old", todo, instant(max(made)), [Metric("pdm_backup_age_seconds", age, {})]
    )
