"""One session of the default engine for each test process."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings as hypothesis_settings
from pyspark.sql import SparkSession

os.environ["TZ"] = "UTC"
for name in [name for name in os.environ if name.startswith("PDM_")]:
    del os.environ[name]  # tests say their settings; the shell's must not leak in

hypothesis_settings.register_profile("patient", deadline=None)  # a loaded machine is slow, not wrong
hypothesis_settings.load_profile("patient")

from pdm_assets.models.fitting import FitProcess
from pdm_assets.models.training import TrainedModel
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import Settings
from pdm_assets_tests.models.fleet import trained_tree


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    resource = SparkEngine.of(Settings(data=tmp_path_factory.mktemp("data"), memory_mb=1024))
    yield resource
    resource.close()


@pytest.fixture(scope="session")
def spark(engine: SparkEngine) -> SparkSession:
    return engine.spark_session


@pytest.fixture(scope="session")
def fitter() -> Iterator[FitProcess]:
    """The process that fits, one for all tests of a process."""
    with FitProcess() as process:
        yield process


@pytest.fixture(scope="session")
def tree(spark: SparkSession, fitter: FitProcess, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A tree that knows the toy fleet, for all who need some model."""
    return trained_tree(spark, "tree", fitter, tmp_path_factory.mktemp("tree") / "pipeline")
