"""One Spark engine for the whole test session, on a data root of its own; the workers of a session share it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from pyspark.sql import SparkSession

os.environ["TZ"] = "UTC"
for name in [name for name in os.environ if name.startswith("PDM_")]:
    del os.environ[name]  # tests say their settings; the shell's must not leak in

HAS_WORKERS = "PYTEST_XDIST_WORKER" in os.environ

hypothesis_settings.register_profile("patient", deadline=None)  # a loaded machine is slow, not wrong
hypothesis_settings.load_profile("patient")

from pdm_assets.models.training import TrainedModel
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import Settings
from pdm_assets_tests.models.fleet import trained_tree


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if HAS_WORKERS:
        return tmp_path_factory.getbasetemp().parent / "data-of-all-workers"
    return tmp_path_factory.mktemp("data")


@contextmanager
def engine_for_tests(data: Path) -> Iterator[SparkEngine]:
    settings = Settings(data=data, spark_memory_mb=3072 if HAS_WORKERS else 2048, spark_idle_minutes=1)
    # The frames of tests are small: a task costs more than its rows, and compiling an expression more than evaluating it.
    # The journeys run as users do, on an engine of their own.
    config = {
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
    resource = SparkEngine(**{**SparkEngine.of(settings).model_dump(), "spark_config": config})
    yield resource
    resource.close()
    if not HAS_WORKERS:  # else another may be using it: unused, it stops by itself
        resource.engine.stop()


@pytest.fixture(scope="session")
def engine(data_root: Path) -> Iterator[SparkEngine]:
    with engine_for_tests(data_root) as resource:
        yield resource


@pytest.fixture(scope="session")
def spark(engine: SparkEngine) -> SparkSession:
    return engine.spark_session


@pytest.fixture(scope="session")
def tree(spark: SparkSession) -> TrainedModel:
    """A tree that knows the toy fleet, for all who need some model."""
    return trained_tree(spark, "tree")
