"""The saved lake of 0.1.0 in the present format; each test has a copy, and none needs Spark for it."""

import pytest

from pdm_assets_tests.upkeep.saved import plant_of_0_1_0, stamp


@pytest.fixture
def plant(tmp_path, engine):
    plant = plant_of_0_1_0(tmp_path / "plant", engine)
    stamp(tmp_path / "plant")
    return plant
