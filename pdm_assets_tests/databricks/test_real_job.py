"""The wheel of this checkout as a job: the features made there are those that Spark makes here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pdm_assets.assets import features, raw, scoring, training
from pdm_assets.assets.by_job import by_job
from pdm_assets.resources.databricks_jobs import DatabricksJobs
from pdm_assets.resources.engine import delta_conf
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import Settings
from pdm_assets_tests.databricks.stand_in import Workspace
from pdm_assets_tests.plant import Plant, failure, metadata

pytestmark = pytest.mark.slow  # two starts of Spark, and of the platform in it

ROOT = Path(__file__).parents[2]
DAYS = "2015-01-01", "2015-01-02", "2015-01-03"


@pytest.fixture
def wheel(tmp_path):
    """Built from what git would commit."""
    source = tmp_path / "source"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "pdm_assets", "pyproject.toml", "README.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    out = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True, text=True)
    return tmp_path / out.stdout.split()[-1]


def test_what_a_job_makes_is_what_spark_makes_here(tmp_path, engine, wheel, monkeypatch):
    volume = tmp_path / "Volumes" / "main" / "pdm" / "jobs"
    volume.mkdir(parents=True)
    conf = tmp_path / "conf"  # what a cluster of Databricks has of itself
    conf.mkdir()
    settings = {**delta_conf(1, tmp_path / "cluster"), "spark.master": "local[1]", "spark.driver.memory": "1g"}
    (conf / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    compute = tmp_path / "compute.json"
    cluster = {"spark_version": "17.3.x-scala2.13", "num_workers": 1}
    compute.write_text(json.dumps({"new_cluster": cluster, "libraries": [{"whl": str(wheel)}]}))

    here, there = Plant(tmp_path / "here", engine), Plant(tmp_path / "there", engine)
    for plant in (here, there):
        plant.land_fleet(1, 2)
        plant.land_telemetry(*DAYS)
        plant.land("maintenance", "maint.csv", "2014-12-20 06:00:00,1,comp2")
        plant.land("errors", "errors.csv", "2015-01-02 05:00:00,2,error3")
        plant.land("failures", "failures.csv", "2015-01-03 04:00:00,2,comp1")
    first, last = DAYS[0], DAYS[-1]
    result = here.run(first, last)
    assert result.success, failure(result)
    result = there.run(first, last, tables="machines telemetry errors maintenance failures")
    assert result.success, failure(result)

    with Workspace(volume, {"SPARK_CONF_DIR": str(conf), "HOME": str(tmp_path)}) as workspace:
        for name, value in workspace.client_environ.items():
            monkeypatch.setenv(name, value)
        asked = Settings(data=tmp_path / "there", databricks_compute=compute, databricks_volume=str(volume))
        jobs = DatabricksJobs(**{**dict(DatabricksJobs.of(asked, there.lake)), "poll_seconds": 0.5})
        made = dg.materialize(
            [*raw.ASSETS, *map(by_job, (features.observations, scoring.component_risk, training.failure_model))],
            selection=dg.AssetSelection.assets(features.observations.key, training.failure_model.key),
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            resources={**there.resources, "databricks": jobs},
            instance=there.instance,
            raise_on_error=False,
        )
        outputs = "\n".join(run.output for run in workspace.runs.values())
    assert made.success, failure(made) + outputs
    columns = TABLES["features/observations"].column_names
    assert there.rows("features/observations", first, last, *columns) == here.rows(
        "features/observations", first, last, *columns
    )
    assert len(there.rows("features/observations", first, last, "machine_id")) == 3 * 2 * 2
    said, expected = (metadata(each, "features/observations") for each in (made, result_of(here, first, last)))
    for day in DAYS:
        assert said[day]["dagster/partition_row_count"] == expected[day]["dagster/partition_row_count"] == 4
        assert said[day]["dagster/column_schema"] == expected[day]["dagster/column_schema"]
        assert said[day]["dagster/column_lineage"] == expected[day]["dagster/column_lineage"]
        assert said[day]["preview"] == expected[day]["preview"]
    models = metadata(made, "models/failure_model")
    assert {day: models[day]["status"] for day in DAYS} == dict.fromkeys(DAYS, "too little history")


def result_of(plant, first, last):
    return plant.run(first, last, tables="observations")
