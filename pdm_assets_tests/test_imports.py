import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What no process needs for knowing what there is: each run, sensor and code server would pay for it.
NOT_AT_LOAD = {
    "alembic",
    "confluent_kafka",
    "dagster_databricks",
    "databricks.sdk",
    "duckdb",
    "fsspec",
    "jinja2",
    "matplotlib",
    "mlflow",
    "pandas",
    "pyspark.ml",
    "pyspark.pandas",
    "pyspark.sql.connect",
    "requests",
    "s3fs",
    "sqlalchemy",
}


def test_definitions_load_without_what_only_some_runs_need():
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PDM_")}
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, pdm_assets.definitions; print(*sys.modules)"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "pdm_assets.definitions" in loaded
    assert not NOT_AT_LOAD & set(loaded)


def test_what_is_not_loaded_could_be():
    assert [name for name in sorted(NOT_AT_LOAD) if find_spec(name) is None] == [], "a name that nothing has is never loaded"
