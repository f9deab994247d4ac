"""A Spark Connect server with Delta for tests of the engine `spark`: what deploy/cluster starts, without a cluster."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdm_assets.demo import CHECKOUT
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.settings import Settings

sys.path.insert(0, str(CHECKOUT / "deploy" / "cluster"))
import standalone

__all__ = ["connect_server", "engine_at", "standalone"]

connect_server = standalone.connect_server


@contextmanager
def engine_at(server: Any, data: Path, lake: str | None = None) -> Iterator[SparkEngine]:
    """The session resource that the settings of a server describe."""
    before = SparkEngine._address
    settings = Settings(data=data, engine="spark", spark_remote=server.settings["PDM_SPARK_REMOTE"], lake=lake)
    resource = SparkEngine.of(settings)
    try:
        yield resource
        resource.close()
    finally:
        SparkEngine._address = before
