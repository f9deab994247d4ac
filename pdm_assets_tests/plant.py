"""A small plant for tests of the assets: files that land, and runs as the platform's, on the session's engine."""

import datetime as dt
import os
import time
from pathlib import Path

import dagster as dg

from pdm_assets.assets import ASSETS
from pdm_assets.checks import CHECKS
from pdm_assets.checks.scoring import yesterday_is_scored
from pdm_assets.resources.delta_io import DeltaIOManager
from pdm_assets.resources.faults import faults_are_told
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.reports import Reports
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.builders import day

WIRED = [
    *(asset.with_hooks({faults_are_told}) for asset in ASSETS),
    # it asks the clock
    *(check.with_hooks({faults_are_told}) for check in CHECKS if check is not yesterday_is_scored),
]
UP_TO_LABELS = "machines telemetry errors maintenance failures observations component_failures"
HEADERS = {
    "telemetry": "datetime,machineID,volt,rotate,pressure,vibration",
    "errors": "datetime,machineID,errorID",
    "maintenance": "datetime,machineID,comp",
    "failures": "datetime,machineID,failure",
    "machines": "machineID,model,age",
}


class Plant:
    """Files below a root of its own, and materializations of their days."""

    def __init__(self, root: Path, engine: SparkEngine, first_day: str = "2015-01-01") -> None:
        self.landing = root / "landing"
        self.lake = Lake(spark=engine, root=str(root / "lake"))
        self.store = ModelStore(lake=self.lake, root=str(root / "models"), horizon_hours=48)
        self.instance = dg.DagsterInstance.ephemeral()
        self.resources = {
            "spark": engine,
            "lake": self.lake,
            "landing": Landing(root=str(self.landing), staging=str(root / "staging"), first_day=first_day),
            "model_store": self.store,
            "reports": Reports(root=str(root / "reports")),
            "io_manager": DeltaIOManager(lake=self.lake),
        }

    def land(self, table: str, name: str, *rows: str, header: str | None = None) -> None:
        """Put a file there as if it had landed a while ago, after all that are there already."""
        folder = self.landing / table
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join([header or HEADERS[table], *rows]) + "\n")
        at = time.time() - 1000 + sum(1 for _ in self.landing.rglob("*"))
        os.utime(folder / name, (at, at))

    def land_fleet(self, *machines: int) -> None:
        self.land("machines", "machines.csv", *(f"{machine},model3,18" for machine in machines))

    def land_telemetry(self, *days: str, machines: tuple[int, ...] = (1, 2), volt: float = 170.0, name: str = "") -> None:
        rows = [f"{d} {hour:02d}:00:00,{m},{volt + hour},400,100,40" for m in machines for d in days for hour in range(24)]
        self.land("telemetry", name or f"{days[0]}.csv", *rows)

    def run(
        self, first: str, last: str | None = None, *, tables: str = UP_TO_LABELS, run_config: dict | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialize tables (their last names or keys) for a day or a range; the result, failed or not."""
        keys = [key for asset in WIRED if isinstance(asset, dg.AssetsDefinition) for key in asset.keys]
        # raw/maintenance and worklist/maintenance share their last name: the latter is asked for by its whole key
        names = set(tables.split())
        wanted = [key for key in keys if key.to_user_string() in names or (key.path[-1] in names and key.path[0] != "worklist")]
        return dg.materialize(
            WIRED,
            selection=dg.AssetSelection.assets(*wanted) | dg.AssetSelection.checks_for_assets(*wanted),
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first},
            resources=self.resources,
            instance=self.instance,
            run_config=run_config,
            raise_on_error=False,
        )

    def rows(self, table: str, first: str, last: str, *columns: str) -> list[tuple]:
        """The rows of some days, ordered, without Spark."""
        found = self.lake.rows(TABLES[table], day(first), day(last) + dt.timedelta(days=1), columns=list(columns))
        return sorted(tuple(row[name] for name in columns) for row in found)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run says to its user."""
    assert not result.success
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    texts = [str(error.cause.message if error.cause else error.message) for error in errors if error]
    descriptions = [
        event.step_failure_data.user_failure_data.description or ""
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    ]
    return "\n".join([*texts, *descriptions])


def check(result: dg.ExecuteInProcessResult, asset: str, name: str) -> dg.AssetCheckEvaluation:
    """The outcome of one check of a run."""
    (found,) = [
        e for e in result.get_asset_check_evaluations() if e.asset_key.to_user_string() == asset and e.check_name == name
    ]
    return found


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, dict]:
    """By day, what a run said of an asset's materialization."""
    return {
        event.partition: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key.to_user_string() == asset
    }
