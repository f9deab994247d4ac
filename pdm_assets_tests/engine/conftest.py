"""Both engines in one process: each is a Spark Connect client, so pyspark.sql.functions serves both."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from pdm_assets.engine import spark as spark_engine
from pdm_assets_tests.spark_server import connect_server


@pytest.fixture(scope="session")
def duck(spark: SparkSession) -> SparkSession:
    """The session of the platform's default engine."""
    return spark


@pytest.fixture(scope="session")
def real(duck: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A Spark, in a process of its own."""
    with connect_server(tmp_path_factory.mktemp("spark")) as server:
        session = spark_engine.connect(server.settings["PDM_SPARK_REMOTE"])
        # The frames are small: compiling an expression costs more than evaluating it.
        for name, value in {
            "spark.sql.shuffle.partitions": "1",
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        }.items():
            session.conf.set(name, value)
        yield session
        session.stop()
