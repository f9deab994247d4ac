"""The wheel of this checkout as a job: the features made there are those that Spark makes here."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import dagster as dg
import pytest

from pdm_assets.assets import features, raw, training
from pdm_assets.assets.by_job import by_job
from pdm_assets.engine.spark import delta_conf
from pdm_assets.resources.databricks_jobs import DatabricksJobs
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import Settings
from pdm_assets_tests.databricks.stand_in import Workspace, bare_environ
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


@pytest.fixture
def cluster(tmp_path):
    """What a cluster of Databricks has of itself: Spark with Delta."""
    conf = tmp_path / "conf"
    conf.mkdir()
    settings = {**delta_conf(1, tmp_path / "cluster"), "spark.master": "local[1]", "spark.driver.memory": "1g"}
    (conf / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    of_databricks = {"DATABRICKS_RUNTIME_VERSION": "17.3", "PYSPARK_PYTHON": sys.executable}
    return {"SPARK_CONF_DIR": str(conf), "HOME": str(tmp_path), **of_databricks}


def land(plant):
    plant.land_fleet(1, 2)
    plant.land_telemetry(*DAYS)
    plant.land("maintenance", "maint.csv", "2014-12-20 06:00:00,1,comp2")
    plant.land("errors", "errors.csv", "2015-01-02 05:00:00,2,error3")
    plant.land("failures", "failures.csv", "2015-01-03 04:00:00,2,comp1")


def observations(plant):
    return plant.rows("features/observations", DAYS[0], DAYS[-1], *TABLES["features/observations"].column_names)


def assert_same(found, expected):
    """Equal, but for the last digits of sums of doubles: Spark made the one, DuckDB the other."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert [type(value) for value in row] == [type(value) for value in other]
        for value, wanted in zip(row, other, strict=True):
            assert value == (pytest.approx(wanted, rel=1e-9, abs=1e-9) if isinstance(wanted, float) else wanted)


@pytest.fixture
def here(tmp_path, engine):
    """A plant whose tables DuckDB made here."""
    plant = Plant(tmp_path / "here", engine)
    land(plant)
    result = plant.run(DAYS[0], DAYS[-1])
    assert result.success, failure(result)
    assert len(observations(plant)) == 3 * 2 * 2
    return plant, result


def test_what_a_job_makes_is_what_is_made_here(tmp_path, engine, wheel, cluster, here, monkeypatch):
    volume = tmp_path / "Volumes" / "main" / "pdm" / "jobs"
    volume.mkdir(parents=True)
    compute = tmp_path / "compute.json"
    machines = {"spark_version": "17.3.x-scala2.13", "num_workers": 1}
    compute.write_text(json.dumps({"new_cluster": machines, "libraries": [{"whl": str(wheel)}]}))
    plant, result = here
    there = Plant(tmp_path / "there", engine)
    land(there)
    landed = there.run(DAYS[0], DAYS[-1], tables="machines telemetry errors maintenance failures")
    assert landed.success, failure(landed)

    with Workspace(volume, cluster) as workspace:
        for name, value in workspace.client_environ.items():
            monkeypatch.setenv(name, value)
        asked = Settings(data=tmp_path / "there", databricks_compute=compute, databricks_volume=str(volume))
        jobs = DatabricksJobs(**{**dict(DatabricksJobs.of(asked, there.lake)), "poll_seconds": 0.5})
        made = dg.materialize(
            [*raw.ASSETS, *map(by_job, (features.observations, features.component_failures, training.failure_model))],
            selection=dg.AssetSelection.assets(features.observations.key, training.failure_model.key),
            tags={"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]},
            resources={**there.resources, "databricks": jobs},
            instance=there.instance,
            raise_on_error=False,
        )
        outputs = "\n".join(run.output for run in workspace.runs.values())
    assert made.success, failure(made) + outputs
    assert_same(observations(there), observations(plant))
    assert "ASSET_CHECK" not in outputs  # checks are the run's that asked
    said, expected = (metadata(each, "features/observations") for each in (made, result))
    for day in DAYS:
        assert said[day]["dagster/partition_row_count"] == 4
        of_the_last = ("dagster/column_schema", "dagster/column_lineage", "preview") if day == DAYS[-1] else ()
        for name in ("dagster/partition_row_count", "rows_in_run", *of_the_last):
            assert said[day][name] == expected[day][name], name
    models = metadata(made, "models/failure_model")
    assert {day: models[day]["status"] for day in DAYS} == dict.fromkeys(DAYS, "too little history")


def test_the_bundles_command_makes_the_same(tmp_path, engine, wheel, cluster, here):
    there = Plant(tmp_path / "there", engine)
    land(there)
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    installed = {"PYTHONPATH": str(tmp_path / "installed")}
    settings = {"PDM_DATA": str(there.landing.parent), "PDM_FIRST_DAY": DAYS[0]}
    done = subprocess.run(
        [sys.executable, "-m", "pdm_assets.databricks_task", DAYS[0], DAYS[-1]],
        env={**bare_environ(), **cluster, **installed, **settings},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # A day is not scored before there can be a model: all else is made.
    assert done.returncode == 0, done.stderr
    assert "no model is in force for 2015-01-01 to 2015-01-03" in done.stderr
    assert_same(observations(there), observations(here[0]))
