"""The platform as Dagster sees it: files land, become raw tables, features and labels, a model, scores."""

from typing import Any

import dagster as dg

from pdm_assets.assets import ASSETS
from pdm_assets.automation import JOBS, SCHEDULES, SENSORS
from pdm_assets.checks import CHECKS
from pdm_assets.partitions import SETTINGS
from pdm_assets.resources.delta_io import DeltaIOManager
from pdm_assets.resources.faults import faults_are_told
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.resources.reports import Reports
from pdm_assets.resources.spark import SparkEngine

spark = SparkEngine.of(SETTINGS)
lake = Lake.of(SETTINGS, spark)

assets = ASSETS
resources: dict[str, Any] = {
    "spark": spark,
    "lake": lake,
    "landing": Landing.of(SETTINGS),
    "model_store": ModelStore.of(SETTINGS, lake),
    "reports": Reports(root=str((SETTINGS.data / "reports").absolute())),
    "io_manager": DeltaIOManager(lake=lake),
}
if SETTINGS.databricks_compute is not None:  # the library takes seconds to import
    from pdm_assets.assets.by_job import by_job
    from pdm_assets.resources.databricks_jobs import HEAVY, DatabricksJobs

    assets = [by_job(asset) if asset.keys <= HEAVY else asset for asset in ASSETS]
    resources["databricks"] = DatabricksJobs.of(SETTINGS, lake)

defs = dg.Definitions(
    assets=[asset.with_hooks({faults_are_told}) for asset in assets],
    asset_checks=[check.with_hooks({faults_are_told}) for check in CHECKS],
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources=resources,
    # A query has one thread and a run one step at a time; a process per step would only add start-ups.
    executor=dg.in_process_executor,
)
