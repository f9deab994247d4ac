"""A data root as a running platform leaves it, made by hand: small Delta tables, landed files, Dagster's database. No Spark."""

import datetime as dt
import os
import shutil
from pathlib import Path

import dagster as dg
import pyarrow as pa
from dagster._core.events import DagsterEvent, DagsterEventType, JobFailureData, RunFailureReason
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, SensorInstigatorData
from dagster._daemon.types import DaemonHeartbeat
from deltalake import write_deltalake

from pdm_assets.demo import make_home
from pdm_assets.health.look import SCORED_BY_HOUR, Said
from pdm_assets.health.rules import look_at
from pdm_assets.resources.landing import LandingZone
from pdm_assets.settings import Settings
from pdm_assets_tests.plant import HEADERS
from pdm_assets_tests.upkeep.saved import MODEL, unpack

DAY = dt.timedelta(days=1)
# Whole seconds: a file's time is a float, and a microsecond does not come back from one as it went in.
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DUE = (NOW - dt.timedelta(hours=SCORED_BY_HOUR)).date() - DAY  # the newest day that should be scored
FIRST = DUE - 400 * DAY
LANDED = NOW - dt.timedelta(hours=3)


class DataRoot:
    """All is well in it, once it is filled; each test makes one thing worse in a copy of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings(data=root, first_day=FIRST)
        self.zone = LandingZone(root / "landing", root / "staging", FIRST)
        self.home = make_home(root)
        self.origin = RemoteRepositoryOrigin(
            GrpcServerCodeLocationOrigin(host="localhost", port=4000, location_name="pdm_assets"), "__repository__"
        )

    def fill(self) -> "DataRoot":
        """Forty days that landed, were taken and scored by a model, and a Dagster that lives."""
        with self.instance() as instance:
            self.beat(instance)
            self.ticked(instance)
        self.land(DUE)
        month = [DUE - n * DAY for n in range(40)]
        self.table("raw/telemetry", [FIRST, *month])
        self.table("features/observations", [FIRST, *month])
        self.table("models/failure_model", month, model_version=MODEL)
        self.table("scores/component_risk", month)
        unpack(self.root / "saved")
        shutil.copytree(self.root / "saved" / "models", self.root / "models")
        shutil.rmtree(self.root / "saved")
        self.model(DUE - 10 * DAY)
        return self

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home))

    def table(self, key: str, days: list[dt.date], rows: int = 4, **more: str) -> None:
        """A table with so many rows of each of the days, in the columns that are asked for; written anew."""
        dates = [day for day in days for _ in range(rows)]
        columns = {
            "machine_id": [1] * len(dates),
            "date": dates,
            **{name: [value] * len(dates) for name, value in more.items()},
        }
        write_deltalake(self.root / "lake" / key, pa.table(columns), partition_by=["date"], mode="overwrite")

    def model(self, cutoff: dt.date, decision: str = "promoted") -> None:
        """The one registered model, and what was decided on it."""
        at = dt.datetime.combine(cutoff, dt.time(), dt.UTC)
        registered = {"model_version": [MODEL], "model_type": ["decision_tree"], "horizon_hours": [48], "cutoff_at": [at]}
        decided = {"model_version": [MODEL], "decision": [decision], "in_force_from": [cutoff], "decided_at": [at]}
        said = {"decided_by": ["gate"], "reason": ["as asked"]}
        for name, columns in (("registry", {**registered, "trained_at": [at]}), ("decisions", {**decided, **said})):
            write_deltalake(self.root / "lake" / "models" / name, pa.table(columns), mode="overwrite")

    def land(self, day: dt.date, header: str | None = None, *, at: dt.datetime = LANDED, staged: bool = True) -> Path:
        """A telemetry file of a day, landed at a time; staged as the sensor does it."""
        path = self.root / "landing" / "telemetry" / f"{day}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{header or HEADERS['telemetry']}\n{day} 06:00:00,1,170,400,100,40\n")
        os.utime(path, (at.timestamp(), at.timestamp()))
        if staged:
            self.zone.staged("raw/telemetry")
        return path

    def beat(self, instance: dg.DagsterInstance, at: dt.datetime = NOW) -> None:
        """Every daemon says that it lives."""
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), kind, "a-daemon", []))

    def ticked(
        self, instance: dg.DagsterInstance, at: dt.datetime = NOW, status: InstigatorStatus = InstigatorStatus.DECLARED_IN_CODE
    ) -> InstigatorState:
        """The landing sensor's state after its last tick."""
        data = SensorInstigatorData(last_tick_timestamp=at.timestamp(), min_interval=5)
        state = InstigatorState(RemoteInstigatorOrigin(self.origin, "landing_sensor"), InstigatorType.SENSOR, status, data)
        known = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
        return instance.update_instigator_state(state) if known else instance.add_instigator_state(state)

    def run(self, job: str, status: dg.DagsterRunStatus, day: dt.date | None = None, *, died: bool = False, **more) -> str:
        """A run that is so, or ended so: of an error of its data, or because its process died; its id."""
        tags = {**({"dagster/partition": day.isoformat()} if day else {}), **more.pop("tags", {})}
        ended = status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
        origin = RemoteJobOrigin(self.origin, job)
        begun = dg.DagsterRunStatus.STARTED if ended else status
        run = dg.DagsterRun(job, status=begun, tags=tags, remote_job_origin=origin, **more)
        kind = DagsterEventType.RUN_SUCCESS if status == dg.DagsterRunStatus.SUCCESS else DagsterEventType.RUN_FAILURE
        reason = JobFailureData(None, RunFailureReason.RUN_EXCEPTION if died else RunFailureReason.STEP_FAILURE)
        data = reason if kind == DagsterEventType.RUN_FAILURE else None
        with self.instance() as instance:
            instance.add_run(run)
            if ended:
                instance.report_dagster_event(DagsterEvent(kind.value, job, event_specific_data=data), run_id=run.run_id)
        return run.run_id

    def checked(self, name: str, asset: str, passed: bool, severity: str = "ERROR", words: str | None = None) -> None:
        """An evaluation of a check, as Dagster keeps it."""
        key = dg.AssetKey(asset.split("/"))
        found = dg.AssetCheckEvaluation(
            check_name=name,
            asset_key=key,
            passed=passed,
            severity=dg.AssetCheckSeverity(severity),
            description=words,
            metadata={},
        )
        with self.instance() as instance:
            instance.report_runless_asset_event(found)

    def says(self, *, now: dt.datetime = NOW, **options) -> dict[str, Said]:
        """What each rule says."""
        return {each.rule: each.said for each in look_at(options.pop("settings", self.settings), self.home, now, **options)}
